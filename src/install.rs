//! Once per process: the handlers, the thread, and the [`Handle`] to them.

mod others;

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::agent::{self, Asked, Hold, Shared};
use crate::checkpoint::Subject;
use crate::config::{self, Config, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::forensic;
use crate::metrics::Metrics;
use crate::report::{Cause, Outcome, Report, Restored};
use crate::sys::handler::{self, Before};
use crate::sys::process;
use crate::sys::signal::Signal;
use crate::sys::wake::Waker;

/// What is installed in this process, or in the one that it was forked from.
static INSTALLED: Mutex<Option<Installed>> = Mutex::new(None);

struct Installed {
    shared: &'static Shared,
    by: By,
    settings: Settings,
    thread: JoinHandle<()>,
}

/// Who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The program, which is linked with the feature `auto`.
    Linking,
    /// Whoever has started the program with a library of ours in it, of which it knows nothing.
    Preloading,
    /// The program, by a call.
    Call,
}

/// Has this process checkpointed on SIGUSR2, and by whatever the SELFDUMP_* variables say
/// (see [`Config`]), from here on.
///
/// Where linking installed it already (feature `auto`), this takes over.
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
    /// Where linking installed it already (feature `auto`), this takes over, whatever the configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a value that a setting can't have; [`ErrorKind::AlreadyInstalled`] where
    /// the program has installed selfdump in this process before; [`ErrorKind::Io`] where a thread, a pipe or a
    /// signal handler can't be had.
    pub fn install(self) -> Result<Handle> {
        self.install_by(By::Call)
    }

    pub(crate) fn install_by(self, by: By) -> Result<Handle> {
        let settings = self.resolve(&config::environment)?;
        let hold_timeout = settings.hold_timeout;
        let is_wanted = settings.enabled && !others::come_first(by)?;
        let mut before = begin(|before| match before {
            Some(before) if before.by == By::Call && before.shared.is_ours() => {
                Err(Error::new(ErrorKind::AlreadyInstalled, "selfdump is installed in this process already")
                    .with_hint("install it once, and clone the Handle for whoever needs it"))
            }
            // What is off takes nothing over.
            _ => Ok(is_wanted),
        })?;
        if !settings.enabled {
            log::info!("off, because SELFDUMP says so");
        }
        if !is_wanted {
            return Ok(Handle { shared: None, hold_timeout });
        }
        let replaced = replace(&mut before, settings, by);
        let shared = replaced.as_ref().map_err(Clone::clone).map(|installed| installed.shared);
        // Where nothing was replaced, what there was stays.
        end(replaced.ok().or(before));
        Ok(Handle { shared: Some(shared?), hold_timeout })
    }
}

/// The process in which somebody is installing or uninstalling. It takes as long as a dump that is under way, and no
/// lock is held for that: a child that is forked meanwhile would find it locked for ever.
static CHANGING: AtomicI32 = AtomicI32::new(0);

