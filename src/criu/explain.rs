//! From what CRIU did or said to an error that names the cause and the remedy.
//!
//! CRIU's answer to a request that failed holds little: a number, and the first error that it logged, which
//! may be a harmless one. The cause is in its log; the [`dictionary`] knows the lines that were met.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnosis;
use super::dictionary::{self, Rule};
use super::rpc::RequestKind;

use crate::error::{CriuFailure, Error, ErrorKind};
use crate::sys::process;

/// What CRIU was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Version,
    Check,
    Features,
    PreDump,
    Dump,
    Restore,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Version => "the question for its version",
            Operation::Check => "the check of the kernel",
            Operation::Features => "the question for its features",
            Operation::PreDump => "the pre-dump",
            Operation::Dump => "the dump",
            Operation::Restore => "the restore",
        }
    }

    fn kind(self) -> ErrorKind {
        match self {
            Operation::Restore => ErrorKind::Restore,
            _ => ErrorKind::Dump,
        }
    }
}

/// CRIU's number for a request that it refused before it froze anything (EBADRQC).
const REFUSED: i32 = 56;

/// How many lines of a log an error carries.
const LINES: usize = 8;

/// The error for an answer that says no.
pub(super) fn failure(operation: Operation, mut failure: CriuFailure, output: Option<&Path>) -> Error {
    let log = errors_of(failure.log.as_deref(), output);
    let said =
        failure.message.clone().filter(|message| !message.is_empty() && !dictionary::is_harmless(message));
    let lines: Vec<String> = if log.is_empty() { said.into_iter().collect() } else { log };
    let (rule, lines) = judge(lines);
    failure.lines = lines;
    let error = match (rule, failure.errno) {
        (Some(rule), _) => {
            Error::new(rule.kind, format!("CRIU: {} failed: {}", operation.name(), rule.cause)).with_hint(rule.remedy)
        }
        // Without the capabilities that it needs CRIU ends before it has a log to say so in.
        (None, Some(REFUSED)) if failure.lines.is_empty() && output.is_some() && !process::may_administer() => {
            let (cause, remedy) = lacking();
            Error::new(ErrorKind::CapabilityMissing, format!("CRIU refused the request for {} (errno 56), probably because {cause}", operation.name()))
                .with_hint(remedy)
        }
        (None, Some(REFUSED)) if failure.lines.is_empty() => {
            Error::new(ErrorKind::Refused, format!("CRIU refused the request for {} (errno 56)", operation.name()))
                .with_hint("the reason is in the log of the CRIU that was asked: for a service, the file that it was started with as -o")
        }
        (None, errno) => {
            let said = first_that_tells(&failure.lines).map_or_else(|| number(errno), |line| diagnosis::message(line).to_owned());
            let kind = if errno == Some(REFUSED) { ErrorKind::Refused } else { operation.kind() };
            Error::new(kind, format!("CRIU: {} failed: {said}", operation.name())).with_hint("see CRIU's log; https://criu.org/ explains many of its messages, `selfdump explain` shows it")
        }
    };
    error.with_criu(failure)
}

/// What a CRIU lacks that says nothing, and the remedy.
fn lacking() -> (&'static str, &'static str) {
    if process::is_root() {
        ("it lacks CAP_SYS_ADMIN", "give CRIU that capability (in a container, `--cap-add SYS_ADMIN`)")
    } else {
        (
            "it lacks capabilities",
            "have root run `selfdump setup --rootless`, which makes a CRIU for ordinary users (docs/rootless.md), or run as root",
        )
    }
}

fn number(errno: Option<i32>) -> String {
    errno.map_or_else(
        || "it gave no reason".to_owned(),
        |errno| io::Error::from_raw_os_error(errno).to_string(),
    )
}

/// The rule for what happened, and the lines that matter: that which tells the cause, then the first of those
/// around it.
fn judge(mut lines: Vec<String>) -> (Option<&'static Rule>, Vec<String>) {
    let found = dictionary::find(&lines);
    if let Some((_, position)) = found {
        let cause = lines.remove(position);
        lines.insert(0, cause);
    }
    lines.truncate(LINES);
    (found.map(|(rule, _)| rule), lines)
}

