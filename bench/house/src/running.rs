//! The running program, seen from outside.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;

use crate::comparison::{Failure, scene};
use crate::workload::{self, Workload};

/// The running program; killed and waited for when it is dropped.
pub struct Program {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it with its threads' stacks where they favour neither side (see [`Program::is_lucky`]).
    pub fn start(
        workload: &Workload,
        store: &Path,
        criu: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Program, Failure> {
        // glibc puts its room for thread-local variables above the stack of each thread; 512 is its default.
        for room in (512..1024).step_by(64) {
            let mut command = scene::program(workload::WORD, &workload.argument()?, store, criu)?;
            command.envs(settings.iter().copied());
            let program = Program::start_with(room, command)?;
            if !program.is_lucky()? {
                return Ok(program);
            }
        }
        Err("a thread of the program always sleeps at the start of a page".into())
    }

    fn start_with(room: usize, mut command: Command) -> Result<Program, Failure> {
        command.env("GLIBC_TUNABLES", format!("glibc.rtld.optional_static_tls={room}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = child.stdin.take().ok_or("no pipe")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let mut program = Program { child, questions, answers };
        match program.line()?.as_str() {
            "ready" => Ok(program),
            other => Err(format!("the program says {other:?}").into()),
        }
    }

    /// Whether a thread sleeps with its stack pointer at the start of a page. CRIU (4.2, `is_stack` of
    /// criu/mem.c) then takes every page for one of a stack and fills eight pipes in each round instead of
    /// seven, which makes the pause about 5 % shorter. selfdump's thread sleeps elsewhere while it waits for
    /// CRIU than while it waits for a signal, so such luck would come to one side alone.
    fn is_lucky(&self) -> Result<bool, Failure> {
        // The thread of selfdump may still be on its way to where it sleeps.
        std::thread::sleep(Duration::from_millis(200));
        let mut lucky = false;
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            lucky |= sleeping_stack(&thread?.path())? % 4096 == 0;
        }
        Ok(lucky)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The largest gap between two ticks since this was last asked.
    pub fn largest_gap(&mut self) -> Result<Duration, Failure> {
        Ok(Duration::from_micros(self.ask("gap")?.parse()?))
    }

    /// How much of the work that it does undisturbed it did since this was last asked, in percent, if it works.
    pub fn work(&mut self) -> Result<Option<f64>, Failure> {
        let answer = self.ask("work")?;
        if answer == "none" { Ok(None) } else { Ok(Some(answer.parse()?)) }
    }

    /// Has it do something, by a line of its own; what it answers.
    pub fn ask(&mut self, what: &str) -> Result<String, Failure> {
        self.questions.write_all(format!("{what}\n").as_bytes())?;
        self.line()
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The stack pointer of a thread, once it sleeps in a system call: the field before the last (proc(5)). Of one that never
/// sleeps it is no start of a page.
fn sleeping_stack(thread: &Path) -> Result<usize, Failure> {
    for _ in 0..200 {
        let call = fs::read_to_string(thread.join("syscall"))?;
        if let Some(pointer) = call.split_ascii_whitespace().rev().nth(1) {
            return Ok(usize::from_str_radix(pointer.trim_start_matches("0x"), 16)?);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(1)
}
