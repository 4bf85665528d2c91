//! What can be set, by method and by SELFDUMP_* variable, with one meaning.
//!
//! What a program sets by a method of [`Config`] stands; what it leaves open is taken from the variable;
//! else the default holds. [`Config::resolve`] is the one place where this becomes [`Settings`]: plain,
//! complete and checked. All settings are listed in `docs/settings.md`, which a test holds against this.

mod files;
mod named;
mod pattern;
mod schedule;
mod settings;
mod snapshot;
mod staging;
mod values;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use files::{FilePolicy, FileRule};
pub use pattern::FilePattern;
pub use schedule::Schedule;
pub(crate) use schedule::Timing;
pub(crate) use settings::{Settings, environment, for_commands, name_of};
pub use snapshot::Snapshot;
pub use staging::Staging;

use crate::compression::Compression;
use crate::encryption::Recipient;
use crate::frozen::Bytes;
use crate::report::Checkpoint;
use crate::sys::signal::Signal;

/// How a program is checkpointed. Start with [`Config::new`], end with [`Config::install`].
///
/// What is left open is as the variables say, else as the defaults are.
#[doc = include_str!("../../docs/settings.md")]
#[derive(Clone, Debug, Default)]
#[must_use = "a Config does nothing until it is installed"]
pub struct Config {
    dir: Option<PathBuf>,
    name: Option<String>,
    program: Option<PathBuf>,
    keep: Option<u32>,
    keep_forensic: Option<u32>,
    signal: Option<Signal>,
    exit_signal: Option<Signal>,
    exit: Option<Exit>,
    every: Option<Duration>,
    jitter: Option<Duration>,
    overhead: Option<f64>,
    mtbf: Option<Duration>,
    first_after: Option<Duration>,
    min_interval: Option<Duration>,
    hold_timeout: Option<Duration>,
    files: Option<Vec<FileRule>>,
    copy_files: Option<Vec<FilePattern>>,
    copy_limit: Option<Bytes>,
    copy_open: Option<Bytes>,
    keep_tcp: Option<bool>,
    encrypt_to: Option<Vec<Recipient>>,
    staging: Option<Staging>,
    snapshot: Option<Snapshot>,
    incremental: Option<bool>,
    compress: Option<Compression>,
    max_pause: Option<Duration>,
    huge_pages: Option<bool>,
    on_panic: Option<bool>,
    on_fatal_signal: Option<bool>,
    metrics_textfile: Option<PathBuf>,
    timeout: Option<Duration>,
    criu: Option<PathBuf>,
    service: Option<PathBuf>,
}

/// How a program ends once the checkpoint is on disk that the exit signal asked for.
#[derive(Clone)]
#[non_exhaustive]
pub enum Exit {
    /// At once, with this status, and its children with it, which are in the checkpoint: no buffer is flushed, no
    /// destructor or exit handler runs. What stands in the program's buffers is in the checkpoint, and is written by
    /// the process that comes back; written here as well it would be there twice.
    Status(u8),
    /// As this decides, which is called in selfdump's thread. If it returns, the program goes on; if it panics, what
    /// the signal did before happens. Children that are left keep the program from coming back, since it needs their
    /// process ids: [`Checkpoint::processes`] names them.
    Call(Arc<dyn Fn(&Checkpoint) + Send + Sync>),
}

impl Exit {
    /// Ends the program as `call` decides.
    pub fn call(call: impl Fn(&Checkpoint) + Send + Sync + 'static) -> Exit {
        Exit::Call(Arc::new(call))
    }
}

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Status(status) => write!(f, "Status({status})"),
            Exit::Call(_) => f.write_str("Call(..)"),
        }
    }
}

