//! A copy of this process as it is at one moment, made while all its threads stand still, for somebody to dump.
//!
//! ```text
//! agent (a thread of the program)        the one who halts (`halt`, a process of its own)
//!   HALT ─────────────────────────────▶  stops all threads but the agent, notes what they are
//!        ◀───────────────────────────── HALTED
//!   makes the copy (`twin`)              notes what is open
//!   COPIED, its process id ───────────▶
//!        ◀───────────────────────────── RELEASED: it has held them all the time, and lets go
//!   …                                    writes down the moment, and watches over the copy
//! ```
//!
//! A fork copies the calling thread alone. The others' registers, and what else of them isn't in memory, are noted
//! ([`moment`]), so that a dump of the copy can be completed. The copy itself does nothing: it waits until it has the
//! agent's thread id, and so is the program that came back; or until nobody holds its leash any more, when it ends.
//!
//! Between HALT and RELEASED a lock of the program's may be held by a thread that stands still, the allocator's above all:
//! the agent makes nothing but system calls then.

mod halt;
mod look;
pub(crate) mod moment;
mod questions;
mod twin;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::ourselves::{self, Helper, Talk};
use super::{process, signal, spawn};
use halt::Halted;
pub(crate) use halt::Order;
use moment::{IntervalTimer, Moment};
pub(crate) use questions::Places;
use twin::Side;

/// What the two say to each other.
const HALT: u8 = b'h';
const HALTED: u8 = b'H';
const COPIED: u8 = b'c';
const RELEASED: u8 = b'R';
/// It has given up; a reason follows.
const GIVEN_UP: u8 = b'X';
/// The same, since it isn't allowed to.
const FORBIDDEN: u8 = b'P';
/// The moment is written down.
const NOTED: u8 = b'N';

/// How long the other may take to say that all stands still.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to write the moment down. Nothing stands still meanwhile, and the disk may be a busy one.
const WRITING: Duration = Duration::from_secs(30);

/// Whether this can be done on this processor at all.
pub(crate) const IS_POSSIBLE: bool = cfg!(target_arch = "x86_64");

/// A copy that is there to be dumped. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) pid: i32,
    /// How long the threads took to stop, and how long all stood still altogether.
    pub(crate) halting: Duration,
    pub(crate) stood_still: Duration,
    /// The descriptor that the copy has of its leash, and the program hasn't.
    pub(crate) leash: i32,
    _leash: OwnedFd,
    /// What of the program's descriptors is ours, and isn't the copy's.
    ours: [i32; 4],
    alone: Alone,
}

/// Which of its two returns [`take`] makes.
#[derive(Debug)]
pub(crate) enum Taken {
    /// In the program, which has been copied.
    Copy(Copy),
    /// In the program that came back from a dump of the copy.
    Restored,
}

/// What the agent tells of itself, and of the process.
#[derive(Clone, Copy, Debug, Default)]
struct Alone {
    stack: moment::SignalStack,
    tid_address: u64,
    death_signal: i32,
    timers: [IntervalTimer; 3],
}

impl Order {
    /// To halt all threads of this process but the calling one.
    pub(crate) fn of_this_process(places: &Places) -> Order {
        Order {
            program: process::id(),
            agent: process::thread(),
            places: places.address(),
            count: places.count,
            asking: questions::asking(),
        }
    }
}

/// What a process is now, as far as it can be seen without its threads' standing still.
pub(crate) fn look(pid: i32) -> io::Result<Moment> {
    let looked = look::threads(pid)?.into_iter().map(|tid| look::thread(pid, tid));
    let threads =
        looked.filter(|seen| !seen.as_ref().is_err_and(look::has_gone)).collect::<io::Result<_>>()?;
    Ok(Moment { threads, descriptors: look::descriptors(pid)?, ..look::process(pid)? })
}

/// Has the others halted, and makes the copy. **Returns twice**: in the restored program nothing that is held here is open
/// any more, so the helper and the places are to be forgotten there. All stands still for no longer than `patience` after
/// the copy is made.
///
/// # Errors
///
/// Why there is no copy. The program goes on in any case.
pub(crate) fn take(
    helper: &Helper,
    talk: &Talk,
    places: &Places,
    order: Order,
    patience: Duration,
) -> io::Result<Taken> {
    let (leash, ours) = spawn::pipe()?;
    let alone = Alone::look()?;
    let closed = [&ours, &talk.words, &talk.orders, &helper.0.writer].map(AsRawFd::as_raw_fd);
    let copying = Copying { order, leash: leash.as_raw_fd(), closed: &closed, patience };
    match copying.take(talk) {
        Ok(Made::Copy { pid, halting, stood_still }) => {
            let number = leash.as_raw_fd();
            Ok(Taken::Copy(Copy {
                pid,
                halting,
                stood_still,
                leash: number,
                _leash: ours,
                ours: closed,
                alone,
            }))
        }
        Ok(Made::Restored) => {
            std::mem::forget((leash, ours));
            Ok(Taken::Restored)
        }
        Err(error) => {
            // Nothing of the program stands still for one who is gone, or can't be reached.
            let _ = signal::kill(helper.0.worker);
            places.release();
            let kind = error.kind();
            Err(talk.reason().map_or(error, |reason| io::Error::new(kind, reason)))
        }
    }
}

