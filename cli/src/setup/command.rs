//! Runs another program with a deadline, so that one that hangs can't hang us.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How much of a program's output is read back. What tells stands at its end.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// What became of a program.
#[derive(Debug)]
pub struct Ran {
    /// `None` when the deadline ended it.
    pub status: Option<ExitStatus>,
    /// Standard output and standard error in the order in which they were written.
    pub output: String,
}

impl Ran {
    pub fn ok(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The end of the program in words, for a program that gave no reason.
    pub fn ending(&self, deadline: Duration) -> String {
        match self.status {
            Some(status) => format!("no output, {status}"),
            None => format!("no answer within {} s", deadline.as_secs_f32()),
        }
    }
}

/// Whose process group a program runs in.
#[derive(Clone, Copy, Debug)]
pub enum Group {
    /// One of its own, which the deadline ends as a whole: what a script started goes with it.
    Own,
    /// Ours, so that Ctrl-C at the terminal ends it together with us.
    Shared,
}

/// Runs `command` to its end or to the deadline, whichever comes first.
///
/// The output goes through a file, not a pipe: it can't fill up, and a grandchild that outlives the program
/// can't keep us reading.
pub fn run(command: &mut Command, group: Group, deadline: Duration) -> io::Result<Ran> {
    let mut output = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    if let Group::Own = group {
        command.process_group(0);
    }
    let mut child = command.spawn()?;
    let status = wait(&mut child, deadline)?;
    if status.is_none() {
        end(&mut child, group)?;
    }
    Ok(Ran { status, output: tail(&mut output)? })
}

fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn end(child: &mut Child, group: Group) -> io::Result<()> {
    // The child has not been waited for, so its id can't have passed to another process or group.
    if let Group::Own = group {
        killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL)?;
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn tail(output: &mut std::fs::File) -> io::Result<String> {
    let length = output.seek(SeekFrom::End(0))?;
    output.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_LIMIT)))?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first program of this name on PATH, or in the system folders that an ordinary user's PATH leaves out.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn both_outputs_come_back_in_order() {
        let ran =
            run(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]), Group::Own, LONG).unwrap();
        assert_eq!(ran.output, "one\ntwo\n");
        assert_eq!(ran.status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_deadline_ends_the_program_and_what_it_started() {
        let started = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let ran = run(&mut command, Group::Own, Duration::from_millis(300)).unwrap();
        assert!(ran.status.is_none());
        assert!(started.elapsed() < LONG);
        let grandchild: i32 = ran.output.trim().parse().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        // Init may take a moment to reap it, or never do so in a bare container; a zombie is dead enough.
        while !(state().is_empty() || state().contains(") Z ")) {
            assert!(started.elapsed() < LONG, "the grandchild {grandchild} still runs");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_program_is_found_on_path() {
        assert!(find("sh").is_some());
        assert!(find("no-program-of-this-name").is_none());
    }
}