impl PartialEq for Exit {
    fn eq(&self, other: &Exit) -> bool {
        match (self, other) {
            (Exit::Status(one), Exit::Status(other)) => one == other,
            (Exit::Call(one), Exit::Call(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Config {
    /// Everything left open: as the SELFDUMP_* variables say, else the defaults.
    pub fn new() -> Config {
        Config::default()
    }

    /// The store: the folder that checkpoints of all names are kept in. It is made when it is missing,
    /// readable by this user alone.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Config {
        self.dir = Some(dir.into());
        self
    }

    /// The name that the checkpoints are found under.
    pub fn name(mut self, name: impl Into<String>) -> Config {
        self.name = Some(name.into());
        self
    }

    /// How many checkpoints stay; older ones are deleted after each new one.
    pub fn keep(mut self, checkpoints: u32) -> Config {
        self.keep = Some(checkpoints);
        self
    }

    /// How many forensic checkpoints stay, counted by themselves.
    pub fn keep_forensic(mut self, checkpoints: u32) -> Config {
        self.keep_forensic = Some(checkpoints);
        self
    }

    /// The signal that asks for a checkpoint. A handler that the program has for it runs as well.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// selfdump::Config::new().signal("RTMIN+3".parse()?).install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn signal(mut self, signal: Signal) -> Config {
        self.signal = Some(signal);
        self
    }

    /// A signal that asks for a checkpoint and then ends the program, as notices of preemption want it. If the
    /// checkpoint fails, what the signal did before happens after all, and from then on.
    pub fn exit_signal(mut self, signal: Signal) -> Config {
        self.exit_signal = Some(signal);
        self
    }

    /// How the program ends after the exit signal's checkpoint.
    pub fn exit_with(mut self, exit: Exit) -> Config {
        self.exit = Some(exit);
        self
    }

    /// Takes a checkpoint whenever this much time has passed since the last one ended.
    pub fn every(mut self, period: Duration) -> Config {
        self.every = Some(period);
        self
    }

    /// Makes each period of [`every`](Config::every) longer by a random part of this, so that many programs that
    /// were started together don't write together.
    pub fn jitter(mut self, at_most: Duration) -> Config {
        self.jitter = Some(at_most);
        self
    }

    /// Takes checkpoints as often as keeps the share of time that the program stands still for them under this
    /// fraction, learned from the pauses: 0.01 is one percent.
    pub fn overhead(mut self, fraction: f64) -> Config {
        self.overhead = Some(fraction);
        self
    }

    /// Takes checkpoints at the interval that loses least to failures which come once in this time on average
    /// (mean time between failures), by Young's and Daly's estimate from the measured pauses.
    pub fn mtbf(mut self, mean_time_between_failures: Duration) -> Config {
        self.mtbf = Some(mean_time_between_failures);
        self
    }

    /// When the schedule's first checkpoint comes, counted from the installation.
    pub fn first_after(mut self, time: Duration) -> Config {
        self.first_after = Some(time);
        self
    }

    /// The least time from the end of a checkpoint to the beginning of the next that a signal or the schedule asks
    /// for. A signal that comes earlier is acted upon then. Calls and the exit signal don't wait.
    pub fn min_interval(mut self, time: Duration) -> Config {
        self.min_interval = Some(time);
        self
    }

    /// How long a checkpoint waits for the last [`Hold`](crate::Hold) before it counts as failed.
    pub fn hold_timeout(mut self, time: Duration) -> Config {
        self.hold_timeout = Some(time);
        self
    }

    /// What becomes, at a restore, of files that the program was writing and that have changed since. The first rule
    /// that matches counts; rules that the restorer names come before these.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// selfdump::Config::new().files(["rewind:*.csv".parse()?, "keep:/var/log/**".parse()?]).install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn files(mut self, rules: impl IntoIterator<Item = FileRule>) -> Config {
        self.files = Some(rules.into_iter().collect());
        self
    }

    /// Files that are copied into each checkpoint while the program stands still, and put back before a restore: a
    /// database, say, which then is what the program remembers it to be. The copies are made by a shell script that
    /// CRIU runs, with `sh` and `cp`.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// selfdump::Config::new().copy_files(["/data/app.db*".parse()?, "*.log".parse()?]).install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn copy_files(mut self, patterns: impl IntoIterator<Item = FilePattern>) -> Config {
        self.copy_files = Some(patterns.into_iter().collect());
        self
    }

    /// The most that the files to be copied may take on the disk, all together; with more a checkpoint fails before
    /// anything stands still.
    pub fn copy_limit(mut self, limit: Bytes) -> Config {
        self.copy_limit = Some(limit);
        self
    }

    /// The most that copies of files may take which nobody has named, but which the program has open to write in them:
    /// the smallest are copied first, and those that don't fit in are left out. At a restore such a copy is used only
    /// where cutting the file back would not do: it was rewritten in place, replaced, deleted.
    pub fn copy_open(mut self, limit: Bytes) -> Config {
        self.copy_open = Some(limit);
        self
    }

    /// Dumps TCP connections so that a restore can keep them (`selfdump restore --tcp keep`), for whoever has kept the
    /// other end from noticing; otherwise they always come back closed. At each checkpoint CRIU has the firewall drop
    /// their packets, which takes CAP_NET_ADMIN and makes the pause longer; a CRIU that is killed meanwhile leaves the
    /// firewall like that, and those connections silent.
    pub fn keep_tcp(mut self, on: bool) -> Config {
        self.keep_tcp = Some(on);
        self
    }

    /// Who can read the checkpoints: everybody who has the identity (the secret key) of one of these recipients, and
    /// nobody else. Losing all of them is losing the checkpoints. It takes the feature `encrypt`, and at least one
    /// recipient.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// let team = selfdump::Recipient::in_file("/etc/app/recipients.txt".as_ref())?;
    /// selfdump::Config::new().encrypt_to(team).install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn encrypt_to(mut self, recipients: impl IntoIterator<Item = Recipient>) -> Config {
        self.encrypt_to = Some(recipients.into_iter().collect());
        self
    }

