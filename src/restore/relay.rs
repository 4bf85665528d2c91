//! A pseudoterminal for a program that had a terminal and gets one of its own: what it writes is written to our
//! standard output, what we read is typed into it.
//!
//! That is where we have no terminal ourselves, and where the program had led its session: the terminal would become
//! the program's controlling one, and be taken from whoever has it now.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys::terminal::{self, Keys, Raw, Size};

/// How long a terminal has to be silent, when the program has ended, for all to be out. Something else that it has
/// started may have it open for ever.
const SILENCE: Duration = Duration::from_millis(200);

/// The side of the pseudoterminal that is ours.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
}

/// A relay at work.
#[derive(Debug)]
pub(crate) struct PassingOn {
    master: OwnedFd,
    output: JoinHandle<()>,
    /// Whether something that was read is still to be written.
    is_writing: Arc<AtomicBool>,
    /// None while our standard input is a terminal that is somebody else's for now.
    input: Option<Input>,
}

/// What is typed into the program's terminal.
#[derive(Debug)]
struct Input {
    /// Our own terminal, where we have one, passes keys on as they are pressed.
    _raw: Option<Raw>,
}

impl Relay {
    /// Makes one, and the terminal that the program gets.
    pub(super) fn make() -> io::Result<(Relay, OwnedFd)> {
        let (master, slave) = terminal::open_pair()?;
        terminal::resize(&master, Size::ours())?;
        Ok((Relay { master }, slave))
    }

    /// Begins to pass on, in threads of its own. They hold back the signals that the caller does.
    pub(crate) fn start(self) -> io::Result<PassingOn> {
        let is_writing = Arc::new(AtomicBool::new(false));
        let busy = Arc::clone(&is_writing);
        let mut from_program = File::from(self.master.try_clone()?);
        let output = thread::Builder::new().name("relay-output".to_owned()).spawn(move || {
            // It ends with an error when the last process that has the terminal open is gone.
            pass_on(&mut from_program, |bytes| {
                busy.store(true, Ordering::Relaxed);
                // Where nobody reads it any more, it is read all the same: the program would stand still.
                let _ = io::stdout().write_all(bytes).and_then(|()| io::stdout().flush());
                busy.store(false, Ordering::Relaxed);
                Ok(())
            });
        })?;
        let mut passing_on = PassingOn { master: self.master, output, is_writing, input: None };
        passing_on.take_input()?;
        Ok(passing_on)
    }
}

impl PassingOn {
    /// Begins to pass on what we read, once it is for us: a job that was started in the background may have been brought
    /// to the foreground.
    pub(crate) fn take_input(&mut self) -> io::Result<()> {
        if self.input.is_some() {
            return Ok(());
        }
        let raw = match Keys::ours()? {
            Keys::Elsewhere => return Ok(()),
            Keys::Terminal(terminal) => Some(Raw::make(terminal)?),
            Keys::Stream => None,
        };
        self.input = Some(Input { _raw: raw });
        let mut to_program = File::from(self.master.try_clone()?);
        // Nobody waits for this one: a read of our standard input may never end.
        thread::Builder::new().name("relay-input".to_owned()).spawn(move || {
            pass_on(&mut io::stdin().lock(), |bytes| to_program.write_all(bytes));
        })?;
        Ok(())
    }

    /// Gives the program's terminal the size of ours.
    pub(crate) fn resize(&self) {
        if let Err(error) = terminal::resize(&self.master.as_fd(), Size::ours()) {
            log::debug!("can't resize the program's terminal: {error}");
        }
    }

    /// Waits until all that the program has written is out.
    pub(crate) fn finish(self) {
        while !self.output.is_finished() {
            if !terminal::has_more(&self.master, SILENCE) && !self.is_writing.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Passes on until one side ends.
fn pass_on(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if to(&buffer[..count]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn whoever_keeps_the_terminal_open_does_not_keep_the_restorer() {
        let (relay, _slave) = Relay::make().unwrap();
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            relay.start().unwrap().finish();
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(30)).expect("it ends though a slave is open");
    }
}
