//! The helper thread: it waits, makes checkpoints, and delivers what came of them.
//!
//! One thread does it all, so at most one dump is under way, and whatever wakes it meanwhile adds up to one
//! more. It sleeps in poll(2) until the signal handler's byte, a caller's, or the schedule's deadline, and
//! costs nothing until then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};

use crate::checkpoint::{self, Subject};
use crate::config::Schedule;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Cause, Outcome, Report, Restored};
use crate::store::draft;
use crate::store::status::{self, Status};
use crate::sys;
use crate::sys::wake::{Wake, Waker};
use crate::trigger::Timetable;

/// The thread's name, by which it is known in `/proc/PID/task/TID/comm`.
pub(crate) const THREAD_NAME: &str = "selfdump";

/// Plenty for the agent itself, and enough for a hook of the program.
const STACK: usize = 512 * 1024;

/// What the agent shares with the handler and the callers. It is never freed: a handler may run at any time.
pub(crate) struct Shared {
    pub(crate) wake: Wake,
    /// The process that it belongs to. In a forked child there is no agent.
    pub(crate) owner: i32,
    signal: i32,
    callers: Mutex<Vec<Caller>>,
    restore_hooks: Mutex<Vec<RestoreHook>>,
    stopping: AtomicBool,
}

/// Where the outcome of a call goes.
type Caller = Sender<Result<Outcome>>;

pub(crate) type RestoreHook = Box<dyn FnMut(&Restored) + Send>;

impl Shared {
    pub(crate) fn new(owner: i32, signal: i32) -> std::io::Result<Shared> {
        Ok(Shared {
            wake: Wake::new()?,
            owner,
            signal,
            callers: Mutex::default(),
            restore_hooks: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Asks for a checkpoint. Who asks before one begins shares it with all others who did.
    pub(crate) fn call(&self) -> Receiver<Result<Outcome>> {
        let (caller, outcome) = channel();
        lock(&self.callers).push(caller);
        self.wake.wake(Waker::Thread);
        outcome
    }

    pub(crate) fn add_restore_hook(&self, hook: RestoreHook) {
        lock(&self.restore_hooks).push(hook);
    }

    /// Has the agent end after what it is doing now.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake.wake(Waker::Thread);
    }

    fn take_callers(&self) -> Vec<Caller> {
        std::mem::take(&mut *lock(&self.callers))
    }
}

/// A hook that panicked leaves nothing half done that matters here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread.
pub(crate) fn start(shared: &'static Shared, subject: Subject) -> std::io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK);
    sys::signal::with_all_blocked(|| thread.spawn(move || run(shared, subject)))
}

fn run(shared: &Shared, mut subject: Subject) {
    let schedule = subject.settings.schedule;
    let mut timetable = Timetable::new(schedule, Instant::now());
    let mut status = Status::new(&subject.instance, &subject.life, period(schedule));
    draft::sweep(&subject.instance);
    status::sweep();
    status.write();
    while let Some((cause, callers)) = next(shared, &timetable) {
        let report = make(&mut subject, cause);
        match &report.outcome {
            Ok(Outcome::Restored(restored)) => {
                // Signals and calls that came during the dump are left to be acted upon: they may as well have
                // come since the restore, and would be lost.
                status.come_back(&subject.life, &restored.id);
                log::info!("restored from {} as generation {}", restored.id, restored.generation);
                run_hooks(shared, restored);
                deliver(&report, callers);
            }
            _ => {
                status.record(&report);
                status.write();
                say(&report);
                deliver(&report, callers);
            }
        }
        timetable.restart(Instant::now());
    }
}

fn period(schedule: Schedule) -> Option<f64> {
    match schedule {
        Schedule::OnDemand => None,
        Schedule::Every(period) => Some(period.as_secs_f64()),
    }
}

/// Sleeps until there is a reason for a checkpoint; none when the agent is to end.
///
/// The wake-ups are cleared before anything is acted upon: one that comes later is kept for the next round.
fn next(shared: &Shared, timetable: &Timetable) -> Option<(Cause, Vec<Caller>)> {
    loop {
        shared.wake.wait(timetable.due());
        let woken = shared.wake.clear();
        if shared.stopping.load(Ordering::Acquire) {
            return None;
        }
        let callers = shared.take_callers();
        let cause = if !callers.is_empty() {
            Cause::Call
        } else if woken.by(Waker::Signal) {
            Cause::Signal { signal: shared.signal }
        } else if timetable.is_due(Instant::now()) {
            Cause::Timer
        } else {
            // A caller that was served along with an earlier wake-up.
            continue;
        };
        return Some((cause, callers));
    }
}

/// A panic of ours is a failed checkpoint, not the end of the agent.
fn make(subject: &mut Subject, cause: Cause) -> Report {
    let started = SystemTime::now();
    let made = catch_unwind(AssertUnwindSafe(|| checkpoint::run(subject, cause.clone())));
    made.unwrap_or_else(|_| Report {
        cause,
        started,
        answered: None,
        finished: SystemTime::now(),
        outcome: Err(Error::new(ErrorKind::Io, "selfdump itself panicked; the program goes on")
            .with_hint("this is a bug in selfdump; the panic's message says where")),
    })
}

fn run_hooks(shared: &Shared, restored: &Restored) {
    for hook in lock(&shared.restore_hooks).iter_mut() {
        if catch_unwind(AssertUnwindSafe(|| hook(restored))).is_err() {
            log::error!("a hook for restores panicked");
        }
    }
}

fn deliver(report: &Report, callers: Vec<Caller>) {
    for caller in callers {
        // A caller that is gone has no use for it.
        let _ = caller.send(report.outcome.clone());
    }
}

fn say(report: &Report) {
    match &report.outcome {
        Ok(Outcome::Saved(checkpoint)) => log::info!(
            "saved {} ({}): {}, stood still for {:.1} ms",
            checkpoint.id,
            report.cause,
            checkpoint.size,
            checkpoint.stats.frozen.as_secs_f64() * 1e3
        ),
        Ok(Outcome::Restored(_)) => {}
        Err(error) => log::error!("no checkpoint ({}): {}: {error:?}", report.cause, error.kind().name()),
    }
}
