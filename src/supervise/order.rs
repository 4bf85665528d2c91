//! What a runner is told: which command, where its checkpoints are, and what to do when it ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backoff::DEFAULT_BACKOFF;
use super::policy::Policy;
use super::preload::Preload;
use crate::config::{self, Config, Exit, Settings};
use crate::encryption::{Identities, Recipient};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::restore;
use crate::sys::signal::{self, Signal};

/// The exit status of a program that has left with a checkpoint, where SELFDUMP_EXIT_STATUS says nothing else:
/// EX_TEMPFAIL of sysexits.h, "try again later".
pub const LEFT: u8 = 75;

/// How long a program may take to leave where nothing else is said.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// How much of the files that a program has open to write in them is copied into each checkpoint, where
/// SELFDUMP_COPY_OPEN says nothing else. It makes each pause some 20 ms longer, at the most.
pub const DEFAULT_COPY_OPEN: Bytes = Bytes::mebibytes(32);

/// What a SIGTERM to the runner means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnTerm {
    /// The program makes a checkpoint and ends, and so does the runner.
    Checkpoint,
    /// The program gets the signal, and does what it does with it.
    Pass,
}

/// A program to run, and how. Made by [`Order::new`]; the public fields may be changed afterwards.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Order {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// When it is brought back.
    pub policy: Policy,
    /// How long to wait before that, the first time; each further time in a row it is twice as long.
    pub backoff: Duration,
    /// Whether to go on from what there is: a program of this name that still runs, or the newest checkpoint of a
    /// run that wasn't done.
    pub resume: bool,
    /// What a SIGTERM means.
    pub on_term: OnTerm,
    /// How long the program may take to leave; then it is killed.
    pub grace: Duration,
    /// Which library is put into the program, so that it makes checkpoints.
    pub preload: Preload,
    /// What opens its checkpoints, where they are encrypted. Without it the program can't be brought back.
    pub identities: Identities,
    variables: BTreeMap<String, OsString>,
    settings: Settings,
}

impl Order {
    /// The order to run `command` with these SELFDUMP_* variables, which come before those that are set already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where there is no command, or for a variable with a value that it can't have.
    pub fn new(command: Vec<OsString>, variables: BTreeMap<String, OsString>) -> Result<Order> {
        let Some(program) = command.first() else {
            return Err(Error::new(ErrorKind::Config, "there is no command to run")
                .with_hint("name it after two dashes: selfdump run -- COMMAND ARGUMENT…"));
        };
        let given = |name: &str| {
            let value = variables.get(name).cloned().or_else(|| config::environment(name));
            value.filter(|value| !value.is_empty())
        };
        // The name of this process's own program would be the wrong one.
        let by_name = || config::name_of(Path::new(program)).into();
        let resolve = |name: &str| match name {
            "SELFDUMP_NAME" => given(name).or_else(|| Some(by_name())),
            "SELFDUMP_EXIT_STATUS" => given(name).or_else(|| Some(LEFT.to_string().into())),
            "SELFDUMP_COPY_OPEN" => given(name).or_else(|| Some(DEFAULT_COPY_OPEN.0.to_string().into())),
            name => given(name),
        };
        let settings = Config::new().resolve(&resolve)?;
        Ok(Order {
            command,
            policy: Policy::default(),
            backoff: DEFAULT_BACKOFF,
            resume: false,
            on_term: OnTerm::Checkpoint,
            grace: DEFAULT_GRACE,
            preload: Preload::default(),
            identities: Identities::default(),
            variables,
            settings,
        })
    }

    /// The store.
    pub fn dir(&self) -> &Path {
        &self.settings.dir
    }

    /// What the checkpoints are found under.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The exit status of a program that leaves with a checkpoint, and of its runner.
    pub fn left(&self) -> u8 {
        match self.settings.exit {
            Exit::Status(status) => status,
            Exit::Call(_) => LEFT,
        }
    }

    /// The folder of all runs of this name.
    pub(super) fn folder(&self) -> PathBuf {
        self.settings.dir.join(&self.settings.name)
    }

    /// What the program finds in its environment besides our own.
    pub(super) fn variables(&self) -> BTreeMap<String, OsString> {
        let mut variables = self.variables.clone();
        variables.insert("SELFDUMP_DIR".to_owned(), self.settings.dir.clone().into());
        variables.insert("SELFDUMP_NAME".to_owned(), self.settings.name.clone().into());
        variables.insert("SELFDUMP_EXIT_STATUS".to_owned(), self.left().to_string().into());
        variables.insert("SELFDUMP_COPY_OPEN".to_owned(), self.settings.copy_open.0.to_string().into());
        if let Some(signal) = self.exit_signal() {
            variables.insert("SELFDUMP_EXIT_SIGNAL".to_owned(), signal.number().to_string().into());
        }
        variables
    }

    /// SIGTERM itself, where nothing else is set: so it has the same meaning for the program where the runner is not
    /// the only one who gets it (a whole control group does from systemd), and has its usual effect where the
    /// checkpoint fails.
    fn exit_signal(&self) -> Option<Signal> {
        let term = Signal::try_from(signal::TERM).ok().filter(|&term| term != self.settings.signal);
        let ours = term.filter(|_| self.on_term == OnTerm::Checkpoint);
        self.settings.exit_signal.or(ours)
    }

    /// Whether the program's checkpoints are going to be encrypted to nobody whose identity is here.
    pub(super) fn can_not_bring_back(&self) -> bool {
        let ours = self.identities.recipients();
        let is_ours = |recipient: &Recipient| ours.contains(&recipient.to_string());
        self.settings.encrypts() && !self.settings.encrypt_to.iter().any(is_ours)
    }

    /// How the program is brought back.
    pub(super) fn restore_options(&self) -> Result<restore::Options> {
        let (_, mut options) = restore::from_environment(Some(&self.settings.dir))?;
        options.criu.clone_from(&self.settings.criu);
        options.service.clone_from(&self.settings.service);
        options.timeout = self.settings.timeout;
        options.files.clone_from(&self.settings.files);
        options.identities.clone_from(&self.identities);
        Ok(options)
    }
}
