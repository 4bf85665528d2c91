//! The notes of a core: who the process was, what its threads had in their registers, what was mapped.

use std::os::unix::ffi::OsStrExt;

use super::elf::{Machine, Note, Record};
use super::segments::PAGE_SIZE;
use super::{Crash, registers};
use crate::image::inside::{Credentials, Memory, Process, Registers, State, Thread};

/// Who has defined a kind of note.
pub(super) const CORE: &str = "CORE";
pub(super) const LINUX: &str = "LINUX";

const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_SIGINFO: u32 = 0x5349_4749;
const NT_FILE: u32 = 0x4649_4c45;

/// The size of a `siginfo_t`.
const SIGINFO: usize = 128;

/// What the core is about.
pub(super) struct Subject<'a> {
    pub(super) process: &'a Process,
    pub(super) memory: &'a Memory,
    /// The thread that comes first.
    pub(super) thread: &'a Thread,
    pub(super) crash: Option<Crash>,
    /// The command line, a zero byte behind each word.
    pub(super) arguments: Vec<u8>,
}

impl Subject<'_> {
    pub(super) fn machine(&self) -> Machine {
        match self.thread.registers {
            Registers::X86(_) => Machine::X86,
            Registers::Aarch64(_) => Machine::Aarch64,
        }
    }
}

/// All of them. Those of the process stand behind the first thread's status, as the kernel has it.
pub(super) fn of(subject: &Subject<'_>) -> Vec<Note> {
    let core = |kind, contents| Note { owner: CORE, kind, contents };
    let mut notes = vec![
        core(NT_PRSTATUS, status(subject, subject.thread)),
        core(NT_PRPSINFO, about(subject)),
        core(NT_AUXV, auxiliary_vector(subject.memory)),
        core(NT_FILE, mapped_files(subject.memory)),
    ];
    if let Some(crash) = subject.crash {
        notes.insert(2, core(NT_SIGINFO, signal_info(crash)));
    }
    notes.extend(registers::others(&subject.thread.registers));
    for thread in subject.process.threads.iter().filter(|thread| thread.tid != subject.thread.tid) {
        notes.push(core(NT_PRSTATUS, status(subject, thread)));
        notes.extend(registers::others(&thread.registers));
    }
    notes
}

/// The kernel's `elf_prstatus`. As the kernel has it, the signal stands with every thread: debuggers take it from any.
/// Times aren't in the images.
fn status(subject: &Subject<'_>, thread: &Thread) -> Vec<u8> {
    let (signal, code) = subject.crash.map_or((0, 0), |crash| (crash.signal, crash.code));
    let process = subject.process;
    Record::default()
        .words([signal as u32, code as u32, 0])
        .short(signal as u16)
        .up_to(16)
        .longs([pending(thread), thread.blocked_signals])
        .words([thread.tid, process.parent, process.process_group, process.session].map(|id| id as u32))
        .up_to(112)
        .longs(registers::general(&thread.registers))
        // That there are registers for floating point.
        .word(1)
        .word(0)
        .0
}

/// The signals that wait for a thread: bit 0 is signal 1.
fn pending(thread: &Thread) -> u64 {
    let number =
        |info: &Vec<u8>| info.get(..4).and_then(|first| first.try_into().ok()).map(u32::from_ne_bytes);
    let numbers = thread.pending_signals.iter().filter_map(number);
    numbers.filter(|number| (1..=64).contains(number)).fold(0, |set, number| set | 1 << (number - 1))
}

/// The kernel's `elf_prpsinfo`.
fn about(subject: &Subject<'_>) -> Vec<u8> {
    let process = subject.process;
    let (number, letter) = if process.state == State::Stopped { (3, b'T') } else { (0, b'R') };
    let main = process.threads.first().unwrap_or(subject.thread);
    let who = main.credentials.as_ref();
    let id = |read: fn(&Credentials) -> u32| who.map_or(0, read);
    let line: Vec<u8> =
        subject.arguments.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).take(79).collect();
    Record::default()
        .bytes(&[number, letter, 0, main.nice as u8])
        .up_to(16)
        .words([id(|who| who.uid), id(|who| who.gid)])
        .words([process.pid, process.parent, process.process_group, process.session].map(|id| id as u32))
        .bytes(&process.name.as_bytes()[..process.name.len().min(15)])
        .up_to(56)
        .bytes(line.trim_ascii_end())
        .up_to(136)
        .0
}

/// A `siginfo_t`: of a signal that the kernel sent, the address stands behind four numbers.
fn signal_info(crash: Crash) -> Vec<u8> {
    Record::default()
        .words([crash.signal as u32, 0, crash.code as u32, 0])
        .long(crash.address)
        .up_to(SIGINFO)
        .0
}

fn auxiliary_vector(memory: &Memory) -> Vec<u8> {
    let pairs = memory.auxiliary_vector.iter().take_while(|pair| pair.0 != 0);
    Record::default().longs(pairs.flat_map(|&(kind, value)| [kind, value])).longs([0, 0]).0
}

/// The kernel's list of mapped files: their ranges and offsets in pages, then their names.
fn mapped_files(memory: &Memory) -> Vec<u8> {
    let mapped: Vec<_> =
        memory.mappings.iter().filter_map(|mapping| Some((mapping, mapping.path.as_ref()?))).collect();
    let ranges = mapped
        .iter()
        .flat_map(|(mapping, _)| [mapping.start, mapping.end, mapping.offset_bytes.0 / PAGE_SIZE]);
    let head = Record::default().longs([mapped.len() as u64, PAGE_SIZE]).longs(ranges);
    mapped.iter().fold(head, |list, (_, path)| list.bytes(path.as_os_str().as_bytes()).bytes(&[0])).0
}
