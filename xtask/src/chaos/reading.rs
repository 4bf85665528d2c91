//! What is read of a subject's files, some of which grow meanwhile.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The folders in a folder, without links.
pub fn below(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// The last whole lines of a file.
pub fn tail(path: &Path) -> String {
    const LENGTH: u64 = 8 << 10;
    let read = || {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(LENGTH)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    whole_lines(&read().unwrap_or_default()).to_owned()
}

/// A line may be on its way.
pub fn whole_lines(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..end])
}

pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("rows ")).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The number of a checkpoint by its id or path.
pub fn number_of(checkpoint: &str) -> Option<u64> {
    let name = Path::new(checkpoint).file_name()?.to_str()?;
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())?
}

pub fn number_in(text: &str) -> Option<Vec<u64>> {
    Some(vec![text.parse().ok()?])
}

/// The port that the server has told.
pub fn port_in(output: &str) -> Option<u16> {
    let line = output.lines().find(|line| line.contains(" listens on "))?;
    line.rsplit(':').next()?.parse().ok()
}
