//! The one error of this crate.
//!
//! It is opaque, so that causes can be told apart more finely later without breaking anyone: programs
//! match on [`Error::kind`], people read its text and [`Error::hint`], and the causes below it are in the
//! chain of [`std::error::Error::source`]. It is cheap to clone, because callers that shared one dump
//! share its error.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, why, and what to do about it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    criu: Option<CriuFailure>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What kind of thing went wrong.
///
/// The numbers are those that C programs know it by (`include/selfdump.h`): they stay, and new ones come at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting has a value that it can't have.
    Config = 1,
    /// selfdump is installed in this process already.
    AlreadyInstalled = 2,
    /// This process isn't the one that installed selfdump: it was forked from it.
    NotInstalled = 3,
    /// No CRIU was found on this machine.
    NoCriu = 4,
    /// Nothing answers at the service's socket.
    NoService = 5,
    /// CRIU refused the request before it froze anything (errno 56, EBADRQC).
    Refused = 6,
    /// Access was denied.
    Permission = 7,
    /// CRIU lacks a capability that it needs.
    CapabilityMissing = 8,
    /// CRIU would be inside the tree that it has to freeze.
    InsideTree = 9,
    /// Another process traces this one (a debugger, strace).
    Traced = 10,
    /// The process has something open that CRIU can't dump.
    Descriptor = 11,
    /// The disk is full.
    NoSpace = 12,
    /// CRIU went away before it had answered.
    ServiceDied = 13,
    /// CRIU did not answer in time.
    Deadline = 14,
    /// This CRIU is too old for this kernel, or for selfdump.
    CriuTooOld = 15,
    /// CRIU's answer makes no sense.
    Protocol = 16,
    /// The dump failed for another reason.
    Dump = 17,
    /// The restore failed for another reason.
    Restore = 18,
    /// A process id that the restore needs belongs to another process.
    PidTaken = 19,
    /// A file that the program had open is not what it was at the checkpoint.
    FileChanged = 20,
    /// A file that the program had open is gone.
    FileGone = 21,
    /// The machine, or what the program runs, is not what it was at the checkpoint.
    Unfit = 22,
    /// There is no such checkpoint.
    NotFound = 23,
    /// A checkpoint isn't what was committed: a file of it is damaged or missing.
    Damaged = 24,
    /// It was asked for from inside a hook, which would wait for itself.
    InsideHook = 25,
    /// A hook of the program said no.
    Vetoed = 26,
    /// A part of the program that must not be cut by a checkpoint is being held.
    Held = 27,
    /// The operating system refused something else.
    Io = 28,
    /// A checkpoint is encrypted, and none of the identities that were named opens it.
    Encrypted = 29,
}

impl ErrorKind {
    /// The kind's name in JSON and logs: `no-service`, `inside-tree`.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Config => "config",
            ErrorKind::AlreadyInstalled => "already-installed",
            ErrorKind::NotInstalled => "not-installed",
            ErrorKind::NoCriu => "no-criu",
            ErrorKind::NoService => "no-service",
            ErrorKind::Refused => "refused",
            ErrorKind::Permission => "permission",
            ErrorKind::CapabilityMissing => "capability-missing",
            ErrorKind::InsideTree => "inside-tree",
            ErrorKind::Traced => "traced",
            ErrorKind::Descriptor => "descriptor",
            ErrorKind::NoSpace => "no-space",
            ErrorKind::ServiceDied => "service-died",
            ErrorKind::Deadline => "deadline",
            ErrorKind::CriuTooOld => "criu-too-old",
            ErrorKind::Protocol => "protocol",
            ErrorKind::Dump => "dump",
            ErrorKind::Restore => "restore",
            ErrorKind::PidTaken => "pid-taken",
            ErrorKind::FileChanged => "file-changed",
            ErrorKind::FileGone => "file-gone",
            ErrorKind::Unfit => "unfit",
            ErrorKind::NotFound => "not-found",
            ErrorKind::Damaged => "damaged",
            ErrorKind::InsideHook => "inside-hook",
            ErrorKind::Vetoed => "vetoed",
            ErrorKind::Held => "held",
            ErrorKind::Io => "io",
            ErrorKind::Encrypted => "encrypted",
        }
    }
}

