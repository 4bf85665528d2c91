//! Forensic checkpoints: of a thread in its panic, or with an exception that nobody caught, and of one that is about to
//! die of a signal.
//!
//! The thread waits where it is until the agent has made the checkpoint, so that its stack in the images ends in what
//! went wrong. It may hold locks that the agent needs, or a hook of the program, so its patience has bounds. Hooks have no say in it, and no [`Hold`](crate::Hold) holds it up: what it would protect is lost.

use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use crate::agent::{self, Shared};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::report::Cause;
use crate::sys::{crash, process};

/// The agent that is told of panics; none where it was not asked for.
static PANICS: Mutex<Option<&'static Shared>> = Mutex::new(None);

/// How long a thread waits in its panic for a checkpoint that has begun.
static PATIENCE: Mutex<Duration> = Mutex::new(Duration::ZERO);

/// Our panic hook is put in place once: a hook that was set after it may have kept it.
static HOOK: Once = Once::new();

/// How much of a panic's message is kept.
const LONGEST_MESSAGE: usize = 4096;

/// Beyond CRIU's own time: what comes after its answer has to reach the disk.
const AFTER_THE_ANSWER: Duration = Duration::from_secs(60);

fn patience(settings: &Settings) -> Duration {
    settings.timeout.saturating_add(AFTER_THE_ANSWER)
}

/// Has the agent make a forensic checkpoint at each panic, if that is configured.
pub(crate) fn arm_panics(settings: &Settings, shared: &'static Shared) {
    *PATIENCE.lock().unwrap_or_else(PoisonError::into_inner) = patience(settings);
    *PANICS.lock().unwrap_or_else(PoisonError::into_inner) = settings.on_panic.then_some(shared);
    // In the middle of a panic no hook can be put in place.
    if settings.on_panic && !std::thread::panicking() {
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                checkpoint(panic);
                before(panic);
            }));
        });
    }
}

/// Has the agent make a forensic checkpoint before the program dies of a signal, if that is configured.
pub(crate) fn arm_fatal_signals(settings: &Settings, shared: &'static Shared) -> Result<()> {
    if !settings.on_fatal_signal {
        return Ok(());
    }
    crash::arm(&shared.wake, patience(settings))
        .map_err(|source| Error::os("register a handler for crashes", source))
}

/// The same before main: once the program's runtime has looked whether it may have these signals.
pub(crate) fn arm_fatal_signals_after_the_runtime(settings: &Settings, shared: &'static Shared) {
    if settings.on_fatal_signal {
        crash::wait_for_the_runtime();
    }
    if let Err(error) = arm_fatal_signals(settings, shared) {
        log::error!("{error:?}");
    }
}

/// Takes it all back; what the panic hook finds then is nothing.
pub(crate) fn disarm(shared: &Shared) {
    let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    if panics.is_some_and(|armed| std::ptr::eq(armed, shared)) {
        *panics = None;
    }
    drop(panics);
    crash::disarm();
}

fn checkpoint(panic: &PanicHookInfo<'_>) {
    let armed = *PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(shared) = armed.filter(|shared| shared.is_ours() && !agent::is_this_thread()) else { return };
    let cause = Cause::Panic {
        message: message(panic),
        thread: process::thread_name(),
        thread_id: Some(process::thread()),
        location: panic.location().map(ToString::to_string),
    };
    wait_for(shared, cause);
}

/// Has the agent make a forensic checkpoint of the calling thread, which has an exception that nobody caught.
pub(crate) fn checkpoint_exception(shared: &Shared, message: &str, location: Option<String>) {
    let message = message.chars().take(LONGEST_MESSAGE).collect();
    let (thread, thread_id) = (process::thread_name(), Some(process::thread()));
    wait_for(shared, Cause::Exception { message, thread, thread_id, location });
}

fn wait_for(shared: &Shared, cause: Cause) {
    shared.call_from_panic(cause).wait(*PATIENCE.lock().unwrap_or_else(PoisonError::into_inner));
}

fn message(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    text.chars().take(LONGEST_MESSAGE).collect()
}
