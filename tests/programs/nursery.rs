//! Forks one child after the other: `nursery MEBIBYTES`. Each says what it has open that the program hasn't opened
//! (`child has LINK`), and ends. The program says now and then how many there were.

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::io::{Result, Write};
use std::path::PathBuf;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mebibytes: usize = std::env::args().nth(1).ok_or("how much memory?")?.parse()?;
    let memory: Vec<u64> = (0..mebibytes << 17).map(|word| word as u64).collect();
    let known = links()?;
    // Its pipe comes first, and is what children may have.
    let _handle = selfdump::install()?;
    let pipe = links()?.into_iter().filter(|link| link.to_string_lossy().starts_with("pipe:"));
    let known: BTreeSet<PathBuf> = known.into_iter().chain(pipe).collect();
    say("ready")?;
    for number in 1.. {
        // SAFETY: the child's one thread is this one, and the C library puts its own locks right in it.
        match unsafe { libc::fork() } {
            0 => {
                let all = links()?;
                all.difference(&known).try_for_each(|link| say(&format!("child has {}", link.display())))?;
                // SAFETY: nothing is left to be done.
                unsafe { libc::_exit(0) };
            }
            // SAFETY: nobody wants to know how it ended.
            child => unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) },
        };
        if number % 10 == 0 {
            say(&format!("forked {number}"))?;
        }
    }
    black_box(memory);
    Ok(())
}

/// What this process has open, but for the folder in which that is found.
fn links() -> Result<BTreeSet<PathBuf>> {
    let all =
        fs::read_dir("/proc/self/fd")?.map(|entry| Ok(fs::read_link(entry?.path()).unwrap_or_default()));
    let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
    all.filter(|link| link.as_ref().map_or(true, |link| *link != own && !link.as_os_str().is_empty()))
        .collect()
}

fn say(line: &str) -> Result<()> {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes())
}