/// The first line that tells more than that something failed, if there is one.
fn first_that_tells(lines: &[String]) -> Option<&String> {
    lines.iter().find(|line| !dictionary::is_hollow(line)).or(lines.first())
}

/// The lines of a log that tell of errors. What a worker of ours said before it had opened its log stands in its
/// `output`.
fn errors_of(log: Option<&Path>, output: Option<&Path>) -> Vec<String> {
    let read = |path: Option<&Path>| path.map(read_lossy).unwrap_or_default();
    let (text, early) = (read(log), read(output));
    diagnosis::errors(text.lines().chain(early.lines())).into_iter().map(|line| line.text).collect()
}

/// What can be read of a log; nothing where it isn't there.
fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The log's path with links followed, if the folder is there.
pub(super) fn resolved(log: &Path) -> PathBuf {
    let folder = log.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, log.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => log.to_owned(),
    }
}

/// The error for a CRIU that went away or did not answer in time.
pub(super) fn silence(
    kind: ErrorKind,
    operation: Operation,
    peer: &str,
    timeout: Duration,
    log: Option<&Path>,
    output: Option<&Path>,
) -> Error {
    let (rule, lines) = judge(errors_of(log, output));
    let failure = CriuFailure { log: log.map(Path::to_owned), lines, ..CriuFailure::default() };
    let (what, hint) = match kind {
        ErrorKind::Deadline => (
            format!("did not answer {} within {}", operation.name(), humantime::format_duration(timeout)),
            "look whether it hangs; a large program on a slow disk may need a longer SELFDUMP_TIMEOUT",
        ),
        ErrorKind::Dump => (
            "did not say a word about a process that has ended while it was dumped".to_owned(),
            "it was killed: look for the out-of-memory killer in the kernel's log, then try again",
        ),
        _ => (
            format!("ended before it had answered {}", operation.name()),
            "it was killed or has crashed: look for the out-of-memory killer in the kernel's log, then try again",
        ),
    };
    let error = match rule {
        Some(rule) => {
            Error::new(rule.kind, format!("CRIU ({peer}) {what}: {}", rule.cause)).with_hint(rule.remedy)
        }
        None => Error::new(kind, format!("CRIU ({peer}) {what}")).with_hint(hint),
    };
    error.with_criu(failure)
}

/// The error for a socket that others can have put there.
pub(super) fn untrusted(socket: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::Permission,
        format!("the socket {} is not asked for dumps, since others can have put it there: {why}", socket.display()),
    )
    .with_hint("the socket and the folders above it have to be root's or yours, and writable by nobody else (`chown root`, `chmod go-w`); or leave SELFDUMP_SERVICE unset")
}

/// The error for what `selfdump service` itself says no to; its number tells the kind.
pub(super) fn refusal(peer: &str, asked: RequestKind, errno: Option<i32>, said: &str) -> Error {
    let why = io::Error::from_raw_os_error(errno.unwrap_or(0)).kind();
    let kind = if asked == RequestKind::Restore { ErrorKind::Restore } else { ErrorKind::Dump };
    let (kind, hint) = match why {
        io::ErrorKind::TimedOut => (
            ErrorKind::Deadline,
            "where the program is large or the disk slow, a longer --deadline of the service helps",
        ),
        io::ErrorKind::StorageFull => {
            (ErrorKind::NoSpace, "free space, or name another folder with SELFDUMP_DIR")
        }
        io::ErrorKind::ResourceBusy => {
            (ErrorKind::Refused, "try again later, or have fewer checkpoints made")
        }
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Refused, "docs/service.md says what it serves; SELFDUMP_SERVICE names another one")
        }
        _ => (kind, "what happened is in the service's log (`journalctl -u selfdump`)"),
    };
    Error::new(kind, format!("{peer}: {said}")).with_hint(hint)
}

