//! The log: a line for each round that was done. It lets a run go on, and sums it up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::blows::Blow;
use super::subject::Kind;

/// `target/chaos/SEED.log`.
pub struct Record {
    file: File,
    done: BTreeSet<u64>,
    by_blow: BTreeMap<&'static str, u64>,
    by_kind: BTreeMap<&'static str, u64>,
}

/// A round that went well.
pub struct Round {
    pub number: u64,
    pub kind: Kind,
    pub blow: Blow,
    /// The checkpoint that the subject came back from.
    pub from: Option<u64>,
    /// The next one that it made.
    pub next: u64,
    pub took: Duration,
}

impl Record {
    /// With the rounds that are done already, or without.
    pub fn open(folder: &Path, seed: u64, resume: bool) -> Result<Record> {
        fs::create_dir_all(folder)?;
        let path = path(folder, seed);
        let before = if resume { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let number = |line: &str| line.split(' ').next()?.parse().ok();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("can't open {}", path.display()))?;
        if !resume {
            file.set_len(0)?;
        }
        let done = before.lines().filter_map(number).collect();
        Ok(Record { file, done, by_blow: BTreeMap::new(), by_kind: BTreeMap::new() })
    }

    pub fn has(&self, round: u64) -> bool {
        self.done.contains(&round)
    }

    pub fn note(&mut self, round: &Round) -> Result<()> {
        let from = round.from.map_or("went on".to_owned(), |from| format!("back from {from}"));
        let (subject, blow) = (round.kind.name(), round.blow.name());
        let seconds = round.took.as_secs_f64();
        let line = format!(
            "{:04} {subject:8} {blow:15} {from}, checkpoint {} made, whole ({seconds:.1} s)",
            round.number, round.next
        );
        println!("{line}");
        writeln!(self.file, "{line}")?;
        self.done.insert(round.number);
        *self.by_blow.entry(blow).or_default() += 1;
        *self.by_kind.entry(subject).or_default() += 1;
        Ok(())
    }

    pub fn rounds(&self) -> usize {
        self.done.len()
    }

    /// What was done in this run, by subject and by blow.
    pub fn summary(&self) -> String {
        let list = |counts: &BTreeMap<&str, u64>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        format!("subjects: {}\nblows: {}", list(&self.by_kind), list(&self.by_blow))
    }
}

fn path(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("{seed}.log"))
}

/// The seed of the run that was the last to note something.
pub fn last_seed(folder: &Path) -> Option<u64> {
    let logs = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let seed = |log: &Path| log.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok();
    let changed =
        |log: &PathBuf| fs::metadata(log).and_then(|log| log.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    logs.filter_map(|log| Some((changed(&log), seed(&log)?))).max().map(|(_, seed)| seed)
}
