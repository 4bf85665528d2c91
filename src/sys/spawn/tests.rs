use super::*;
use std::fs::File;
use std::io::Read;

const SHELL: &str = "/bin/sh";

/// The reader and the writer of a pipe.
fn pipe() -> (File, File) {
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// Starts an orphan that says what it says into a file.
fn worker(
    program: &Path,
    arguments: &[&str],
    descriptors: &[BorrowedFd<'_>],
    output: &Path,
) -> io::Result<Leash> {
    Orphan { descriptors, output, ..Orphan::new(program, arguments) }.start()
}

/// What comes out of a pipe until all its writers are gone.
fn read_all(mut reader: File) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_child_gets_its_descriptors_in_order_and_its_status_is_ours() {
    let (first, sink) = pipe();
    let (second, other) = pipe();
    let given = [sink.as_fd(), other.as_fd()];
    let pid = child(Path::new(SHELL), &["-c", "echo one >&3; echo two >&4; exit 7"], &given, None).unwrap();
    drop((sink, other));
    assert_eq!((read_all(first).as_str(), read_all(second).as_str()), ("one\n", "two\n"));
    assert_eq!(process::wait(pid).unwrap(), process::Ended::Exited(7));
}

#[test]
fn a_worker_is_not_our_child_and_in_a_group_of_its_own_in_our_session() {
    let (said, sink) = pipe();
    // The fields after the name in parentheses: state, parent, group, session.
    let script = "read -r line < /proc/self/stat; sleep 0.2; echo $$ $PPID ${line##*)} >&3";
    let log = tempfile::NamedTempFile::new().unwrap();
    let _leash = worker(Path::new(SHELL), &["-c", script], &[sink.as_fd()], log.path()).unwrap();
    drop(sink);
    let said = read_all(said);
    let fields: Vec<i32> = said.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let [pid, now, parent, group, session, ..] = fields[..] else { panic!("{said}") };
    assert_ne!(now, process::id(), "the worker is our child: {said}");
    assert_eq!(now, parent, "it was an orphan from the beginning: {said}");
    assert_ne!(group, nix::unistd::getpgrp().as_raw(), "a terminal's signals would meet it");
    assert_eq!(session, nix::unistd::getsid(None).unwrap().as_raw(), "its nice value would not hold");
    assert_eq!(process::try_wait(pid).unwrap(), Some(process::Ended::Unknown));
}

#[test]
fn a_worker_is_killed_when_its_leash_is_dropped() {
    let (said, sink) = pipe();
    let log = tempfile::NamedTempFile::new().unwrap();
    let script = "trap '' HUP INT TERM IO; echo ready >&3; while :; do sleep 60 3>&-; done";
    let leash = worker(Path::new(SHELL), &["-c", script], &[sink.as_fd()], log.path()).unwrap();
    drop(sink);
    let mut said = said;
    said.read_exact(&mut [0; 6]).unwrap();
    drop(leash);
    // The end comes when the worker, the last writer, is gone.
    assert_eq!(read_all(said), "");
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let (program, log) = (Path::new("/no/such/criu"), Path::new("/dev/null"));
    assert_eq!(child(program, &[], &[], None).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(worker(program, &[], &[], log).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_worker_has_what_it_was_given_and_says_what_it_says_into_the_file() {
    let (ended, sink) = pipe();
    let log = tempfile::NamedTempFile::new().unwrap();
    let _leash = worker(Path::new("/bin/ls"), &["/proc/self/fd"], &[sink.as_fd()], log.path()).unwrap();
    drop(sink);
    read_all(ended);
    let listed = std::fs::read_to_string(log.path()).unwrap();
    // 3 was given, 4 is the leash, 5 the folder that ls reads.
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5"]);
}
