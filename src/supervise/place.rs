//! What a runner has in its program's folder: the lock, and the note of when the run began that goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::frozen::unix_micros;
use crate::store::catalogue::{self, Entry};
use crate::store::manifest::Manifest;
use crate::store::{entrance, layout};
use crate::sys::{disk, process, procfs};

/// The folder of all runs of a name, which no other runner has as long as this lives.
pub(super) struct Place {
    folder: PathBuf,
    // Held, and never looked at.
    _lock: disk::Lock,
    run: Run,
    predecessor: Option<Holder>,
}

/// `run.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    format_version: u32,
    /// The newest checkpoint of each instance that is of a run which is done, or which nobody wanted to go on with. A time
    /// would tell that only as long as no clock is set.
    behind: BTreeMap<String, u64>,
    /// Checkpoints from before are of lives whose end a runner has seen.
    #[serde(rename = "over_unix_us", with = "unix_micros")]
    over: SystemTime,
}

/// A runner, as it stands in the lock's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    pid: i32,
    pid_namespace: u64,
}

impl Holder {
    fn ourselves() -> std::io::Result<Holder> {
        let pid = process::id();
        Ok(Holder { pid, pid_namespace: procfs::pid_namespace(pid)? })
    }

    fn read(path: &Path) -> Option<Holder> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, pid_namespace) = text.trim().split_once(' ')?;
        Some(Holder { pid: pid.parse().ok()?, pid_namespace: pid_namespace.parse().ok()? })
    }

    fn write(self, path: &Path) -> std::io::Result<()> {
        fs::write(path, format!("{} {}\n", self.pid, self.pid_namespace))
    }
}

impl Place {
    /// Takes the lock.
    pub(super) fn take(folder: &Path, name: &str) -> Result<Place> {
        entrance::make(folder, 1)?;
        let path = folder.join(layout::RUNNER_LOCK);
        let lock = disk::lock(&path).map_err(|source| Error::io("lock", &path, source))?;
        let lock = lock.ok_or_else(|| taken(&path, name))?;
        let predecessor = Holder::read(&path);
        let written = Holder::ourselves().and_then(|ourselves| ourselves.write(&path));
        written.map_err(|source| Error::io("write", &path, source))?;
        Ok(Place { folder: folder.to_owned(), _lock: lock, run: Run::read(folder), predecessor })
    }

    /// Whether a checkpoint is of a run that is done, or that nobody wanted to go on with.
    pub(super) fn is_behind(&self, checkpoint: &Entry) -> bool {
        let place = named(checkpoint);
        place.is_some_and(|(instance, number)| {
            self.run.behind.get(&instance).is_some_and(|last| number <= *last)
        })
    }

    /// Whether the program that a checkpoint was made of has ended for certain, wherever it ran: a runner has seen
    /// that, or was the first process of its pid namespace, which doesn't survive that.
    pub(super) fn is_over(&self, checkpoint: &Manifest) -> bool {
        let gone = Holder { pid: 1, pid_namespace: checkpoint.life.pid_namespace };
        checkpoint.taken < self.run.over || self.predecessor == Some(gone)
    }

    /// What there is: the number of the newest checkpoint of each instance.
    pub(super) fn made(&self) -> BTreeMap<String, u64> {
        // Where nothing can be read, nothing can be gone on from either.
        let found = catalogue::find(&self.folder, Some(&self.folder)).unwrap_or_default();
        let mut made = BTreeMap::new();
        for (instance, number) in found.iter().filter_map(named) {
            let newest = made.entry(instance).or_default();
            *newest = number.max(*newest);
        }
        made
    }

    /// A run begins, or is done: nobody is to go on from what was made before.
    pub(super) fn begin_anew(&mut self, made: BTreeMap<String, u64>) {
        self.run.behind = made;
        self.write();
    }

    /// The program has ended.
    pub(super) fn note_an_end(&mut self) {
        self.run.over = SystemTime::now();
        self.write();
    }

    /// The program is not to lose its runner by a disk that is full.
    fn write(&self) {
        let path = self.folder.join(layout::RUN);
        let text = serde_json::to_vec(&self.run).map_err(std::io::Error::from);
        let written = text.and_then(|text| disk::replace(&path, &text, &process::id().to_string()));
        if let Err(error) = written {
            log::warn!("can't write {}: {error}", path.display());
        }
    }
}

impl Run {
    /// None that could be read is one in which nothing is known.
    fn read(folder: &Path) -> Run {
        let text = fs::read(folder.join(layout::RUN)).ok();
        let run = text.and_then(|text| serde_json::from_slice(&text).ok());
        run.unwrap_or(Run { format_version: 1, behind: BTreeMap::new(), over: SystemTime::UNIX_EPOCH })
    }
}

/// The name of a checkpoint's instance, and its number there.
fn named(checkpoint: &Entry) -> Option<(String, u64)> {
    let (instance, number) = checkpoint.place()?;
    Some((instance.file_name()?.to_str()?.to_owned(), number))
}

fn taken(lock: &Path, name: &str) -> Error {
    let ours = Holder::ourselves().map(|ourselves| ourselves.pid_namespace).ok();
    let holder = match Holder::read(lock) {
        Some(Holder { pid, pid_namespace }) if Some(pid_namespace) != ours => {
            format!("process {pid} of another pid namespace")
        }
        Some(Holder { pid, .. }) => {
            let program = procfs::stat(pid).map(|stat| format!(" ({})", stat.name)).unwrap_or_default();
            format!("process {pid}{program}")
        }
        None => "another process".to_owned(),
    };
    Error::new(ErrorKind::Held, format!("{name} has a runner already: {holder}"))
        .with_hint("run this one under another --name or in another --dir, or end that runner first")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_runner_at_a_time_and_the_second_is_told_who_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = Place::take(folder.path(), "train").unwrap();
        let error = Place::take(folder.path(), "train").map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Held);
        assert!(error.to_string().contains(&format!("runner already: process {}", process::id())), "{error}");
        drop(first);
        Place::take(folder.path(), "train").unwrap();
    }

    #[test]
    fn what_is_written_down_is_there_for_the_next_runner() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place::take(folder.path(), "train").unwrap();
        let made = |number: u64| {
            let path = folder.path().join(format!("4711-99/{number:06}"));
            fs::create_dir_all(&path).unwrap();
            Entry { manifest: Manifest::read(&path), path, opened: None }
        };
        let (first, second) = (made(1), made(2));
        assert!(!place.is_behind(&first) && place.predecessor.is_none());
        place.begin_anew(place.made());
        place.note_an_end();
        drop(place);
        let next = Place::take(folder.path(), "train").unwrap();
        assert!(next.is_behind(&first) && next.is_behind(&second) && !next.is_behind(&made(3)));
        assert_eq!(next.predecessor, Holder::ourselves().ok());
        assert!(next.run.over > SystemTime::UNIX_EPOCH);
    }
}
