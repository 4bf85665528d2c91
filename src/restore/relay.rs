//! A pseudoterminal for a program that had a terminal and gets one of its own: what it writes is written to our
//! standard output, what we read is typed into it.
//!
//! That is where we have no terminal ourselves, and where the program had led its session: the terminal would become
//! the program's controlling one, and be taken from whoever has it now.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};

use crate::sys::terminal::{self, Raw, Size};

/// The side of the pseudoterminal that is ours.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
}

/// A relay at work.
#[derive(Debug)]
pub(crate) struct PassingOn {
    master: OwnedFd,
    output: Option<JoinHandle<()>>,
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

    /// Begins to pass on, in threads of its own with every signal blocked.
    pub(crate) fn start(self) -> io::Result<PassingOn> {
        let raw = terminal::ours().map(Raw::make).transpose()?;
        let mut from_program = File::from(self.master.try_clone()?);
        let mut to_program = File::from(self.master.try_clone()?);
        let output = thread::Builder::new().name("relay-output".to_owned()).spawn(move || {
            // It ends with an error when the last process that has the terminal open is gone.
            pass_on(&mut from_program, &mut io::stdout());
        })?;
        // Nobody waits for this one: a read of our standard input may never end.
        thread::Builder::new().name("relay-input".to_owned()).spawn(move || {
            pass_on(&mut io::stdin().lock(), &mut to_program);
        })?;
        Ok(PassingOn { master: self.master, output: Some(output), _raw: raw })
    }
}

impl PassingOn {
    /// Gives the program's terminal the size of ours.
    pub(crate) fn resize(&self) {
        if let Err(error) = terminal::resize(&self.master.as_fd(), Size::ours()) {
            log::debug!("can't resize the program's terminal: {error}");
        }
    }

    /// Waits until all that the program has written is out.
    pub(crate) fn finish(mut self) {
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
    }
}

/// Copies until one side ends.
fn pass_on(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
