//! What the runner says: words or JSON lines, and a line that shows how the program is doing. All of it goes to
//! standard error, since standard output is the program's. A reader that is gone is no reason to end.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use selfdump::restore::FileAction;
use selfdump::restore::FilePlan;
use selfdump::status::Failure;
use selfdump::supervise::{End, Event, Life, Look, Start};
use serde::Serialize;

use super::options::Progress;
use crate::output;

/// Who listens.
pub struct Said {
    name: String,
    words: bool,
    lines: Option<Lines>,
    progress: bool,
    /// Whether the line stands there now.
    is_shown: bool,
    /// Why there was no checkpoint the last time: said once, and not in each period anew.
    failure: Option<String>,
}

enum Lines {
    StandardError,
    File(File),
}

/// A JSON line.
#[derive(Serialize)]
struct Line<'a> {
    format_version: u32,
    at_unix_us: u64,
    name: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

impl Said {
    pub fn new(name: &str, json: Option<&Option<PathBuf>>, progress: Progress) -> Result<Said> {
        let lines = match json {
            None => None,
            Some(None) => Some(Lines::StandardError),
            Some(Some(path)) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Some(Lines::File(file.with_context(|| format!("can't open {}", path.display()))?))
            }
        };
        let words = !matches!(lines, Some(Lines::StandardError));
        // Lines of the program would be broken by ours.
        let apart = io::stderr().is_terminal() && !io::stdout().is_terminal();
        let progress = words
            && match progress {
                Progress::Auto => apart,
                Progress::Always => true,
                Progress::Never => false,
            };
        Ok(Said { name: name.to_owned(), words, lines, progress, is_shown: false, failure: None })
    }

    pub fn tell(&mut self, event: &Event) {
        if let Event::Looked(look) = event {
            self.show(look);
            return;
        }
        self.write_line(event);
        if self.words && self.is_news(event) {
            self.clear();
            words(&self.name, event, &mut |line| print(format_args!("selfdump: {line}\n")));
        }
    }

    fn is_news(&mut self, event: &Event) -> bool {
        match event {
            Event::NotSaved { error, .. } => {
                self.failure.replace(error.message.clone()).is_none_or(|before| before != error.message)
            }
            Event::Saved { .. } => self.failure.take().is_some(),
            _ => true,
        }
    }

    fn write_line(&mut self, event: &Event) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let line = Line { format_version: 1, at_unix_us: at.as_micros() as u64, name: &self.name, event };
        let Ok(mut text) = serde_json::to_string(&line) else { return };
        text.push('\n');
        match &mut self.lines {
            None => {}
            // Whole, so that it stays so among what others write there.
            Some(Lines::StandardError) => print(format_args!("{text}")),
            Some(Lines::File(file)) => drop(file.write_all(text.as_bytes())),
        }
    }

    fn show(&mut self, look: &Look) {
        if !self.progress {
            return;
        }
        let ran = output::seconds(look.since.elapsed());
        let saved = look.saved.map_or_else(
            || "no checkpoint yet".to_owned(),
            |saved| format!("last checkpoint {} ago", output::age(saved)),
        );
        let name = &self.name;
        let lives = counted(look.restarts, "restart");
        print(format_args!("\r\x1b[Kselfdump: {name} ({}) runs for {ran}, {saved}, {lives}", look.pid));
        self.is_shown = true;
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            print(format_args!("\r\x1b[K"));
        }
    }
}

/// In one write.
fn print(text: std::fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

fn words(name: &str, event: &Event, say: &mut dyn FnMut(String)) {
    match event {
        // What goes as it should is not spoken of.
        Event::Started { anew: false, .. } => {}
        // Only after some that failed.
        Event::Saved { checkpoint, .. } => say(format!("checkpoints are made again: {checkpoint}")),
        Event::Started { pid, anew: true } => {
            say(format!("started {name} anew, as process {pid}: there is no checkpoint to go on from"));
        }
        Event::TakenOver { pid } => {
            say(format!("{name} runs already, as process {pid}, and has a runner again"));
        }
        Event::Restored { pid, checkpoint, files, cut } => {
            say(format!("restored {checkpoint} as process {pid}"));
            files.iter().filter_map(of_file).for_each(&mut *say);
            if let Some(folder) = cut {
                say(format!("what was cut off is in {}", folder.display()));
            }
        }
        Event::NotRestored { checkpoint, error } => {
            failure(&format!("can't restore {checkpoint}"), error, say)
        }
        Event::NotSaved { error, .. } => failure(&format!("no checkpoint of {name}"), error, say),
        Event::NotPreloaded { error } => {
            failure(&format!("no checkpoints will be made of {name}"), error, say)
        }
        Event::NotCheckpointed { pid } => {
            say(format!("process {pid} has not installed selfdump: no checkpoints are made of it"));
            say("  help: have libselfdump.so preloaded (--preload), or link selfdump; until then a crash starts \
                 it anew"
                .to_owned());
        }
        Event::AskedToLeave { signal, grace_seconds, with_checkpoint, .. } => {
            let grace = output::seconds(Duration::from_secs_f64(*grace_seconds));
            let how = if *with_checkpoint { "with a checkpoint" } else { "without a checkpoint" };
            say(format!("asked {name} to leave {how} ({signal}), for which it has {grace}"));
        }
        Event::Killed { pid } => say(format!("process {pid} did not leave in time, and is killed")),
        Event::Ended { life, crashed: true, .. } => say(format!("{name} crashed: {}", of_life(life))),
        Event::Ended { .. } => {}
        Event::Waiting { seconds, .. } => {
            say(format!("{name} goes on in {seconds:.1} s"));
        }
        Event::Left { checkpoint } => {
            say(format!("{name} left with {checkpoint}; --resume goes on from there"))
        }
        Event::GaveUp { reason, lives } => {
            say(format!("gave up: {reason}. Its lives:"));
            lives.iter().enumerate().for_each(|(at, life)| say(format!("  {}. {}", at + 1, of_life(life))));
        }
        Event::Elsewhere { folder } => {
            say(format!("{name} has its checkpoints in {}, as it says itself", folder.display()));
            say("  help: --resume looks there only with that --dir and --name".to_owned());
        }
        _ => {}
    }
}

fn failure(what: &str, error: &Failure, say: &mut dyn FnMut(String)) {
    say(format!("{what}: {}", error.message));
    error.criu.iter().for_each(|line| say(format!("  criu: {line}")));
    if let Some(hint) = &error.hint {
        say(format!("  help: {hint}"));
    }
}

/// What was done with a file, where something was.
fn of_file(file: &FilePlan) -> Option<String> {
    match &file.action {
        FileAction::Rewind { to, cut } => {
            Some(format!("cut {} back to {to} ({cut} off): {}", file.path.display(), file.why))
        }
        _ => None,
    }
}

fn of_life(life: &Life) -> String {
    let start = match &life.start {
        Start::Command => "started".to_owned(),
        Start::Checkpoint(id) => format!("from {id}"),
        Start::TakenOver => "taken over".to_owned(),
        _ => "begun".to_owned(),
    };
    let ran = life.ran.as_secs_f64();
    let end = match life.end {
        End::Exited(status) => format!("exited with status {status}"),
        End::Signaled(signal) => format!("died of {}", signal_name(signal)),
        End::Unknown => "ended, nobody knows how".to_owned(),
        End::NotRestored { .. } => return format!("{start}: it did not come back"),
        _ => "ended".to_owned(),
    };
    format!("{start}, {end} after {ran:.1} s")
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