/// The error for a service that can't be connected to.
pub(super) fn unreachable(socket: &Path, source: io::Error) -> Error {
    let (kind, hint) = match source.kind() {
        io::ErrorKind::PermissionDenied => (
            ErrorKind::Permission,
            "let this user write to the socket, or leave SELFDUMP_SERVICE unset to use a worker of our own",
        ),
        io::ErrorKind::TimedOut => {
            (ErrorKind::Deadline, "the service doesn't take connections: look whether it hangs")
        }
        _ => (
            ErrorKind::NoService,
            "start `criu service --address SOCKET`, or leave SELFDUMP_SERVICE unset to use a worker of our own",
        ),
    };
    Error::new(kind, format!("no CRIU service can be reached at {}", socket.display()))
        .with_hint(hint)
        .with_source(source)
}

/// The error for a CRIU program that can't be started.
pub(super) fn unstartable(program: &Path, source: io::Error) -> Error {
    let kind = if source.kind() == io::ErrorKind::PermissionDenied {
        ErrorKind::Permission
    } else {
        ErrorKind::NoCriu
    };
    Error::new(kind, format!("can't start {}", program.display()))
        .with_hint("run `selfdump setup`, or name a working criu with SELFDUMP_CRIU")
        .with_source(source)
}

/// The error for a CRIU program that ends before it can say anything to us; `output` is what it said
/// otherwise (`error while loading shared libraries: …`).
pub(super) fn unusable(program: &Path, output: Option<&Path>) -> Error {
    let said = output
        .map(read_lossy)
        .unwrap_or_default()
        .lines()
        .last()
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default();
    Error::new(ErrorKind::NoCriu, format!("{} does not run as a worker{said}", program.display()))
        .with_hint("run `selfdump setup`, or name a working criu with SELFDUMP_CRIU")
}

/// The error for a process whose orphans come back to it, so that no worker of its own is outside.
pub(super) fn inside_tree() -> Error {
    Error::new(
        ErrorKind::InsideTree,
        "this process adopts its orphans (it is PID 1 or a subreaper), so a CRIU that it starts would be inside the tree that has to be frozen",
    )
    .with_hint("start a service outside of it (`criu service --address SOCKET`) and name it with SELFDUMP_SERVICE; in a container, an init (`docker run --init`) is another way out")
}

/// The error for an answer that is none.
pub(super) fn senseless(peer: &str, what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("CRIU ({peer}) answered with {what}"))
        .with_hint("look whether it is a CRIU that listens there, of version 4.1.1 or later")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(operation: Operation, errno: i32, message: &str, log: &str) -> Error {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump.log");
        fs::write(&path, log).unwrap();
        let reply = CriuFailure {
            errno: Some(errno),
            message: Some(message.to_owned()),
            log: Some(path),
            lines: Vec::new(),
        };
        failure(operation, reply, None)
    }

    const RLIMIT: &str = "(00.000066) Error (criu/rlimit.c:31): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n";

    #[test]
    fn the_harmless_line_is_not_the_cause() {
        let log =
            format!("{RLIMIT}(00.3) Error (criu/page-xfer.c:1): Can't write: No space left on device\n");
        let error = explained(Operation::Dump, 28, RLIMIT, &log);
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.criu().unwrap().lines.len(), 1);
        let silent = explained(Operation::Dump, 1, RLIMIT, RLIMIT);
        assert!(silent.criu().unwrap().lines.is_empty());
        assert!(!silent.to_string().contains("RLIMIT"), "{silent}");
    }

    #[test]
    fn the_cause_stands_first_and_doubled_lines_once() {
        let log = "(00.1) Error (a.c:1): first\n(00.2) Error (a.c:1): first\n(00.3) Error (b.c:2): File x has bad size 1 (expect 2)\n";
        let error = explained(Operation::Restore, 1, "", log);
        let lines = &error.criu().unwrap().lines;
        assert!(lines[0].contains("bad size") && lines[1].contains("first") && lines.len() == 2, "{lines:?}");
    }

    #[test]
    fn what_no_rule_knows_is_said_in_crius_words() {
        let error = explained(Operation::Dump, 1, "", "(00.1) Error (a.c:1): something new\n");
        assert_eq!(error.kind(), ErrorKind::Dump);
        assert!(error.to_string().ends_with("something new"), "{error}");
    }

    #[test]
    fn a_refusal_says_where_its_reason_is() {
        let error = explained(Operation::Dump, 56, "", "");
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.hint().unwrap().contains("log of the CRIU that was asked"));
    }
}