    /// Whether CRIU writes into memory while the program stands still, which is sooner done than writing to a disk where
    /// that memory is in huge pages; what it has written is moved to the store when the program runs again. Nothing is a
    /// checkpoint before it is there.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// selfdump::Config::new().staging(selfdump::Staging::Auto).install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn staging(mut self, staging: Staging) -> Config {
        self.staging = Some(staging);
        self
    }

    /// Whether the program stands still for as long as its memory is copied, or only until a copy-on-write copy of it is
    /// there, which CRIU dumps while the program runs on. The copy takes memory for what the program writes meanwhile.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// selfdump::Config::new().snapshot(selfdump::Snapshot::Auto).install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn snapshot(mut self, snapshot: Snapshot) -> Config {
        self.snapshot = Some(snapshot);
        self
    }

    /// Whether pages of memory that are as they were at the checkpoint before are stored with that one alone, which is so
    /// where nothing else is said. Each checkpoint can be restored, moved and deleted by itself all the same. It is found
    /// out by comparing them when the program runs again, so the pause is the same.
    pub fn incremental(mut self, on: bool) -> Config {
        self.incremental = Some(on);
        self
    }

    /// How pages of memory are stored: as they are, or compressed when the program runs again, which takes a processor for
    /// longer and less room on the disk. A restore decompresses them first, into memory where there is room. It takes the
    /// feature `compress`, and has no effect on checkpoints that are encrypted or made by a service.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// selfdump::Config::new().compress(selfdump::Compression::ZSTD).install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn compress(mut self, compression: Compression) -> Config {
        self.compress = Some(compression);
        self
    }

    /// How long the program may stand still for a checkpoint. Where the kernel tells which pages have changed (soft-dirty),
    /// the memory is written ahead while the program runs, in rounds, until what has changed since the last round can be
    /// written in this time, or until another round would not help. The checkpoint is made in any case, and tells how
    /// long it took. Without tracking the log says once what to expect instead.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// selfdump::Config::new().max_pause(std::time::Duration::from_millis(50)).install()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_pause(mut self, time: Duration) -> Config {
        self.max_pause = Some(time);
        self
    }

    /// Whether the program's memory may come to be in transparent huge pages. `false` asks the kernel for none from the
    /// installation on, for this process and those that it starts (PR_SET_THP_DISABLE): one byte that is written to a huge
    /// page makes all of it changed, so that [`max_pause`](Config::max_pause) gains little where a program writes here and
    /// there. What is in huge pages already stays there.
    pub fn huge_pages(mut self, on: bool) -> Config {
        self.huge_pages = Some(on);
        self
    }

    /// Takes a forensic checkpoint at each panic, before anything is unwound, and then calls the panic hook that
    /// was there before.
    pub fn on_panic(mut self, on: bool) -> Config {
        self.on_panic = Some(on);
        self
    }

    /// Takes a forensic checkpoint when the program is about to die of SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGABRT,
    /// with the thread in the frame where it failed; then it dies as it would have died.
    pub fn on_fatal_signal(mut self, on: bool) -> Config {
        self.on_fatal_signal = Some(on);
        self
    }

    /// A file that the program's figures are written to after each attempt, for node_exporter's textfile collector
    /// ([`prometheus`](crate::prometheus)). Its name ends in `.prom`, as the collector wants it. Everybody may read it.
    pub fn metrics_textfile(mut self, path: impl Into<PathBuf>) -> Config {
        self.metrics_textfile = Some(path.into());
        self
    }

    /// How long CRIU may take to answer before a checkpoint counts as failed.
    pub fn timeout(mut self, timeout: Duration) -> Config {
        self.timeout = Some(timeout);
        self
    }

    /// The CRIU program to start for each dump.
    pub fn criu(mut self, program: impl Into<PathBuf>) -> Config {
        self.criu = Some(program.into());
        self
    }

    /// The socket of a running `criu service`, to be asked instead of a worker of our own.
    pub fn service(mut self, socket: impl Into<PathBuf>) -> Config {
        self.service = Some(socket.into());
        self
    }
}
