//! The helper thread: it waits, makes checkpoints, and delivers what came of them.
//!
//! One thread does it all, so at most one dump is under way, and whatever wakes it meanwhile adds up to one
//! more. It sleeps in poll(2) until a signal handler's byte, a caller's, or the schedule's deadline, but for a
//! look once a minute: at the clock, which may have jumped, and at the handlers, which the program may have replaced.

mod conclusion;
mod holds;
mod hooks;
mod mailbox;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

pub use holds::Hold;
pub(crate) use holds::held_by_this_thread;
pub use mailbox::Asked;
pub(crate) use mailbox::{Shared, ended};

use crate::checkpoint::{self, Subject};
use crate::error::{Error, ErrorKind};
use crate::report::{Cause, Outcome, Report};
use crate::store::status::{self, Status};
use crate::store::{draft, layout, runtime};
use crate::sys::signal::Signal;
use crate::sys::wake::{Wake, Waker, Woken};
use crate::sys::{self, crash, fork, handler, procfs};
use crate::trigger::Timetable;
use conclusion::say;
use mailbox::{Caller, Panicked, Progress};

/// The thread's name, by which it is known in `/proc/PID/task/TID/comm`.
pub(crate) const THREAD_NAME: &str = "selfdump";

/// As much as Linux gives a thread by default, of which only what is used takes memory: a hook of the program may be a
/// function of an interpreter.
const STACK: usize = 8 * 1024 * 1024;

/// How long what is held up sleeps without a look around.
const LOOK: Duration = Duration::from_secs(60);

/// How many times this process has come back.
static GENERATION: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_AGENT: Cell<bool> = const { Cell::new(false) };
}

/// How many times this process has come back from a checkpoint: 0 in the process that was started, 1 after the
/// first restore, and so on. It costs one atomic load.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Whether this is selfdump's own thread, in which the program's hooks run.
pub(crate) fn is_this_thread() -> bool {
    IS_AGENT.get()
}

/// Whoever panicked while holding one of our locks left nothing half done that matters here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread, which does `first` before it waits for anything.
pub(crate) fn start(
    shared: &'static Shared,
    subject: Subject,
    first: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK);
    let run = move || {
        IS_AGENT.set(true);
        first();
        Agent::new(shared, subject).run();
    };
    sys::signal::with_all_blocked(|| thread.spawn(run))
}

/// Why a checkpoint is made, and for whom.
enum Event {
    /// Somebody asked, or it is time.
    Wanted { cause: Cause, callers: Vec<Caller> },
    /// The program is to exit with it.
    Exit { signal: Signal, callers: Vec<Caller> },
    /// Threads wait in their panics, or one in the frame where it failed.
    Forensic { cause: Cause, panicked: Vec<Panicked> },
    /// It was wanted, and somebody held it up for too long.
    HeldUp { cause: Cause, callers: Vec<Caller>, exit: bool },
    /// The agent is to end.
    Stop,
}

/// What was asked for by signal and not acted upon yet.
#[derive(Default)]
struct Pending {
    signal: bool,
    exit: bool,
    crash: bool,
    /// Since when somebody holds up what is wanted.
    held_up: Option<Instant>,
}

impl Pending {
    fn add(&mut self, woken: Woken) {
        self.signal |= woken.by(Waker::Signal);
        self.exit |= woken.by(Waker::Exit);
        self.crash |= woken.by(Waker::Crash);
    }

    /// Leaves it to whoever looks at the pipe next.
    fn hand_back(&self, wake: &Wake) {
        let asked = [(self.signal, Waker::Signal), (self.exit, Waker::Exit)];
        asked.into_iter().filter(|(asked, _)| *asked).for_each(|(_, waker)| wake.wake(waker));
    }
}

struct Agent {
    shared: &'static Shared,
    subject: Subject,
    timetable: Timetable,
    status: Status,
    pending: Pending,
}

impl Agent {
    fn new(shared: &'static Shared, subject: Subject) -> Agent {
        Agent {
            timetable: Timetable::new(subject.settings.timing, Instant::now(), seed()),
            status: Status::new(&subject.instance, &subject.life, &subject.settings),
            pending: Pending::default(),
            shared,
            subject,
        }
    }

    fn run(mut self) {
        crash::is_agent();
        fork::keep_from_children(layout::names_of_ours(&self.subject.instance, &runtime::folder()));
        fork::at_work(true);
        draft::sweep(&self.subject.instance, &self.subject.settings.staging);
        status::sweep();
        self.status.write();
        self.publish();
        // A panic of ours, or of the program's logger, is not the end of the agent.
        while catch_unwind(AssertUnwindSafe(|| self.turn())).unwrap_or(true) {}
        self.pending.hand_back(&self.shared.wake);
        Status::forget_running(&self.subject.life);
        fork::at_work(false);
    }