impl Talk {
    /// Why it has given up, if it has said so: all that follows until it ends.
    fn reason(&self) -> Option<String> {
        const REST: Duration = Duration::from_secs(1);
        let text: Vec<u8> = std::iter::from_fn(|| word(self.words.as_raw_fd(), REST).ok()).collect();
        let text = String::from_utf8_lossy(&text);
        let reason = text.trim_start_matches([GIVEN_UP, FORBIDDEN, HALTED].map(char::from));
        (!reason.is_empty()).then(|| reason.to_owned())
    }

    /// Waits until it has written the moment down.
    pub(crate) fn wait_until_noted(&self) -> io::Result<()> {
        match word(self.words.as_raw_fd(), WRITING)? {
            NOTED => Ok(()),
            _ => Err(self.reason().map_or_else(|| io::ErrorKind::InvalidData.into(), io::Error::other)),
        }
    }
}

impl Copy {
    /// Adds to the moment what the agent itself has told, and leaves out what isn't the copy's.
    pub(crate) fn complete(&self, moment: &mut Moment) {
        let is_ours = |fd: i32| self.ours.contains(&fd) || fd == self.leash;
        moment.descriptors.retain(|open| !is_ours(open.fd));
        moment.interval_timers = self.alone.timers;
        if let Some(agent) = moment.threads.last_mut() {
            agent.signal_stack = self.alone.stack;
            agent.tid_address = self.alone.tid_address;
            agent.death_signal = self.alone.death_signal;
        }
    }

    /// Whether it has the same memory mapped as the program had: what isn't inherited by a fork is missing.
    pub(crate) fn has_all(&self, moment: &Moment) -> io::Result<bool> {
        let range = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        let ranges = |maps: &str| maps.lines().map(range).collect::<Vec<_>>();
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid))?;
        // One that has ended has none.
        if maps.is_empty() {
            return Err(Errno::ESRCH.into());
        }
        Ok(ranges(&maps) == ranges(&moment.mappings))
    }
}

/// What is known before all stands still.
struct Copying<'a> {
    order: Order,
    leash: i32,
    closed: &'a [i32],
    patience: Duration,
}

enum Made {
    Copy { pid: i32, halting: Duration, stood_still: Duration },
    Restored,
}

impl Copying<'_> {
    /// Nothing but system calls.
    fn take(&self, talk: &Talk) -> io::Result<Made> {
        let (words, orders) = (talk.words.as_raw_fd(), talk.orders.as_raw_fd());
        let started = Instant::now();
        tell(orders, &[HALT])?;
        expect(words, HALTED, PATIENCE)?;
        let halting = started.elapsed();
        let pid = match twin::copy_this_process()? {
            Side::Copy => {
                self.be_the_copy();
                return Ok(Made::Restored);
            }
            Side::Original { copy } => copy,
        };
        let [one, two, three, four] = pid.to_ne_bytes();
        tell(orders, &[COPIED, one, two, three, four])?;
        expect(words, RELEASED, self.patience)?;
        Ok(Made::Copy { pid, halting, stood_still: started.elapsed() })
    }

    /// Waits to be restored, or to end.
    fn be_the_copy(&self) {
        self.closed.iter().for_each(|&descriptor| close(descriptor));
        // SAFETY: plain numbers. Who leads a session or a group of processes has the copy lead one of its own.
        unsafe {
            if libc::getsid(self.order.program) == self.order.program {
                libc::setsid();
            } else if libc::getpgid(self.order.program) == self.order.program {
                libc::setpgid(0, 0);
            }
        }
        loop {
            let mut ends = libc::pollfd { fd: self.leash, events: libc::POLLIN, revents: 0 };
            // SAFETY: one struct, which lives until the call returns.
            let ready = unsafe { libc::poll(&raw mut ends, 1, -1) };
            // In the process that came back the leash isn't there, and its number may be another's.
            if process::thread() == self.order.agent {
                return;
            }
            if ready > 0 {
                process::exit_at_once(0);
            }
        }
    }
}

fn close(descriptor: i32) {
    // SAFETY: the descriptor is one of ours, in a copy of the table that nobody else uses.
    unsafe { libc::close(descriptor) };
}

