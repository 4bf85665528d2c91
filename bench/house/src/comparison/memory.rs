//! How much of the machine's memory something takes at its peak.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Failure;

/// Whoever writes a gigabyte in a second takes 10 MiB between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks all the time how much memory is left to programs (MemAvailable of proc_meminfo(5): what is in the page cache for the
/// disk alone is counted as free).
pub struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<f64>>,
}

impl Watch {
    pub fn begin() -> Result<Watch, Failure> {
        let before = available()?;
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let thread = std::thread::spawn(move || {
            let mut least = before;
            while !until.load(Relaxed) {
                std::thread::sleep(LOOK);
                least = least.min(available()?);
            }
            Ok(before - least)
        });
        Ok(Watch { ended, thread })
    }

    /// How much less there was than at the beginning, in MiB. One at least: less is lost in what the rest of the machine does.
    pub fn end(self) -> Result<f64, Failure> {
        self.ended.store(true, Relaxed);
        let taken = self.thread.join().map_err(|_| "the watch has panicked")??;
        Ok(taken.max(1.0))
    }
}

/// In MiB.
fn available() -> io::Result<f64> {
    let all = fs::read_to_string("/proc/meminfo")?;
    let line = all.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    number
        .map(|kibibytes| kibibytes / 1024.0)
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))
}
