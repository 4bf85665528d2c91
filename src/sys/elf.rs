//! What an ELF file says of itself (elf(5)): its notes, which machine it is for, and who loads it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The largest part that notes are read from. A build id takes 36 bytes.
const LARGEST: u64 = 64 << 10;

/// The longest path of a loader.
const LONGEST: u64 = 4096;

const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

/// What an ELF file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// 32 or 64 bits, as ELFCLASS32 and ELFCLASS64.
    class: u8,
    number: u16,
}

/// The build id of a program or library in hexadecimal (`NT_GNU_BUILD_ID`); none where it has none, or is no ELF file
/// of 64 bits in our byte order.
pub(crate) fn build_id(path: &Path) -> io::Result<Option<String>> {
    let id = note_of(path, b"GNU\0", NT_GNU_BUILD_ID)?;
    Ok(id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// The contents of a note in a file; none as above.
pub(crate) fn note_of(path: &Path, name: &[u8], kind: u32) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    for (at, length) in segments(&mut file, PT_NOTE)? {
        let notes = part(&mut file, at, length.min(LARGEST))?;
        if let Some(contents) = note(&notes, name, kind) {
            return Ok(Some(contents.to_owned()));
        }
    }
    Ok(None)
}

/// The contents of a note among others. They stand one behind the other, names and contents each filled up to a
/// multiple of four.
pub(crate) fn note<'a>(mut notes: &'a [u8], name: &[u8], kind: u32) -> Option<&'a [u8]> {
    loop {
        let (its_name, length, its_kind) =
            (word(notes, 0)? as usize, word(notes, 4)? as usize, word(notes, 8)?);
        let contents = 12 + its_name.next_multiple_of(4);
        if its_kind == kind && notes.get(12..12 + its_name) == Some(name) {
            return notes.get(contents..contents.checked_add(length)?);
        }
        notes = notes.get(contents.checked_add(length.next_multiple_of(4))?..)?;
    }
}

/// What a file is for; none where it is no ELF file.
pub(crate) fn machine(path: &Path) -> io::Result<Option<Machine>> {
    let header = part(&mut File::open(path)?, 0, 20)?;
    let number = short(&header, 18).filter(|_| header.starts_with(b"\x7fELF"));
    Ok(number.map(|number| Machine { class: header[4], number }))
}

/// Who loads a program and its shared libraries (`PT_INTERP`); none where it has none of those.
pub(crate) fn loader(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut file = File::open(path)?;
    let Some((at, length)) = segments(&mut file, PT_INTERP)?.into_iter().next() else { return Ok(None) };
    let mut name = part(&mut file, at, length.min(LONGEST))?;
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Ok(Some(OsString::from_vec(name).into()))
}

/// Where in a file the parts of one kind are, and how long they are.
fn segments(file: &mut File, kind: u32) -> io::Result<Vec<(u64, u64)>> {
    let header = part(file, 0, 64)?;
    if header.len() < 64 || header[..4] != *b"\x7fELF" || header[4] != 2 {
        return Ok(Vec::new());
    }
    let (Some(table), Some(size), Some(count)) = (long(&header, 32), short(&header, 54), short(&header, 56))
    else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for number in 0..u64::from(count) {
        let entry = part(file, table.saturating_add(number * u64::from(size)), 56)?;
        if let (Some(at), Some(length)) = (long(&entry, 8), long(&entry, 32)) {
            found.extend((word(&entry, 0) == Some(kind)).then_some((at, length)));
        }
    }
    Ok(found)
}

/// A part of a file, or what there is of it.
fn part(file: &mut File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at.min(i64::MAX as u64)))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_a_build_id_and_other_files_have_none() {
        let ours = build_id(Path::new("/proc/self/exe")).unwrap().expect("a build id");
        assert!(ours.len() >= 16 && ours.bytes().all(|byte| byte.is_ascii_hexdigit()), "{ours}");
        assert_eq!(build_id(Path::new("/proc/self/status")).unwrap(), None);
        assert_eq!(build_id(Path::new("/dev/null")).unwrap(), None);
    }

    #[test]
    fn a_program_names_its_loader_and_a_library_is_for_the_same_machine() {
        let ours = Path::new("/proc/self/exe");
        assert!(loader(ours).unwrap().is_some_and(|loader| loader.is_absolute() && loader.exists()));
        assert_eq!(machine(ours).unwrap(), machine(&loader(ours).unwrap().unwrap()).unwrap());
        assert_eq!(machine(Path::new("/proc/self/status")).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_no_harm() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let cut = tempfile::NamedTempFile::new().unwrap();
        for length in (0..4096).step_by(7) {
            std::fs::write(cut.path(), &whole[..length]).unwrap();
            build_id(cut.path()).unwrap();
            machine(cut.path()).unwrap();
            loader(cut.path()).unwrap();
        }
    }
}
