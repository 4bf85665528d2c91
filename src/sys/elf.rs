//! What an ELF file says of itself: its build id (elf(5), `NT_GNU_BUILD_ID`).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The largest part that notes are read from. A build id takes 36 bytes.
const LARGEST: u64 = 64 << 10;

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

/// The build id of a program or library in hexadecimal; none where it has none, or is no ELF file of 64 bits in our
/// byte order.
pub(crate) fn build_id(path: &Path) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let header = part(&mut file, 0, 64)?;
    if header.len() < 64 || header[..4] != *b"\x7fELF" || header[4] != 2 {
        return Ok(None);
    }
    let (Some(table), Some(size), Some(count)) = (long(&header, 32), short(&header, 54), short(&header, 56))
    else {
        return Ok(None);
    };
    for number in 0..u64::from(count) {
        let entry = part(&mut file, table.saturating_add(number * u64::from(size)), 56)?;
        if word(&entry, 0) != Some(PT_NOTE) {
            continue;
        }
        let (Some(at), Some(length)) = (long(&entry, 8), long(&entry, 32)) else { continue };
        let notes = part(&mut file, at, length.min(LARGEST))?;
        if let Some(id) = in_notes(&notes) {
            return Ok(Some(id.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
    }
    Ok(None)
}

/// The notes stand one behind the other, names and contents each filled up to a multiple of four.
fn in_notes(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (name, length, kind) = (word(notes, 0)? as usize, word(notes, 4)? as usize, word(notes, 8)?);
        let contents = 12 + name.next_multiple_of(4);
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + name) == Some(b"GNU\0") {
            return notes.get(contents..contents.checked_add(length)?);
        }
        notes = notes.get(contents.checked_add(length.next_multiple_of(4))?..)?;
    }
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
    fn a_file_that_is_cut_anywhere_is_no_harm() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let cut = tempfile::NamedTempFile::new().unwrap();
        for length in (0..4096).step_by(7) {
            std::fs::write(cut.path(), &whole[..length]).unwrap();
            build_id(cut.path()).unwrap();
        }
    }
}
