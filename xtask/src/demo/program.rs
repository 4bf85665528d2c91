//! A program whose output is relayed line by line, and that is ended when it's dropped.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::DEADLINE;

/// One step that the program printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub number: u64,
    /// The whole line: the number, and the sum that depends on all steps before it.
    pub line: String,
}

impl Step {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let number = line.strip_prefix("step ")?.split_whitespace().next()?.parse().ok()?;
        Some(Self { number, line: line.to_owned() })
    }
}

/// A running child and the steps that it has printed so far.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<Step>,
}

impl Program {
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("can't start {name}"))?;
        let (sender, lines) = channel();
        relay(child.stdout.take(), sender.clone());
        relay(child.stderr.take(), sender);
        Ok(Self { child, lines, seen: Vec::new() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn seen(&self) -> &[Step] {
        &self.seen
    }

    pub fn last(&self) -> Option<&Step> {
        self.seen.last()
    }

    /// Waits until it has done so many steps more.
    pub fn steps(&mut self, count: usize) -> Result<()> {
        let (wanted, started) = (self.seen.len() + count, Instant::now());
        while self.seen.len() < wanted {
            self.pass(Duration::from_millis(100))?;
            if started.elapsed() > DEADLINE {
                bail!("{count} steps of process {} weren't done within {} s", self.pid(), DEADLINE.as_secs());
            }
        }
        Ok(())
    }

    /// Shows what it prints for a while.
    pub fn pass(&mut self, time: Duration) -> Result<()> {
        match self.lines.recv_timeout(time) {
            Ok(line) => self.show(&line),
            Err(RecvTimeoutError::Timeout) => {}
            // Both outputs are closed.
            Err(RecvTimeoutError::Disconnected) => match self.wait()? {
                Some(status) => bail!("process {} ended too early, {status}", self.pid()),
                None => bail!("process {} closed its output", self.pid()),
            },
        }
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The child is waited for only by us, so as long as we didn't its pid is its own.
        send(self.pid(), signal)
    }

    /// Kills it, and shows what it had printed until then.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("can't kill the program")?;
        self.child.wait().context("can't wait for the program")?;
        self.drain();
        Ok(())
    }

    /// Ends a restored program, which is the child of our child, by its pid; then the child ends by itself.
    pub fn end(&mut self, restored: u32) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            // While the restorer runs, the pid is that of the program that it waits for. Before the program is seen
            // the pid may be anybody's, and then the restorer has to clean up after itself.
            match self.seen.is_empty() {
                true => self.signal(Signal::SIGTERM)?,
                false => send(restored, Signal::SIGKILL)?,
            }
        }
        self.wait()?;
        self.drain();
        Ok(())
    }

    fn wait(&mut self) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(None)
    }

    fn drain(&mut self) {
        // The end comes when the last writer is gone; the pause is for one that isn't.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(500)) {
            self.show(&line);
        }
    }

    fn show(&mut self, line: &str) {
        println!("   | {line}");
        self.seen.extend(Step::parse(line));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it's gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn relay(output: Option<impl Read + Send + 'static>, sender: Sender<String>) {
    let Some(output) = output else { return };
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid as i32), signal).with_context(|| format!("can't send {signal} to process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_other_lines() {
        assert_eq!(
            Step::parse("step 17  sum 4242"),
            Some(Step { number: 17, line: "step 17  sum 4242".to_owned() })
        );
        assert_eq!(Step::parse("restored from 000001"), None);
        assert_eq!(Step::parse("step by step"), None);
    }

    #[test]
    fn a_program_is_watched_and_killed() {
        let mut program = Program::start(
            Command::new("sh").args(["-c", "for i in 1 2 3; do echo step $i; done; exec sleep 600"]),
        )
        .unwrap();
        program.steps(3).unwrap();
        assert_eq!(program.last().unwrap().number, 3);
        program.kill().unwrap();
    }

    #[test]
    fn a_program_that_ends_is_told_from_one_that_is_slow() {
        let mut program = Program::start(Command::new("sh").args(["-c", "echo step 1; exit 3"])).unwrap();
        let error = program.steps(2).unwrap_err();
        assert!(error.to_string().ends_with("ended too early, exit status: 3"), "{error}");
    }
}
