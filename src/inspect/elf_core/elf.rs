//! The form of a core: headers, segments and notes of an ELF file (elf(5)).

use super::segments::{PAGE_SIZE, Segments};

/// Bytes that are put behind each other, numbers in our byte order.
#[derive(Default)]
pub(super) struct Record(pub(super) Vec<u8>);

impl Record {
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Record {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn short(self, number: u16) -> Record {
        self.bytes(&number.to_ne_bytes())
    }

    pub(super) fn word(self, number: u32) -> Record {
        self.bytes(&number.to_ne_bytes())
    }

    pub(super) fn words(self, numbers: impl IntoIterator<Item = u32>) -> Record {
        numbers.into_iter().fold(self, Record::word)
    }

    pub(super) fn long(self, number: u64) -> Record {
        self.bytes(&number.to_ne_bytes())
    }

    pub(super) fn longs(self, numbers: impl IntoIterator<Item = u64>) -> Record {
        numbers.into_iter().fold(self, Record::long)
    }

    /// Fills up with zeros to a size, or cuts off what is beyond it.
    pub(super) fn up_to(mut self, size: usize) -> Record {
        self.0.resize(size, 0);
        self
    }
}

/// What the core is of: the number of the processor (`EM_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    X86 = 62,
    Aarch64 = 183,
}

/// A note.
pub(super) struct Note {
    pub(super) owner: &'static str,
    pub(super) kind: u32,
    pub(super) contents: Vec<u8>,
}

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Stands for a number of segments that has no room in its field: it is in the first section's header then.
const PN_XNUM: usize = 0xffff;

/// All that stands before the memory, filled up to whole pages: the headers and the notes.
pub(super) fn header(machine: Machine, notes: &[Note], segments: &Segments) -> Vec<u8> {
    let notes = notes.iter().fold(Record::default(), note).0;
    let count = segments.all.len() + 1;
    let is_many = count >= PN_XNUM;
    let sections = HEADER + count * SEGMENT;
    let notes_at = sections + if is_many { SECTION } else { 0 };
    let memory_at = (notes_at + notes.len()).next_multiple_of(PAGE_SIZE as usize);

    let mut file = file_header(machine, count, is_many.then_some(sections));
    file = segment(file, PT_NOTE, 0, [notes_at as u64, 0, notes.len() as u64, 0, 4]);
    let mut at = memory_at as u64;
    for one in &segments.all {
        let (size, stored) = (one.end - one.start, one.stored());
        file = segment(file, PT_LOAD, flags(one.protection), [at, one.start, stored, size, PAGE_SIZE]);
        at += stored;
    }
    if is_many {
        // sh_info, behind four fields of 8 bytes and two of 4.
        file = file.up_to(sections + 44).word(count as u32).up_to(sections + SECTION);
    }
    file.bytes(&notes).up_to(memory_at).0
}

fn file_header(machine: Machine, count: usize, section: Option<usize>) -> Record {
    const CORE: u16 = 4;
    const VERSION: u8 = 1;
    let byte_order = if cfg!(target_endian = "little") { 1 } else { 2 };
    Record::default()
        .bytes(&[0x7f, b'E', b'L', b'F', 2, byte_order, VERSION])
        .up_to(16)
        .short(CORE)
        .short(machine as u16)
        .word(VERSION.into())
        .longs([0, HEADER as u64, section.unwrap_or(0) as u64])
        .word(0)
        .short(HEADER as u16)
        .short(SEGMENT as u16)
        .short(count.min(PN_XNUM) as u16)
        .short(if section.is_some() { SECTION as u16 } else { 0 })
        .short(section.is_some().into())
        .short(0)
}

/// The header of a segment: its offset, address, size in the file, size in memory and alignment.
fn segment(file: Record, kind: u32, flags: u32, [offset, address, stored, size, align]: [u64; 5]) -> Record {
    file.word(kind).word(flags).longs([offset, address, 0, stored, size, align])
}

/// As ELF has them: 4 read, 2 write, 1 execute; mmap(2) has them the other way round.
fn flags(protection: u32) -> u32 {
    (protection & 1) << 2 | protection & 2 | (protection & 4) >> 2
}

fn note(notes: Record, note: &Note) -> Record {
    let name = note.owner.len() + 1;
    let begin = notes.0.len();
    let contents = begin + 12 + name.next_multiple_of(4);
    notes
        .words([name as u32, note.contents.len() as u32, note.kind])
        .bytes(note.owner.as_bytes())
        .up_to(contents)
        .bytes(&note.contents)
        .up_to(contents + note.contents.len().next_multiple_of(4))
}

#[cfg(test)]
mod tests {
    use super::super::segments::Segment;
    use super::*;
    use crate::image::contents::{Contents, Stretch};

    fn segments(count: u64) -> Segments {
        let segment = |number| {
            let (start, end) = (number * 2 * PAGE_SIZE, (number * 2 + 1) * PAGE_SIZE);
            let stretch = Stretch { start, end, contents: Contents::Zero };
            let stretches = if number % 2 == 0 { vec![stretch] } else { Vec::new() };
            Segment { start, end, protection: 5, stretches }
        };
        Segments { all: (0..count).map(segment).collect(), missing: 0 }
    }

    fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
        let mut whole = [0; 8];
        whole[..size].copy_from_slice(&bytes[at..at + size]);
        u64::from_ne_bytes(whole)
    }

    #[test]
    fn a_segment_stands_where_the_parts_before_it_end() {
        let note = Note { owner: "CORE", kind: 6, contents: vec![7; 5] };
        let file = header(Machine::X86, &[note], &segments(3));
        assert_eq!(file.len() as u64, PAGE_SIZE);
        assert_eq!((number(&file, 16, 2), number(&file, 18, 2), number(&file, 56, 2)), (4, 62, 4));
        let field = |segment: usize, at: usize| number(&file, 64 + segment * 56 + at, 8);
        // Offset, address, size in the file and in memory.
        let segment = |number| [8, 16, 32, 40].map(|at| field(number, at));
        assert_eq!(segment(1), [PAGE_SIZE, 0, PAGE_SIZE, PAGE_SIZE]);
        assert_eq!(segment(2), [2 * PAGE_SIZE, 2 * PAGE_SIZE, 0, PAGE_SIZE]);
        assert_eq!(segment(3), [2 * PAGE_SIZE, 4 * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE]);
        // Readable and executable.
        assert_eq!(number(&file, 64 + 56 + 4, 4), 5);
        let notes = field(0, 8) as usize;
        assert_eq!(field(0, 32), 12 + 8 + 8);
        assert_eq!(file[notes..notes + 28][12..], *b"CORE\0\0\0\0\x07\x07\x07\x07\x07\0\0\0");
    }

    #[test]
    fn more_segments_than_the_header_can_count_are_counted_in_a_section() {
        let file = header(Machine::Aarch64, &[], &segments(70_000));
        assert_eq!((number(&file, 56, 2), number(&file, 60, 2)), (0xffff, 1));
        let section = number(&file, 40, 8) as usize;
        assert_eq!(section, 64 + 70_001 * 56);
        assert_eq!(number(&file, section + 44, 4), 70_001);
        let few = header(Machine::Aarch64, &[], &segments(0xfffd));
        assert_eq!((number(&few, 56, 2), number(&few, 60, 2), number(&few, 40, 8)), (0xfffe, 0, 0));
    }
}
