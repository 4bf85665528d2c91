//! Checkpoint a running program, by `kill -USR2`, by a timer or by a call, and bring it back.
//!
//! A program that installs selfdump is dumped while it runs and goes on running; after a crash, a reboot or
//! a preemption it comes back from its newest good checkpoint and goes on where it was. The dump is
//! [CRIU](https://criu.org)'s work. A process can't start CRIU on itself, since CRIU would be inside the
//! tree that it has to freeze; selfdump asks for it over CRIU's RPC protocol, through a worker that it
//! starts outside of that tree, so neither a daemon nor a wrapper around the program is needed.
//!
//! ```no_run
//! # fn main() -> Result<(), selfdump::Error> {
//! selfdump::install()?; // SIGUSR2 and the SELFDUMP_* variables from here on
//! # Ok(())
//! # }
//! ```
//!
//! ```console
//! $ kill -USR2 4711            # checkpoint, go on
//! $ selfdump list              # what there is
//! $ selfdump restore counter   # back from the newest good one
//! $ selfdump run --every 5m --resume -- ./counter   # with somebody who does that
//! ```
//!
//! A call returns twice, like `fork`:
//!
//! ```no_run
//! use std::time::Duration;
//! use selfdump::{Config, Outcome};
//!
//! # fn main() -> Result<(), selfdump::Error> {
//! let handle = Config::new().every(Duration::from_secs(600)).keep(3).install()?;
//! match handle.checkpoint()? {
//!     Outcome::Saved(checkpoint) => println!("saved {}", checkpoint.id),
//!     Outcome::Restored(restored) => println!("back after {:?}", restored.age),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! The signal handler writes one byte into a pipe. A thread named `selfdump`, asleep in poll(2) until then,
//! makes the checkpoint: it works out from `/proc` what CRIU has to be told about the program, has the
//! program dumped into a *draft*, reads from the images what was frozen, takes checksums, puts every byte on
//! the disk, and renames the draft. A checkpoint exists if and only if that rename happened. While one is
//! made, all further triggers add up to one more.
//!
//! # By linking alone
//!
//! With the feature `auto`, which is on by default, `use selfdump as _;` is all that a program needs: it is installed
//! before main as the SELFDUMP_* variables say. `SELFDUMP=off` leaves it out; a value that can't be is said on
//! standard error, and the program runs on without checkpoints. A call of [`install()`] takes over from linking, with
//! whatever configuration. `default-features = false` leaves the constructor out.
//!
//! A program that can't be changed needs not even that: `selfdump run` has `libselfdump.so` preloaded, which is armed in
//! the program alone. Where several copies of this library are in one process, one of them is installed: that which
//! the program calls, else that which it links, else the preloaded one.
//!
//! The feature `inspect` is for those who look at checkpoints from outside, as the command does; a program that is
//! checkpointed is built sooner without.
//!
//! # When a checkpoint is made
//!
//! When it is asked for: by the checkpoint signal, by a call, by the exit signal (a checkpoint, and then the end:
//! [`Config::exit_signal`]). And by a [`Schedule`]: in a period, as often as keeps the pauses below a share of the
//! time, or at the interval that loses least to failures. [`Config`] lists all settings.
//!
//! Hooks ([`Handle::before_checkpoint`], [`Handle::after_checkpoint`], [`Handle::on_restore`]) are called around it,
//! and [`Handle::hold`] keeps one from cutting in two what belongs together.
//!
//! What a process that came back has to look after (keys, connections, deadlines, leases) is in
//! `docs/after-a-restore.md`.
//!
//! # When the program goes wrong
//!
//! [`Config::on_panic`] and [`Config::on_fatal_signal`] make a *forensic* checkpoint of the moment: of the thread in
//! its panic, or in the frame where it failed. It is kept apart from the others and never chosen to go on from;
//! `selfdump core ID` makes a core of it for a debugger, `selfdump restore --stopped ID` brings it back for one.
//!
//! # What happens when it fails
//!
//! The program goes on as if nothing had been asked, and the older checkpoints stay. The error says what
//! happened, why, and what to do: to the caller of [`Handle::checkpoint`], to the program's
//! [`log`](https://docs.rs/log), and in `status.json` beside the checkpoints (`selfdump status PID`).
//!
//! # Limits
//!
//! - Linux, with CRIU 4.1.1 or later; 4.2 or later for internet sockets on kernels from 6.16 on. `selfdump
//!   setup` gets one where the system's does not work.
//! - The program stands still for as long as CRIU copies its memory: about 0.4 s for each GiB.
//! - An io_uring and a debugger at the program are obstacles; each is named with its descriptor before anything
//!   is frozen, where that can be known.
//! - A file that was rewritten in place since the checkpoint is as it is, not as it was. Connections come back closed.
//! - Process ids must be free at the restore; in a pid namespace of its own (`selfdump restore --pidns`) they are.
//!
//! # Signals, threads and forks
//!
//! The handler is chained to one that the program had before. It is async-signal-safe, allocates nothing
//! and keeps `errno`. A handler that the program puts in its place later is noticed at the next look, once a minute at
//! the latest, and told in the log and by `selfdump status`. The helper thread blocks every signal.
//!
//! A forked child comes back with its parent, as a part of its checkpoints. Nothing of the parent's runs in it, until
//! it calls [`install()`] itself: then it has checkpoints of its own. A program that forks itself into the background
//! has to do that. What the helper thread has open at the moment of a fork is closed in the child before fork(2) returns
//! there. [`Handle::uninstall`] takes everything out again.

// In reading order: a module imports only what stands above it. `error` and `sys` are everyone's, and
// `criu`, `image`, `store` and `trigger` don't know each other. A test holds this.
pub mod error;
pub mod frozen;
mod sys;

mod report;

pub mod metrics;

mod compression;
mod encryption;

mod config;

pub mod criu;
mod image;
mod store;
mod trigger;

mod checkpoint;
pub mod prometheus;
pub mod restore;

#[cfg(feature = "service")]
pub mod service;

#[cfg(feature = "inspect")]
pub mod inspect;

pub mod supervise;

mod agent;
mod forensic;
mod install;
pub mod status;

pub mod ask;
pub mod doctor;

mod role;

pub mod auto;

/// What the fuzz targets need of the inside (docs/fuzzing.md).
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use agent::{Asked, Hold, generation};
pub use compression::Compression;
pub use config::{Config, Exit, FilePattern, FilePolicy, FileRule, Schedule, Snapshot, Staging};
pub use encryption::{Identities, Recipient};
pub use error::{CriuFailure, Error, ErrorKind};
pub use frozen::Bytes;
pub use install::{Handle, install};
pub use metrics::Metrics;
pub use report::{Cause, Checkpoint, Outcome, PauseBudget, Report, Restored, Staged, Technique};
pub use store::catalogue::Entry;
pub use store::manifest::{Criu, FileEntry, Manifest, Program};
pub use store::{listing, prune};
pub use sys::signal::{NoSignal, Signal};

/// Keeps the examples of the README and of the page on restores compiling.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/after-a-restore.md")]
#[doc = include_str!("../docs/cores.md")]
struct Pages;