/// Waits until nobody else is at it, and takes what is installed, if `wanted` says so of it. Then [`end`] has to
/// follow.
fn begin(wanted: impl Fn(Option<&Installed>) -> Result<bool>) -> Result<Option<Installed>> {
    loop {
        let mut installed = installed();
        if CHANGING.load(Ordering::SeqCst) != process::id() {
            if !wanted(installed.as_ref())? {
                return Ok(None);
            }
            CHANGING.store(process::id(), Ordering::SeqCst);
            return Ok(installed.take());
        }
        drop(installed);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Puts in what is installed now.
fn end(now: Option<Installed>) {
    let mut installed = installed();
    *installed = now;
    CHANGING.store(0, Ordering::SeqCst);
}

fn installed() -> MutexGuard<'static, Option<Installed>> {
    INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs in the place of what linking, or the process that this was forked from, has installed.
fn replace(before: &mut Option<Installed>, settings: Settings, by: By) -> Result<Installed> {
    if by != By::Call {
        process::fill_the_streams()
            .map_err(|source| Error::os("open /dev/null for a missing stream", source))?;
    }
    if !settings.huge_pages {
        if let Err(error) = process::refuse_huge_pages() {
            log::warn!("the kernel goes on giving the program huge pages: {error}");
        }
    }
    let shared = Shared::new().map_err(|source| Error::os("make a pipe", source))?;
    let shared: &'static Shared = Box::leak(Box::new(shared));
    // The signals pass to the new agent before the old one ends: at no moment would one of them end the program.
    if let Err(source) = arm(&settings, shared) {
        shared.wake.close();
        return Err(Error::os("register a signal handler", source));
    }
    if let Some(before) = before.take() {
        retire(before, Some((&settings, shared)));
    }
    others::give_way();
    // Only now: a dump of the old agent may have come back as another life.
    let started = Subject::new(settings.clone()).and_then(|subject| start(&settings, by, shared, subject));
    match started {
        Ok(thread) => Ok(Installed { shared, by, settings, thread }),
        Err(error) => {
            signals(&settings).for_each(handler::give_back);
            forensic::disarm(shared);
            shared.wake.close();
            Err(error)
        }
    }
}

fn start(settings: &Settings, by: By, shared: &'static Shared, subject: Subject) -> Result<JoinHandle<()>> {
    forensic::arm_panics(settings, shared);
    let started = match by {
        By::Call => {
            forensic::arm_fatal_signals(settings, shared)?;
            agent::start(shared, subject, || {})
        }
        By::Linking | By::Preloading => {
            let settings = settings.clone();
            agent::start(shared, subject, move || {
                forensic::arm_fatal_signals_after_the_runtime(&settings, shared);
            })
        }
    };
    started.map_err(|source| Error::os("start a thread", source))
}

fn signals(settings: &Settings) -> impl Iterator<Item = Signal> {
    std::iter::once(settings.signal).chain(settings.exit_signal)
}

fn arm(settings: &Settings, shared: &'static Shared) -> std::io::Result<()> {
    handler::arm(settings.signal, &shared.wake, Waker::Signal, Before::Chained)?;
    let Some(signal) = settings.exit_signal else { return Ok(()) };
    handler::arm(signal, &shared.wake, Waker::Exit, Before::Deferred)
        .inspect_err(|_| handler::give_back(settings.signal))
}

/// Ends an agent and gives back what it had, but the signals that its successor has taken over.
fn retire(old: Installed, successor: Option<(&Settings, &Shared)>) {
    let taken_over = |signal: Signal| {
        successor.is_some_and(|(settings, _)| signals(settings).any(|taken| taken == signal))
    };
    signals(&old.settings).filter(|&signal| !taken_over(signal)).for_each(handler::give_back);
    if !old.shared.is_ours() {
        // In a forked child the thread is not there, and what its handle refers to may be another's by now. The pipe
        // is the parent's: only the duplicates are closed.
        std::mem::forget(old.thread);
        old.shared.wake.close();
        return;
    }
    old.shared.stop();
    // A panic of the agent has been reported where it happened.
    let _ = old.thread.join();
    forensic::disarm(old.shared);
    old.shared.let_everybody_go();
    hand_over(old.shared, &old.settings, successor);
    old.shared.wake.close();
}

/// What the old agent has not acted upon is the new one's. An exit that is nobody's any more happens as it would have
/// without us.
fn hand_over(from: &Shared, settings: &Settings, successor: Option<(&Settings, &Shared)>) {
    let left = from.wake.clear();
    if let Some((_, shared)) = successor.filter(|_| left.by(Waker::Signal)) {
        shared.wake.wake(Waker::Signal);
    }
    let Some(signal) = settings.exit_signal.filter(|_| left.by(Waker::Exit)) else { return };
    match successor.filter(|(settings, _)| settings.exit_signal.is_some()) {
        Some((_, shared)) => shared.wake.wake(Waker::Exit),
        None => {
            if let Err(error) = handler::let_happen(signal) {
                log::error!("can't send {signal} on: {error}");
            }
        }
    }
}

/// The way to the agent of this process. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    /// None where SELFDUMP=off.
    shared: Option<&'static Shared>,
    hold_timeout: Duration,
}

impl Handle {
    /// Makes a checkpoint and waits for it. **Returns twice**: with [`Outcome::Saved`] in the process that
    /// goes on, once the checkpoint is on disk, and with [`Outcome::Restored`] in each process that comes
    /// back from it. Calls that come together share one checkpoint.
    ///
    /// # Errors
    ///
    /// Whatever kept the checkpoint from being made; the program itself is as it was. See [`ErrorKind`] and
    /// [`Error::hint`]. From inside a hook ([`ErrorKind::InsideHook`]), and in a thread that has a [`Hold`]
    /// ([`ErrorKind::Held`]), it would wait for itself, and is an error at once.
    pub fn checkpoint(&self) -> Result<Outcome> {
        self.ask()?.wait()
    }

    /// Asks for a checkpoint without waiting for it: what [`checkpoint`](Handle::checkpoint) returns comes from
    /// [`Asked::wait`] or [`Asked::wait_for`]. For threads that have something else to look after meanwhile.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), selfdump::Error> {
    /// # let handle = selfdump::install()?;
    /// # fn look_after_other_things() {}
    /// let asked = handle.ask()?;
    /// let outcome = loop {
    ///     match asked.wait_for(Duration::from_millis(50)) {
    ///         Some(outcome) => break outcome?,
    ///         None => look_after_other_things(),
    ///     }
    /// };
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What would keep [`checkpoint`](Handle::checkpoint) from asking: [`ErrorKind::InsideHook`],
    /// [`ErrorKind::Held`], [`ErrorKind::NotInstalled`].
    pub fn ask(&self) -> Result<Asked> {
        let shared = self.shared()?;
        outside_of_hooks("a hook can't ask for a checkpoint and wait for it")?;
        if agent::held_by_this_thread(shared) {
            return Err(Error::new(
                ErrorKind::Held,
                "this thread holds up checkpoints itself, and would wait for ever",
            )
            .with_hint("drop the Hold before asking for a checkpoint"));
        }
        Ok(shared.call())
    }

    /// Makes a forensic checkpoint of the calling thread and waits for it, whatever comes of it: for languages in which
    /// a program goes wrong by an exception that nobody catches, as [`Config::on_panic`] is for Rust. `message` is what
    /// the exception says (the first 4096 characters are kept), `location` where it came from, such as file and line.
    ///
    /// Hooks are not asked, and no [`Hold`] is waited for. In a process that is restored from it this returns as well.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InsideHook`] in a hook, [`ErrorKind::NotInstalled`] in a forked child. That the checkpoint failed
    /// is logged, and stands in `status.json`.
    pub fn checkpoint_exception(&self, message: &str, location: Option<String>) -> Result<()> {
        let shared = self.shared()?;
        outside_of_hooks("a hook can't wait for a checkpoint of its own exception")?;
        forensic::checkpoint_exception(shared, message, location);
        Ok(())
    }

    /// Keeps checkpoints from beginning until the returned value is dropped: around what must not be cut in two, an
    /// exchange with another process, say. Those that are asked for meanwhile wait, for
    /// [`hold_timeout`](Config::hold_timeout) at most. Waits itself while the program is about to be dumped.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// # let handle = selfdump::install()?;
    /// let whole = handle.hold()?;
    /// // … a request and its answer …
    /// drop(whole);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Held`] where a checkpoint is under way for longer than `hold_timeout`;
    /// [`ErrorKind::InsideHook`] in a hook, [`ErrorKind::NotInstalled`] in a forked child.
    pub fn hold(&self) -> Result<Hold> {
        if self.shared.is_none() {
            return Ok(Hold::of_nothing());
        }
        outside_of_hooks("a hook can't hold up the checkpoint that it is called for")?;
        Hold::of(self.shared()?, self.hold_timeout)
    }

    /// Has `hook` called before each checkpoint, while the program still runs. It may say no, with a reason; then
    /// no checkpoint is made, and who asked gets [`ErrorKind::Vetoed`]. One that panics says no. Forensic
    /// checkpoints don't ask.
    ///
    /// Hooks run in selfdump's own thread, with 8 MiB of stack and every signal blocked, in the order in which
    /// they were added.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), selfdump::Error> {
    /// # let handle = selfdump::install()?;
    /// # fn connected() -> bool { false }
    /// handle.before_checkpoint(|_| if connected() { Err("a transfer is under way".into()) } else { Ok(()) })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotInstalled`] in a forked child.
    pub fn before_checkpoint(
        &self,
        hook: impl FnMut(&Cause) -> Result<(), String> + Send + 'static,
    ) -> Result<()> {
        self.add(|shared| shared.before_checkpoint(hook))
    }

    /// Has `hook` called after each attempt at a checkpoint, in the process that goes on, before anybody who waits
    /// for it: on disk, or failed. It runs as [`before_checkpoint`](Handle::before_checkpoint) does; one that panics
    /// is logged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotInstalled`] in a forked child.
    pub fn after_checkpoint(&self, hook: impl FnMut(&Report) + Send + 'static) -> Result<()> {
        self.add(|shared| shared.after_checkpoint(hook))
    }

    /// Has `hook` called in each process that comes back from a checkpoint, before anybody who waits for
    /// that checkpoint goes on. It runs as [`before_checkpoint`](Handle::before_checkpoint) does; one that panics is
    /// logged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotInstalled`] in a forked child.
    pub fn on_restore(&self, hook: impl FnMut(&Restored) + Send + 'static) -> Result<()> {
        self.add(|shared| shared.on_restore(hook))
    }

    /// What has been counted of this program's checkpoints since it was started or came back; nothing where selfdump is
    /// off.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotInstalled`] in a forked child.
    pub fn metrics(&self) -> Result<Metrics> {
        if self.shared.is_none() {
            return Ok(Metrics::default());
        }
        Ok(self.shared()?.metrics())
    }

    /// Takes selfdump out of this process again: the signals do what they did before, the thread has ended, no
    /// descriptor is left. A checkpoint that is under way is finished first. Other handles to it are of no use from
    /// then on; [`install`] can be called again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InsideHook`] in a hook, [`ErrorKind::NotInstalled`] in a forked child or after an earlier call.
    pub fn uninstall(self) -> Result<()> {
        if self.shared.is_none() {
            return Ok(());
        }
        outside_of_hooks("a hook can't wait for the end of the thread that it runs in")?;
        let shared = self.shared()?;
        let is_it = |installed: Option<&Installed>| {
            Ok(installed.is_some_and(|installed| std::ptr::eq(installed.shared, shared)))
        };
        let installed = begin(is_it)?.ok_or_else(agent::ended)?;
        retire(installed, None);
        end(None);
        Ok(())
    }

    fn add(&self, add: impl FnOnce(&Shared)) -> Result<()> {
        if self.shared.is_some() {
            add(self.shared()?);
        }
        Ok(())
    }

    fn shared(&self) -> Result<&'static Shared> {
        let Some(shared) = self.shared else {
            return Err(Error::new(ErrorKind::NotInstalled, "selfdump is off in this process")
                .with_hint("start the program without SELFDUMP=off"));
        };
        if !shared.is_ours() {
            return Err(Error::new(
                ErrorKind::NotInstalled,
                "this process was forked from the one that installed selfdump",
            )
            .with_hint("call selfdump::install() in the child to have it checkpointed by itself"));
        }
        if shared.is_stopped() {
            return Err(agent::ended());
        }
        Ok(shared)
    }
}

fn outside_of_hooks(problem: &str) -> Result<()> {
    if agent::is_this_thread() {
        return Err(Error::new(ErrorKind::InsideHook, problem)
            .with_hint("ask from a thread of the program, or send the process the checkpoint signal"));
    }
    Ok(())
}
