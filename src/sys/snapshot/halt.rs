//! The one who halts: all threads of another process but one stand still, what they are is noted, and they go on.
//!
//! It runs in a process of its own, outside of the program's tree. Whatever becomes of it, the program's threads go on: the
//! kernel lets go of them when their tracer ends, and at no moment has one of them anything but its own registers, or those
//! with which it gets back to its own by itself ([`questions`](super::questions)).

use std::fmt;
use std::io;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::super::ptrace::{self, REGISTERS, Waiting};
use super::look;
use super::moment::{Moment, Registers, Rseq, Thread};
use super::questions::{self, Place, Restarted, word};

/// How long threads may take to stand still, and to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long others stand still for one that doesn't.
const FOR_ONE: Duration = Duration::from_millis(200);

/// How often it is looked whether they do.
const LOOK: Duration = Duration::from_micros(20);

/// The code segment of 64-bit programs.
const CODE_64: u64 = 0x33;

/// Whom to halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(super) program: i32,
    /// The thread that is to go on.
    pub(super) agent: i32,
    /// Where the program has places for threads that ask, and for how many.
    pub(super) places: usize,
    pub(super) count: usize,
    /// Between which addresses a thread is that asks.
    pub(super) asking: (usize, usize),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Order { program, agent, places, count, asking: (begin, end) } = self;
        write!(f, "{program} {agent} {places} {count} {begin} {end}")
    }
}

