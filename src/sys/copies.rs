//! Other copies of this library in the same process.
//!
//! A program may link selfdump, load a library that has it linked in as well, and be preloaded with it; each copy has
//! statics of its own, and none of its symbols can be seen from the others. So that they find each other, each carries
//! an ELF note, named `selfdump`, which says where the function is that answers for it ([`entry`]). The notes are in
//! the program headers, which the loader knows of everything that is loaded (dl_iterate_phdr(3)), and of static
//! programs as well.

use std::ffi::{c_int, c_void};
use std::slice;
use std::sync::OnceLock;

/// What one copy asks another. The numbers are between copies that were built at different times, so they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Question {
    /// Who has installed you in this process?
    Installed = 0,
    /// Will you take yourself out, if the program has not asked for you?
    GiveWay = 1,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Answer {
    /// Nobody.
    NotInstalled = 0,
    /// Being there.
    ByLinking = 1,
    /// The program, by a call.
    ByCall = 2,
    /// That is just changing.
    Changing = 3,
    /// I have.
    GivenWay = 4,
}

/// In C's way, since the copies may be of different compilers.
type Entry = extern "C" fn(u32) -> u32;

/// How this copy answers; none until it is about to be installed for the first time.
static ANSWER: OnceLock<fn(Question) -> Answer> = OnceLock::new();

/// The name in the note, and the kind of note: what it contains is the distance from there to the entry.
const NAME: &[u8] = b"selfdump\0";
const KIND: u32 = 1;

// The layout of a note (elf(5)): the lengths of name and contents, the kind, and both, each filled up to a multiple of
// four. The distance goes through the linker's table of calls, so that it can be told in a library as well.
std::arch::global_asm!(
    ".pushsection .note.selfdump, \"a\", @note",
    ".balign 4",
    ".long 9",
    ".long 4",
    ".long 1",
    ".asciz \"selfdump\"",
    ".balign 4",
    ".long {entry}@PLT - .",
    ".popsection",
    entry = sym entry,
);

/// Another copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy(Entry);

impl Copy {
    /// None where it says something that we don't know.
    pub(crate) fn ask(self, question: Question) -> Option<Answer> {
        let known =
            [Answer::NotInstalled, Answer::ByLinking, Answer::ByCall, Answer::Changing, Answer::GivenWay];
        let said = (self.0)(question as u32);
        known.into_iter().find(|answer| *answer as u32 == said)
    }
}

/// Has others find this copy, and it answer so.
pub(crate) fn answer_with(answer: fn(Question) -> Answer) {
    let _ = ANSWER.set(answer);
}

/// What others call.
extern "C" fn entry(question: u32) -> u32 {
    let known = [Question::Installed, Question::GiveWay];
    let asked = known.into_iter().find(|known| *known as u32 == question);
    // A panic may not leave a function that is called from outside.
    let answered = || Some(ANSWER.get()?(asked?));
    let answer = std::panic::catch_unwind(answered).ok().flatten();
    answer.unwrap_or(Answer::NotInstalled) as u32
}

/// All copies in this process but this one.
pub(crate) fn others() -> Vec<Copy> {
    let mut found: Vec<Copy> = Vec::new();
    // SAFETY: the callback is given the address of `found`, which lives until the call returns.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    found
}

/// Looks into one program or library. Nothing is called here, since the loader holds its lock.
unsafe extern "C" fn look(object: *mut libc::dl_phdr_info, _: usize, found: *mut c_void) -> c_int {
    // SAFETY: the loader passes an object, and what `others` has given it. The object's headers live as long as it is
    // loaded, which is at least as long as this runs.
    let (object, found) = unsafe { (&*object, &mut *found.cast::<Vec<Copy>>()) };
    if object.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let headers = unsafe { slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let address = |header: &libc::Elf64_Phdr| (object.dlpi_addr + header.p_vaddr) as usize;
    let holds = |header: &libc::Elf64_Phdr, place: usize| {
        header.p_type == libc::PT_LOAD
            && (address(header)..address(header) + header.p_memsz as usize).contains(&place)
    };
    let is_loaded = |place: usize| headers.iter().any(|header| holds(header, place));
    if is_loaded(entry as *const () as usize) {
        return 0;
    }
    for header in headers.iter().filter(|header| header.p_type == libc::PT_NOTE) {
        let end = address(header) + (header.p_filesz as usize).max(1) - 1;
        if !is_loaded(address(header)) || !is_loaded(end) {
            continue;
        }
        // SAFETY: they are in a part of the object that is loaded.
        let notes = unsafe { slice::from_raw_parts(address(header) as *const u8, header.p_filesz as usize) };
        let Some(distance) = super::elf::note(notes, NAME, KIND) else { continue };
        let Some(value) = distance.try_into().ok().map(i32::from_ne_bytes) else { continue };
        let place = distance.as_ptr() as isize + value as isize;
        if is_loaded(place as usize) {
            // SAFETY: it is a place in that object, and by its note a function of this type.
            found.push(Copy(unsafe { std::mem::transmute::<isize, Entry>(place) }));
        }
    }
    0
}

/// Whether a file has a copy of this library in it.
pub(crate) fn is_in(path: &std::path::Path) -> std::io::Result<bool> {
    Ok(super::elf::note_of(path, NAME, KIND)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_the_note_and_is_no_other_copy() {
        assert!(is_in(std::path::Path::new("/proc/self/exe")).unwrap());
        assert!(!is_in(std::path::Path::new("/bin/true")).unwrap());
        assert!(others().is_empty());
    }

    #[test]
    fn a_question_of_a_later_version_is_answered_with_nothing() {
        assert_eq!(entry(99), Answer::NotInstalled as u32);
    }
}