/// What CRIU itself said of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CriuFailure {
    /// Its `cr_errno`, where it gave one.
    pub errno: Option<i32>,
    /// Its `cr_errmsg`, where it gave one. The first error logged, which is not always the cause.
    pub message: Option<String>,
    /// Its log.
    pub log: Option<PathBuf>,
    /// The lines of the log that matter, the cause first.
    pub lines: Vec<String>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner { kind, message: message.into(), hint: None, criu: None, source: None }))
    }

    /// An operating system's error, with what was tried (`open`, `rename`) and where.
    pub(crate) fn io(doing: &str, path: &Path, source: impl Into<std::io::Error>) -> Error {
        let source = source.into();
        let error = Error::new(io_kind(&source), format!("can't {doing} {}", path.display()));
        match error.kind() {
            ErrorKind::NoSpace => {
                error.with_hint("free space on that file system, or name another folder with SELFDUMP_DIR")
            }
            ErrorKind::Permission => error.with_hint(format!(
                "make {} writable for this user, or name another folder with SELFDUMP_DIR",
                path.parent().unwrap_or(path).display()
            )),
            ErrorKind::Io if source.kind() == std::io::ErrorKind::NotADirectory => error.with_hint(
                "something above it is a file: move that away, or name another folder with SELFDUMP_DIR",
            ),
            ErrorKind::Io if source.raw_os_error() == Some(EIO) => error.with_hint(
                "look into the kernel's log for errors of that disk, or name another folder with SELFDUMP_DIR",
            ),
            _ => error,
        }
        .with_source(source)
    }

    /// An operating system's error in something that has no path.
    pub(crate) fn os(doing: &str, source: impl Into<std::io::Error>) -> Error {
        let source = source.into();
        Error::new(io_kind(&source), format!("can't {doing}")).with_source(source)
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Error {
        self.map(|inner| inner.hint = Some(hint.into()))
    }

    pub(crate) fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.map(|inner| inner.source = Some(source.into()))
    }

    pub(crate) fn with_criu(self, failure: CriuFailure) -> Error {
        self.map(|inner| inner.criu = Some(failure))
    }

    /// Says where CRIU's log has been moved to; none where it is gone.
    pub(crate) fn with_log(self, log: Option<PathBuf>) -> Error {
        self.map(|inner| {
            if let Some(criu) = &mut inner.criu {
                criu.log = log;
            }
        })
    }

    /// Changes an error that is still being built, so that nobody else has a clone of it.
    fn map(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What CRIU said, where it was CRIU that failed.
    pub fn criu(&self) -> Option<&CriuFailure> {
        self.0.criu.as_ref()
    }

    /// Whether the CRIU that was asked is not right for this machine, so that another one may do better.
    pub(crate) fn is_unfit_criu(&self) -> bool {
        matches!(self.kind(), ErrorKind::CriuTooOld | ErrorKind::NoCriu)
    }

    /// The whole text: this error and the causes below it, without the hint.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// A disk that doesn't do what it is to; std has no kind for it.
const EIO: i32 = 5;

fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Permission,
        Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoSpace,
        Io::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// Everything there is to know, for `unwrap()` and `main() -> Result`: the text, the causes, the lines of
/// CRIU's log that matter, and the hint.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.chain())?;
        if let Some(criu) = self.criu() {
            for line in &criu.lines {
                write!(f, "\n  criu: {line}")?;
            }
            if let Some(log) = &criu.log {
                write!(f, "\n  log: {}", log.display())?;
            }
        }
        match self.hint() {
            Some(hint) => write!(f, "\n  help: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}