impl FromStr for Order {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Order> {
        let numbers: Result<Vec<usize>, ParseIntError> = text.split(' ').map(str::parse).collect();
        match numbers.map_err(io::Error::other)?.as_slice() {
            &[program, agent, places, count, begin, end] => Ok(Order {
                program: program as i32,
                agent: agent as i32,
                places,
                count,
                asking: (begin, end),
            }),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// Threads that stand still until this is dropped.
#[derive(Debug)]
pub(super) struct Halted {
    order: Order,
    threads: Vec<Standing>,
}

/// One of them, with what it was when it stopped.
#[derive(Debug)]
struct Standing {
    tid: i32,
    registers: [u64; REGISTERS],
    blocked: u64,
}

/// What a thread did when it was waited for.
enum Waited {
    Stands,
    Ended,
    GoesOn,
}

impl Halted {
    /// Halts all threads of the program but its agent.
    pub(super) fn all_but_the_agent(order: Order) -> io::Result<Halted> {
        let mut halted = Halted { order, threads: Vec::new() };
        let end = Instant::now() + PATIENCE;
        // Those that run may start more.
        while halted.halt_more(end)? {}
        if !halted.threads.iter().any(|thread| thread.tid == order.program) && order.agent != order.program {
            return Err(io::Error::other("its main thread has ended"));
        }
        // The main thread comes first.
        halted.threads.sort_by_key(|thread| (thread.tid != order.program, thread.tid));
        Ok(halted)
    }

    /// Halts those that aren't yet: whether there were any. Nobody stands still for one that waits for a disk: it is waited
    /// for while the others go on.
    fn halt_more(&mut self, end: Instant) -> io::Result<bool> {
        let is_new = |halted: &Halted, tid: i32| halted.threads.iter().all(|thread| thread.tid != tid);
        let all = look::threads(self.order.program)?;
        let more: Vec<i32> =
            all.into_iter().filter(|&tid| tid != self.order.agent && is_new(self, tid)).collect();
        let seized: Vec<i32> =
            more.iter().copied().map(seize).filter_map(Result::transpose).collect::<io::Result<_>>()?;
        let late = self.wait_for(&seized, Instant::now() + FOR_ONE)?;
        if !late.is_empty() {
            self.let_go();
            if let Some(tid) = self.wait_for(&late, end)?.first() {
                return Err(can_not_be_halted(*tid));
            }
        }
        Ok(!seized.is_empty())
    }

    /// Waits until they stand still; those that don't in time.
    fn wait_for(&mut self, tids: &[i32], deadline: Instant) -> io::Result<Vec<i32>> {
        let mut late = Vec::new();
        for &tid in tids {
            match wait_until_it_stands(tid, deadline)? {
                Waited::Stands => self.threads.push(Standing { tid, registers: [0; REGISTERS], blocked: 0 }),
                Waited::Ended => {}
                Waited::GoesOn => late.push(tid),
            }
        }
        Ok(late)
    }

    fn let_go(&mut self) {
        for thread in self.threads.drain(..) {
            // It may have been killed.
            let _ = ptrace::detach(thread.tid);
        }
    }

    /// Notes all that they are, and has each ask what only it can.
    pub(super) fn note(&mut self) -> io::Result<Vec<Thread>> {
        if self.threads.len() > self.order.count {
            return Err(io::Error::other("it has started many threads in this very moment"));
        }
        let mut noted = Vec::new();
        for thread in &mut self.threads {
            noted.push(thread.note(&self.order)?);
        }
        self.ask(&mut noted)?;
        Ok(noted)
    }

    /// Signals that wait for the process.
    pub(super) fn waiting(&self) -> io::Result<Vec<Vec<u8>>> {
        self.threads.first().map_or(Ok(Vec::new()), |main| ptrace::waiting(main.tid, Waiting::Process))
    }

    /// Sends all threads to ask, waits for their answers, and has them stand where they stood.
    fn ask(&self, noted: &mut [Thread]) -> io::Result<()> {
        for (index, thread) in self.threads.iter().enumerate() {
            thread.send(&self.order, index)?;
        }
        let asked = self.wait_for_answers(noted);
        // Whether they have answered or not, they get back.
        let deadline = Instant::now() + PATIENCE;
        for thread in &self.threads {
            ptrace::interrupt(thread.tid)?;
        }
        for thread in &self.threads {
            match wait_until_it_stands(thread.tid, deadline)? {
                Waited::Stands => thread.bring_back()?,
                Waited::Ended => return Err(io::Error::other("a thread was killed")),
                Waited::GoesOn => return Err(can_not_be_halted(thread.tid)),
            }
        }
        asked
    }

    fn wait_for_answers(&self, noted: &mut [Thread]) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for (index, thread) in noted.iter_mut().enumerate() {
            let mut place = Place::default();
            let at = questions::place_at(self.order.places, index);
            loop {
                read_memory(self.order.program, at, place.as_bytes_mut())?;
                if place.answered == 1 {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(io::Error::other(format!("thread {} doesn't answer", thread.tid)));
                }
                std::thread::yield_now();
            }
            (thread.signal_stack, thread.tid_address, thread.death_signal) =
                place.answers().ok_or_else(|| {
                    io::Error::other(
                        "the kernel doesn't tell a thread's own addresses (CONFIG_CHECKPOINT_RESTORE)",
                    )
                })?;
        }
        Ok(())
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn can_not_be_halted(tid: i32) -> io::Error {
    io::Error::other(format!(
        "thread {tid} waits where nothing can stop it (state D): for a disk, a network file system or a child of vfork()"
    ))
}

impl Standing {
    fn note(&mut self, order: &Order) -> io::Result<Thread> {
        let mut registers = ptrace::registers(self.tid)?;
        let at = registers[word::IP] as usize;
        if (order.asking.0..order.asking.1).contains(&at) {
            return Err(io::Error::other("a thread of it hasn't come back from the last checkpoint yet"));
        }
        if registers[word::CS] != CODE_64 {
            return Err(io::Error::other(format!("thread {} runs 32-bit code", self.tid)));
        }
        let rseq = ptrace::rseq(self.tid)?;
        if let Some(rseq) = rseq {
            abort_a_sequence(order.program, rseq.address, &mut registers)?;
        }
        (self.registers, self.blocked) = (registers, ptrace::blocked(self.tid)?);
        Ok(Thread {
            registers: Some(Registers {
                general: questions::wound_back(&registers, Restarted::Interrupted).to_vec(),
                extended: ptrace::extended_registers(self.tid)?,
            }),
            blocked: self.blocked,
            waiting: ptrace::waiting(self.tid, Waiting::Thread)?,
            rseq: rseq.map(plain),
            ..look::thread(order.program, self.tid)?
        })
    }

    /// Has it go on where it asks.
    fn send(&self, order: &Order, index: usize) -> io::Result<()> {
        let at = questions::place_at(order.places, index);
        let own = questions::wound_back(&self.registers, Restarted::ByTheKernel);
        write_memory(order.program, at, Place::of(&own, self.blocked).as_bytes())?;
        // From here on it gets back by itself, if need be; a signal that comes now would have little room for its frame.
        ptrace::set_registers(self.tid, &questions::sent_to(order.asking.0, at, &self.registers))?;
        ptrace::set_blocked(self.tid, !0)?;
        ptrace::go_on(self.tid, 0)
    }

    fn bring_back(&self) -> io::Result<()> {
        ptrace::set_registers(self.tid, &self.registers)?;
        ptrace::set_blocked(self.tid, self.blocked)
    }
}

/// What is noted of the thread that makes the copy: it stands still for that alone, and goes on.
pub(super) fn note_the_agent(order: &Order) -> io::Result<Thread> {
    let tid = order.agent;
    let stands = seize(tid)?.is_some()
        && matches!(wait_until_it_stands(tid, Instant::now() + PATIENCE)?, Waited::Stands);
    if !stands {
        return Err(io::ErrorKind::NotFound.into());
    }
    let noted = Thread {
        blocked: ptrace::blocked(tid)?,
        waiting: ptrace::waiting(tid, Waiting::Thread)?,
        rseq: ptrace::rseq(tid)?.map(plain),
        ..look::thread(order.program, tid)?
    };
    ptrace::detach(tid)?;
    Ok(noted)
}

/// All but the threads' own: while they stand still.
pub(super) fn process(order: &Order) -> io::Result<Moment> {
    look::process(order.program)
}

fn plain(rseq: ptrace::Rseq) -> Rseq {
    Rseq { address: rseq.address, size: rseq.size, signature: rseq.signature }
}

/// Has a thread in the middle of a restartable sequence begin it again, as the kernel does it with one that was interrupted
/// (rseq(2)): where it goes on, the kernel doesn't know of the sequence any more.
fn abort_a_sequence(program: i32, area: u64, registers: &mut [u64; REGISTERS]) -> io::Result<()> {
    /// Where the area has the sequence's address; where the sequence has its begin, its length and what aborts it.
    const SEQUENCE: usize = 8;
    let mut address = [0; 8];
    read_memory(program, area as usize + SEQUENCE, &mut address)?;
    let address = u64::from_ne_bytes(address);
    if address == 0 {
        return Ok(());
    }
    let mut sequence = [0; 32];
    read_memory(program, address as usize, &mut sequence)?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&sequence[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    let (begin, length, abort) = (word(8), word(16), word(24));
    if registers[word::IP].wrapping_sub(begin) < length {
        registers[word::IP] = abort;
    }
    Ok(())
}

/// Begins to halt a thread; None if it has ended.
fn seize(tid: i32) -> io::Result<Option<i32>> {
    match ptrace::seize(tid, 0).and_then(|()| ptrace::interrupt(tid)) {
        Ok(()) => Ok(Some(tid)),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("thread {tid} can't be halted: {error}"))),
    }
}

/// Waits until a thread that was told to stop does. Signals that come in between it gets.
fn wait_until_it_stands(tid: i32, deadline: Instant) -> io::Result<Waited> {
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes a status to where one is.
        let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        match waited {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Err(io::Error::last_os_error()),
            0 if Instant::now() >= deadline => return Ok(Waited::GoesOn),
            0 => std::thread::sleep(LOOK),
            _ if !libc::WIFSTOPPED(status) => return Ok(Waited::Ended),
            _ => match (status >> 16, libc::WSTOPSIG(status)) {
                (libc::PTRACE_EVENT_STOP, libc::SIGTRAP) => return Ok(Waited::Stands),
                (libc::PTRACE_EVENT_STOP, _) => {
                    return Err(io::Error::other("the program is stopped (SIGSTOP or Ctrl-Z)"));
                }
                (0, signal) => ptrace::go_on(tid, signal)?,
                _ => ptrace::go_on(tid, 0)?,
            },
        }
    }
}

fn read_memory(pid: i32, at: usize, to: &mut [u8]) -> io::Result<()> {
    let ours = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let theirs = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(at), iov_len: to.len() };
    // SAFETY: the kernel writes to our slice, and no more than it is long.
    let read = unsafe { libc::process_vm_readv(pid, &raw const ours, 1, &raw const theirs, 1, 0) };
    whole(read, to.len())
}

fn write_memory(pid: i32, at: usize, from: &[u8]) -> io::Result<()> {
    let ours = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let theirs = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(at), iov_len: from.len() };
    // SAFETY: the kernel reads our slice, and no more than it is long.
    let written = unsafe { libc::process_vm_writev(pid, &raw const ours, 1, &raw const theirs, 1, 0) };
    whole(written, from.len())
}

fn whole(moved: isize, length: usize) -> io::Result<()> {
    match Errno::result(moved)? as usize == length {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