    /// Does one thing; false when it is the end.
    fn turn(&mut self) -> bool {
        match self.next() {
            Event::Wanted { cause, callers } => {
                let report = self.make(cause);
                self.conclude(&report, callers);
            }
            Event::Exit { signal, callers } => {
                let report = self.make(Cause::Signal { signal: signal.number() });
                self.conclude(&report, callers);
                self.exit(&report, signal);
            }
            Event::Forensic { cause, panicked } => self.make_forensic(cause, panicked),
            Event::HeldUp { cause, callers, exit } => {
                let error = self.shared.holds.error(self.subject.settings.hold_timeout);
                let report = failed(cause, SystemTime::now(), error);
                self.conclude(&report, callers);
                if let Some(signal) = self.subject.settings.exit_signal.filter(|_| exit) {
                    self.exit(&report, signal);
                }
            }
            Event::Stop => return false,
        }
        true
    }

    /// Sleeps until there is something to do.
    ///
    /// The wake-ups are cleared before anything is acted upon: one that comes later is kept for the next round.
    fn next(&mut self) -> Event {
        loop {
            if self.shared.is_stopped() {
                return Event::Stop;
            }
            self.mend_the_pipe();
            let woken = self.shared.wake.clear();
            self.pending.add(woken);
            if let Some(event) = self.crash().or_else(|| self.panic()).or_else(|| self.wanted()) {
                return event;
            }
            self.tell_what_is_next();
            fork::at_work(false);
            self.shared.wake.wait(self.next_look());
            fork::at_work(true);
            // What is held up waits for longer than the schedule would have us sleep.
            if self.pending.held_up.is_none() {
                self.timetable.look(Instant::now());
            }
            self.look_around();
        }
    }

    /// Those who look from outside are told when the next checkpoint is due.
    fn tell_what_is_next(&mut self) {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let next = self.timetable.due().and_then(|due| clock.checked_add(due.saturating_duration_since(now)));
        if self.status.expect(next) {
            self.publish();
        }
    }

    /// What is held up waits for the last hold, which wakes us, and not for the schedule.
    fn next_look(&self) -> Instant {
        let patience = self.subject.settings.hold_timeout;
        match self.pending.held_up.and_then(|since| since.checked_add(patience)) {
            Some(end) => end.min(Instant::now() + LOOK),
            None => self.timetable.next_look(self.pending.signal),
        }
    }

    fn crash(&mut self) -> Option<Event> {
        std::mem::take(&mut self.pending.crash).then(|| {
            let crash::Crash { signal, thread, address, code } = crash::look();
            let cause = Cause::FatalSignal { signal, thread, address, code: Some(code) };
            Event::Forensic { cause, panicked: Vec::new() }
        })
    }

    fn panic(&self) -> Option<Event> {
        let (mut causes, panicked): (Vec<Cause>, Vec<Panicked>) =
            self.shared.take_panics().into_iter().unzip();
        (!causes.is_empty()).then(|| Event::Forensic { cause: causes.remove(0), panicked })
    }

    /// What is wanted now, if nobody holds it up or it has waited for long enough. It serves all who have asked.
    fn wanted(&mut self) -> Option<Event> {
        let Some(cause) = self.cause() else {
            self.pending.held_up = None;
            return None;
        };
        if self.shared.holds.begin() {
            self.pending.held_up = None;
        } else {
            let since = *self.pending.held_up.get_or_insert_with(Instant::now);
            if since.elapsed() < self.subject.settings.hold_timeout {
                return None;
            }
        }
        let held_up = self.pending.held_up.take().is_some();
        let Pending { exit, .. } = std::mem::take(&mut self.pending);
        let callers = self.shared.take_callers();
        let exit_signal = self.subject.settings.exit_signal.filter(|_| exit);
        Some(match (held_up, exit_signal) {
            (true, _) => Event::HeldUp { cause, callers, exit },
            (false, Some(signal)) => Event::Exit { signal, callers },
            (false, None) => Event::Wanted { cause, callers },
        })
    }

