//! The program's memory, its store, its checkpoints and the CRIU of a comparison.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selfdump::status::Attempt;
use selfdump::{Entry, restore};

use super::Failure;

/// The name that the program's checkpoints have in the store.
const NAME: &str = "bench";

/// No dump takes as long as this.
const PATIENCE: Duration = Duration::from_secs(120);

/// SELFDUMP_CRIU, or the one that the tests use.
pub fn criu() -> Result<PathBuf, Failure> {
    let installed = target()?.join("criu/bin/criu");
    let criu = std::env::var_os("SELFDUMP_CRIU").map_or(installed, PathBuf::from);
    match criu.is_file() {
        true => Ok(criu),
        false => {
            Err(format!("no CRIU at {}: run `cargo xtask setup`, which gets one", criu.display()).into())
        }
    }
}

/// cargo's target folder, seen from target/PROFILE/NAME or target/PROFILE/deps/NAME-HASH.
pub fn target() -> Result<PathBuf, Failure> {
    let ours = std::env::current_exe()?;
    let is_dependency = ours.parent().is_some_and(|folder| folder.ends_with("deps"));
    Ok(ours.ancestors().nth(if is_dependency { 3 } else { 2 }).unwrap_or(&ours).to_owned())
}

/// Where the checkpoints go in the folder of a comparison.
pub fn store(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("store")
}

/// The program to be dumped: this same executable under another word, so that nothing has to be built beside it.
pub fn program(word: &str, argument: &str, store: &Path, criu: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    without_settings(&mut command).args([word, argument]);
    command.env("SELFDUMP_DIR", store).env("SELFDUMP_NAME", NAME).env("SELFDUMP_CRIU", criu);
    Ok(command)
}

/// Keeps whoever runs the comparison from changing what is compared.
pub fn without_settings(command: &mut Command) -> &mut Command {
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with("SELFDUMP")) {
        command.env_remove(name);
    }
    command
}

/// Bytes of Marsaglia's xorshift (Journal of Statistical Software 8, 2003): no page is like another, and nothing
/// compresses them.
pub fn random(bytes: usize) -> Vec<u64> {
    noise().take(bytes / size_of::<u64>()).collect()
}

/// The same without an end.
pub fn noise() -> impl Iterator<Item = u64> {
    noise_from(0x9e37_79b9_7f4a_7c15)
}

/// The same from a beginning, which is not to be 0.
pub fn noise_from(mut state: u64) -> impl Iterator<Item = u64> {
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next)
}

/// Tells the kernel how the memory of a vector is to be kept that holds nothing yet.
pub fn advise<T>(memory: &mut Vec<T>, advice: i32) {
    let page = 4096;
    let begin = memory.as_mut_ptr().map_addr(|address| address.next_multiple_of(page));
    let bytes = memory.capacity() * size_of::<T>();
    // SAFETY: the pages are within the vector's, and how the kernel keeps them changes nothing in them.
    unsafe { libc::madvise(begin.cast(), bytes.saturating_sub(page), advice) };
}

/// Brings about the same state before every run: the host has given us the memory that it will use, and nothing
/// waits to be written to the disk.
pub fn settle(mebibytes: usize) {
    let bytes = (mebibytes + 64) << 20;
    let mut memory: Vec<u8> = Vec::with_capacity(bytes);
    // In huge pages, which are small ones as well when they are free again.
    advise(&mut memory, libc::MADV_HUGEPAGE);
    memory.resize(bytes, 1);
    std::hint::black_box(memory);
    nix::unistd::sync();
}

/// A checkpoint of the program by signal, when it is committed.
pub fn checkpoint(pid: Pid, mebibytes: usize, store: &Path) -> Result<Entry, Failure> {
    let asked = SystemTime::now();
    kill(pid, Signal::SIGUSR2)?;
    let deadline = Instant::now() + PATIENCE;
    let attempt = loop {
        // Rarely enough to take no time away from what is measured.
        std::thread::sleep(Duration::from_millis(25));
        if let Some(attempt) = attempt_since(asked, store) {
            break attempt;
        }
        if Instant::now() > deadline {
            return Err("selfdump has not come to an end".into());
        }
    };
    if let Some(error) = attempt.error {
        return Err(format!("selfdump has failed: {}", error.message).into());
    }
    let newest = restore::find(store, None)?.into_iter().next();
    let entry = newest.ok_or("no checkpoint was written")?;
    let written = entry.manifest.as_ref().map_err(Clone::clone)?.stats.pages_written;
    enough(written << 12, mebibytes, &entry.path)?;
    Ok(entry)
}

/// What came of the attempt that began since then, if one did.
pub fn attempt_since(asked: SystemTime, store: &Path) -> Option<Attempt> {
    // The file holds whole microseconds.
    let asked = asked - Duration::from_micros(1);
    let statuses = selfdump::status::of_target(store, Path::new(NAME)).ok()?;
    statuses.into_iter().find_map(|status| status.last).filter(|attempt| attempt.started >= asked)
}

/// Whether all of the program's memory is in the images that CRIU has written, so that times of the same work are
/// compared.
pub fn is_whole(images: &Path, mebibytes: usize) -> Result<(), Failure> {
    let pages = fs::read_dir(images)?.flatten().filter(|file| {
        let name = file.file_name();
        name.to_string_lossy().starts_with("pages-")
    });
    enough(pages.map(|file| file.metadata().map_or(0, |file| file.len())).sum(), mebibytes, images)
}

fn enough(bytes: u64, mebibytes: usize, folder: &Path) -> Result<(), Failure> {
    if bytes >= (mebibytes as u64) << 20 {
        return Ok(());
    }
    Err(format!("only {bytes} bytes of memory went to {}", folder.display()).into())
}
