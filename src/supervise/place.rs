//! What a runner has in its program's folder: the lock, and the note of when the run began that goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::store::layout;
use crate::store::manifest::unix_micros;
use crate::sys::{disk, process, procfs};

/// The folder of all runs of a name, which no other runner has as long as this lives.
pub(super) struct Place {
    folder: PathBuf,
    // Held, and never looked at.
    _lock: disk::Lock,
}

/// `run.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    format_version: u32,
    /// Checkpoints from before are those of runs that are done, or that nobody wanted to go on with.
    #[serde(rename = "since_unix_us", with = "unix_micros")]
    since: SystemTime,
}

impl Place {
    /// Takes the lock.
    pub(super) fn take(folder: &Path, name: &str) -> Result<Place> {
        disk::make_all_private(folder).map_err(|source| Error::io("make", folder, source))?;
        let path = folder.join(layout::RUNNER_LOCK);
        let lock = disk::lock(&path).map_err(|source| Error::io("lock", &path, source))?;
        let lock = lock.ok_or_else(|| taken(&path, name))?;
        // Its holder by number, for who comes second.
        fs::write(&path, format!("{}\n", process::id()))
            .map_err(|source| Error::io("write", &path, source))?;
        Ok(Place { folder: folder.to_owned(), _lock: lock })
    }

    /// Since when checkpoints are those of the run that isn't done.
    pub(super) fn since(&self) -> SystemTime {
        let text = fs::read(self.folder.join(layout::RUN)).ok();
        let run = text.and_then(|text| serde_json::from_slice::<Run>(&text).ok());
        run.map_or(SystemTime::UNIX_EPOCH, |run| run.since)
    }

    /// A run begins, or is done: nobody is to go on from what was made before. The program is not to lose its runner
    /// by a disk that is full.
    pub(super) fn begin_anew(&self, since: SystemTime) {
        let path = self.folder.join(layout::RUN);
        let text = serde_json::to_vec(&Run { format_version: 1, since }).map_err(std::io::Error::from);
        let written = text.and_then(|text| disk::replace(&path, &text, &process::id().to_string()));
        if let Err(error) = written {
            log::warn!("can't write {}: {error}", path.display());
        }
    }
}

fn taken(lock: &Path, name: &str) -> Error {
    let holder = fs::read_to_string(lock).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let holder = match holder {
        Some(pid) => {
            let program = procfs::stat(pid).map(|stat| format!(" ({})", stat.name)).unwrap_or_default();
            format!("process {pid}{program}")
        }
        None => "another process".to_owned(),
    };
    Error::new(ErrorKind::Held, format!("{name} has a runner already: {holder}"))
        .with_hint("run this one under another --name or in another --dir, or end that runner first")
}