/// A system call that writes a few bytes.
fn tell(orders: i32, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: it reads as many bytes as the slice has.
    let written = unsafe { libc::write(orders, bytes.as_ptr().cast(), bytes.len()) };
    Errno::result(written).map(drop).map_err(io::Error::from)
}

fn expect(words: i32, expected: u8, patience: Duration) -> io::Result<()> {
    match word(words, patience)? {
        word if word == expected => Ok(()),
        FORBIDDEN => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// The next word; an error where there is none, or none in time.
fn word(words: i32, patience: Duration) -> io::Result<u8> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
        let mut ends = libc::pollfd { fd: words, events: libc::POLLIN, revents: 0 };
        let mut word = 0_u8;
        // SAFETY: a struct and a byte, which live until the calls return.
        let read = unsafe {
            match libc::poll(&raw mut ends, 1, left) {
                -1 if Errno::last() == Errno::EINTR => continue,
                -1 => return Err(Errno::last().into()),
                0 => return Err(Errno::ETIMEDOUT.into()),
                _ => libc::read(words, (&raw mut word).cast(), 1),
            }
        };
        match Errno::result(read) {
            Ok(1) => return Ok(word),
            Ok(_) => return Err(Errno::EPIPE.into()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Alone {
    fn look() -> io::Result<Alone> {
        let mut alone = Alone::default();
        // SAFETY: each call writes to a value of its kind that lives until it returns.
        unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            Errno::result(libc::sigaltstack(std::ptr::null(), &raw mut stack))?;
            alone.stack = moment::SignalStack {
                address: stack.ss_sp.addr() as u64,
                flags: stack.ss_flags as u32,
                size: stack.ss_size as u64,
            };
            Errno::result(libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut alone.tid_address, 0, 0, 0))?;
            Errno::result(libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut alone.death_signal, 0, 0, 0))?;
            for (which, timer) in alone.timers.iter_mut().enumerate() {
                let mut found: libc::itimerval = std::mem::zeroed();
                Errno::result(libc::getitimer(which as _, &raw mut found))?;
                let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
                *timer = IntervalTimer {
                    value_us: micros(found.it_value),
                    interval_us: micros(found.it_interval),
                };
            }
        }
        Ok(alone)
    }
}

/// What the one who halts does: its part of the conversation, and `meanwhile` what else has to be done while all stands
/// still. The moment, and the copy's process id.
///
/// # Errors
///
/// Where there is no copy; why, the program has been told.
pub(crate) fn halt(order: Order, meanwhile: impl FnOnce() -> io::Result<()>) -> io::Result<(Moment, i32)> {
    let (mut words, mut orders) = (ourselves::words()?, ourselves::orders()?);
    ourselves::ready()?;
    let halted = converse(order, &mut words, &mut orders, meanwhile);
    if let Err(error) = &halted {
        let word = if error.kind() == io::ErrorKind::PermissionDenied { FORBIDDEN } else { GIVEN_UP };
        words.write_all(&[&[word], error.to_string().as_bytes()].concat())?;
    }
    halted
}

fn converse(
    order: Order,
    words: &mut File,
    orders: &mut File,
    meanwhile: impl FnOnce() -> io::Result<()>,
) -> io::Result<(Moment, i32)> {
    hear(orders, HALT)?;
    let agent = halt::note_the_agent(&order)?;
    let mut halted = Halted::all_but_the_agent(order)?;
    let mut threads = halted.note()?;
    // The children before there is a copy: for a moment it would be one.
    let mut moment = halt::process(&order)?;
    moment.waiting = halted.waiting()?;
    words.write_all(&[HALTED])?;
    moment.descriptors = look::descriptors(order.program)?;
    meanwhile()?;
    hear(orders, COPIED)?;
    let mut copy = [0; 4];
    orders.read_exact(&mut copy)?;
    // They were held until after the copy.
    drop(halted);
    words.write_all(&[RELEASED])?;
    threads.push(agent);
    moment.threads = threads;
    Ok((moment, i32::from_ne_bytes(copy)))
}

/// Has a copy be the first to be killed for want of memory, and, where that is allowed, the first to get a processor: it
/// runs only to answer CRIU, in many short turns, and would wait in each for all threads of the program.
pub(crate) fn make_brief(copy: i32) -> io::Result<()> {
    const FIRST: libc::c_int = -15;
    // SAFETY: plain numbers. Not everybody may.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, copy as u32, FIRST) };
    std::fs::write(format!("/proc/{copy}/oom_score_adj"), "1000")
}

/// Says that the moment is written down.
pub(crate) fn noted() -> io::Result<()> {
    ourselves::words()?.write_all(&[NOTED])
}

fn hear(orders: &mut File, expected: u8) -> io::Result<()> {
    let mut order = [0];
    orders.read_exact(&mut order)?;
    match order[0] == expected {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
