//! Once per process: the handler, the thread, and the [`Handle`] to them.

use std::sync::{Mutex, PoisonError};

use crate::agent::{self, Shared};
use crate::checkpoint::Subject;
use crate::config::{self, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Outcome, Restored};
use crate::sys::{process, signal};

/// The signal that asks for a checkpoint.
pub(crate) const SIGNAL: i32 = signal::USR2;

/// The agent of this process, or of the one that it was forked from.
static INSTALLED: Mutex<Option<&'static Shared>> = Mutex::new(None);

/// Has this process checkpointed on SIGUSR2, and by whatever the SELFDUMP_* variables say
/// (see [`Config`]), from here on.
///
/// # Errors
///
/// [`ErrorKind::Config`] for a variable with a value that it can't have; [`ErrorKind::AlreadyInstalled`]
/// for a second call. CRIU isn't looked for before it is needed.
pub fn install() -> Result<Handle> {
    Config::new().install()
}

impl Config {
    /// Has this process checkpointed as configured, from here on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a value that a setting can't have; [`ErrorKind::AlreadyInstalled`] where
    /// selfdump is installed in this process; [`ErrorKind::Io`] where a thread, a pipe or a signal handler
    /// can't be had.
    pub fn install(self) -> Result<Handle> {
        let settings = self.resolve(&config::environment)?;
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if installed.is_some_and(|shared| shared.owner == process::id()) {
            return Err(Error::new(
                ErrorKind::AlreadyInstalled,
                "selfdump is installed in this process already",
            )
            .with_hint("install it once, and clone the Handle for whoever needs it"));
        }
        if !settings.enabled {
            log::info!("off, because SELFDUMP says so");
            return Ok(Handle { shared: None });
        }
        let shared = Shared::new(process::id(), SIGNAL).map_err(|source| Error::os("make a pipe", source))?;
        let shared: &'static Shared = Box::leak(Box::new(shared));
        agent::start(shared, Subject::new(settings)?)
            .map_err(|source| Error::os("start a thread", source))?;
        if let Err(source) = signal::wake_on(SIGNAL, &shared.wake, shared.owner) {
            shared.stop();
            return Err(Error::os("register a signal handler", source));
        }
        *installed = Some(shared);
        Ok(Handle { shared: Some(shared) })
    }
}

/// The way to the agent of this process. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Handle {
    /// None where SELFDUMP=off.
    shared: Option<&'static Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("installed", &self.shared.is_some()).finish()
    }
}

impl Handle {
    /// Makes a checkpoint and waits for it. **Returns twice**: with [`Outcome::Saved`] in the process that
    /// goes on, once the checkpoint is on disk, and with [`Outcome::Restored`] in each process that comes
    /// back from it. Calls that come together share one checkpoint.
    ///
    /// # Errors
    ///
    /// Whatever kept the checkpoint from being made; the program itself is as it was. See [`ErrorKind`] and
    /// [`Error::hint`].
    pub fn checkpoint(&self) -> Result<Outcome> {
        let shared = self.shared()?;
        if std::thread::current().name() == Some(agent::THREAD_NAME) {
            return Err(Error::new(
                ErrorKind::InsideHook,
                "a hook can't ask for a checkpoint and wait for it",
            )
            .with_hint("ask from a thread of the program, or send the process a SIGUSR2"));
        }
        shared
            .call()
            .recv()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::NotInstalled, "selfdump's thread has ended")))
    }

    /// Has `hook` called in each process that comes back from a checkpoint, before anybody who waits for
    /// that checkpoint goes on. It runs in selfdump's own thread, with 512 KiB of stack and every signal
    /// blocked. Hooks run in the order in which they were added; one that panics is logged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotInstalled`] in a forked child.
    pub fn on_restore(&self, hook: impl FnMut(&Restored) + Send + 'static) -> Result<()> {
        if self.shared.is_some() {
            self.shared()?.add_restore_hook(Box::new(hook));
        }
        Ok(())
    }

    fn shared(&self) -> Result<&'static Shared> {
        let Some(shared) = self.shared else {
            return Err(Error::new(ErrorKind::NotInstalled, "selfdump is off in this process")
                .with_hint("start the program without SELFDUMP=off"));
        };
        if shared.owner != process::id() {
            return Err(Error::new(
                ErrorKind::NotInstalled,
                "this process was forked from the one that installed selfdump",
            )
            .with_hint("call selfdump::install() in the child to have it checkpointed by itself"));
        }
        Ok(shared)
    }
}