    /// Why a checkpoint should begin now.
    fn cause(&self) -> Option<Cause> {
        let settings = &self.subject.settings;
        let by = |signal: Signal| Cause::Signal { signal: signal.number() };
        let now = Instant::now();
        match settings.exit_signal.filter(|_| self.pending.exit) {
            Some(signal) => Some(by(signal)),
            None if self.shared.has_callers() => Some(Cause::Call),
            None if self.pending.signal && self.timetable.may_begin(now) => Some(by(settings.signal)),
            None if self.timetable.is_due(now) => Some(Cause::Timer),
            None => None,
        }
    }

    /// Makes a checkpoint that the program may have a say in.
    fn make(&mut self, cause: Cause) -> Report {
        let started = SystemTime::now();
        let report = match self.shared.hooks.before(&cause) {
            Ok(()) => self.dump(cause),
            Err(error) => failed(cause, started, error),
        };
        // Vetoed, or a panic came in between.
        self.shared.holds.end();
        report
    }

    /// Makes one for whoever waits for it where it went wrong. They may hold any lock, that of the program's logger, say:
    /// they are let go before anything is logged, and nothing of the program is called.
    fn make_forensic(&mut self, cause: Cause, panicked: Vec<Panicked>) {
        let is_crash = matches!(cause, Cause::FatalSignal { .. });
        // The crashed thread may hold the allocator's lock: whoever gets past this has not to wait for it.
        drop(std::hint::black_box(Box::new(0_u64)));
        match is_crash {
            true => crash::begin(),
            false => panicked.iter().for_each(|panicked| drop(panicked.send(Progress::Begun))),
        }
        let report = self.dump(cause);
        if let Ok(Outcome::Restored(restored)) = &report.outcome {
            self.begin_life(restored);
            self.timetable.restart(Instant::now(), seed());
        } else {
            self.record(&report);
        }
        match is_crash {
            true => crash::done(),
            false => panicked.iter().for_each(|panicked| drop(panicked.send(Progress::Done))),
        }
        say(&report);
    }

    /// A panic of ours is a failed checkpoint.
    fn dump(&mut self, cause: Cause) -> Report {
        let started = SystemTime::now();
        let thawed = || {
            crash::set_dumping(false);
            self.shared.holds.end();
        };
        let subject = &mut self.subject;
        crash::set_dumping(true);
        let made = catch_unwind(AssertUnwindSafe(|| checkpoint::run(subject, cause.clone(), &thawed)));
        thawed();
        made.unwrap_or_else(|_| {
            let error = Error::new(ErrorKind::Io, "selfdump itself panicked; the program goes on")
                .with_hint("this is a bug in selfdump; the panic's message says where");
            failed(cause, started, error)
        })
    }

    /// The program may have closed all descriptors that it doesn't know.
    fn mend_the_pipe(&self) {
        match self.shared.wake.mend() {
            Ok(false) => {}
            Ok(true) => log::warn!(
                "the program has closed selfdump's descriptors; there are new ones now, and signals of the last minute may be lost"
            ),
            Err(error) => log::error!(
                "the program has closed selfdump's descriptors, and new ones can't be had: {error}"
            ),
        }
    }

    /// Notices what nobody tells: a program that has put a handler in the place of ours, and a process that came back
    /// as a part of another one's checkpoint.
    fn look_around(&mut self) {
        if self.subject.notice_a_restore() {
            GENERATION.store(self.subject.life.generation, Ordering::Relaxed);
            self.status.come_back(&self.subject.life, None);
            self.publish();
            self.timetable.restart(Instant::now(), seed());
        }
        let settings = &self.subject.settings;
        let armed = std::iter::once(settings.signal).chain(settings.exit_signal);
        let lost: Vec<String> = armed
            .filter(|&signal| handler::is_overwritten(signal))
            .map(|signal| signal.to_string())
            .collect();
        if lost != self.status.overwritten_signals {
            for signal in lost.iter().filter(|signal| !self.status.overwritten_signals.contains(signal)) {
                log::warn!(
                    "the program has a handler of its own for {signal} now, so that it may not reach selfdump: install selfdump after that, or name another signal with SELFDUMP_SIGNAL or SELFDUMP_EXIT_SIGNAL"
                );
            }
            self.status.overwritten_signals = lost;
            self.status.write();
        }
    }
}

/// A number that copies of this process don't share.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let random = procfs::fresh_id().ok().and_then(|id| u64::from_str_radix(id.get(..8)?, 16).ok());
    now.as_nanos() as u64 ^ (random.unwrap_or_default() << 32)
}

fn failed(cause: Cause, started: SystemTime, error: Error) -> Report {
    Report { cause, started, answered: None, finished: SystemTime::now(), outcome: Err(error) }
}
