//! The threads: one image of the copy's only thread becomes one for each thread of the process.

use super::draft::Draft;
use super::{number, registers, senseless};
use crate::error::Result;
use crate::image::images::{self, Core, SignalInfo, SignalQueue, Task, ThreadCore, Timers, X86Thread};
use crate::image::kind::{Image, Kind};
use crate::sys::snapshot::moment::{IntervalTimer, Moment, Thread};

/// The state of a process that runs (`COMPEL_TASK_ALIVE`).
const ALIVE: u32 = 1;
/// The policies that have a priority (sched(7)), and a bit that may stand beside them.
const FIFO: u32 = 1;
const ROUND_ROBIN: u32 = 2;
const RESET_ON_FORK: u32 = 0x4000_0000;
/// Whether the thread was on its alternate stack. CRIU asks from another stack.
const ON_STACK: u32 = 1;

/// Makes the images of the threads. Credentials, filters and control groups are those that the copy has.
pub(super) fn split(draft: &mut Draft, copy: u32, moment: &Moment) -> Result<()> {
    let image = Image::of(Kind::Core, copy);
    let core: Core = draft.read_one(image)?;
    let (Some(info), Some(task), Some(own)) = (&core.thread_info, &core.tc, &core.thread_core) else {
        return Err(draft.damaged(image, "it isn't that of a process on x86-64"));
    };
    let main = main_of(moment)?;
    for thread in &moment.threads {
        let is_main = thread.tid == main.tid;
        let made = Core {
            thread_info: Some(registers_of(thread, info)?),
            tc: is_main.then(|| of_process(task, thread, moment)),
            ids: core.ids.filter(|_| is_main),
            thread_core: Some(of_thread(own, thread, is_main)),
            ..core.clone()
        };
        draft.write(Image::of(Kind::Core, number(thread.tid)?), &[made])?;
    }
    draft.remove(image);
    Ok(())
}

/// The main thread. One thread, be it that one or another, has made the copy, which has its registers.
fn main_of(moment: &Moment) -> Result<&Thread> {
    let makers = moment.threads.iter().filter(|thread| thread.registers.is_none()).count();
    match moment.threads.first().filter(|main| main.tid == moment.pid) {
        Some(main) if makers == 1 => Ok(main),
        Some(_) => Err(senseless(format!("{makers} threads have no registers, not one"))),
        None => Err(senseless("the main thread isn't the first")),
    }
}

fn registers_of(thread: &Thread, of_copy: &X86Thread) -> Result<X86Thread> {
    let of_copy = X86Thread { clear_tid_addr: thread.tid_address, ..of_copy.clone() };
    match &thread.registers {
        Some(noted) => registers::of(noted, of_copy),
        None => Ok(of_copy),
    }
}

/// What the process has. CRIU has the main thread's name and signals here as well.
fn of_process(of_copy: &Task, main: &Thread, moment: &Moment) -> Task {
    let [real, virt, prof] = moment.interval_timers.map(interval_timer);
    Task {
        task_state: ALIVE,
        blk_sigset: main.blocked,
        comm: name(main).to_vec(),
        timers: Some(Timers { real, virt, prof, posix: Vec::new() }),
        signals_s: Some(queue(&moment.waiting)),
        oom_score_adj: Some(moment.oom_score_adj),
        stop_signo: None,
        ..of_copy.clone()
    }
}

/// What every thread has.
fn of_thread(of_copy: &ThreadCore, thread: &Thread, is_main: bool) -> ThreadCore {
    let has_priority = [FIFO, ROUND_ROBIN].contains(&(thread.policy & !RESET_ON_FORK));
    let stack = &thread.signal_stack;
    ThreadCore {
        futex_rla: thread.robust_list.0,
        futex_rla_len: u32::try_from(thread.robust_list.1).unwrap_or(u32::MAX),
        sched_nice: Some(thread.nice),
        sched_policy: Some(thread.policy),
        sched_prio: has_priority.then_some(thread.priority),
        // The main thread's stand with what the process has.
        blk_sigset: (!is_main).then_some(thread.blocked),
        sas: Some(images::SignalStack {
            ss_sp: stack.address,
            ss_size: stack.size,
            ss_flags: stack.flags & !ON_STACK,
        }),
        pdeath_sig: u32::try_from(thread.death_signal).ok().filter(|signal| *signal != 0),
        signals_p: Some(queue(&thread.waiting)),
        comm: Some(name(thread).to_vec()),
        // CRIU writes one for every thread, where the kernel can tell.
        rseq_entry: of_copy.rseq_entry.as_ref().map(|_| rseq(thread)),
        ..of_copy.clone()
    }
}

fn rseq(thread: &Thread) -> images::Rseq {
    let rseq = thread.rseq.unwrap_or_default();
    images::Rseq {
        rseq_abi_pointer: rseq.address,
        rseq_abi_size: rseq.size,
        signature: rseq.signature,
        rseq_cs_pointer: None,
    }
}

/// The kernel ends a name with a line.
fn name(thread: &Thread) -> &[u8] {
    thread.name.strip_suffix(b"\n").unwrap_or(&thread.name)
}

fn queue(waiting: &[Vec<u8>]) -> SignalQueue {
    SignalQueue { signals: waiting.iter().map(|siginfo| SignalInfo { siginfo: siginfo.clone() }).collect() }
}

fn interval_timer(timer: IntervalTimer) -> images::IntervalTimer {
    const SECOND: u64 = 1_000_000;
    images::IntervalTimer {
        isec: timer.interval_us / SECOND,
        iusec: timer.interval_us % SECOND,
        vsec: timer.value_us / SECOND,
        vusec: timer.value_us % SECOND,
    }
}
