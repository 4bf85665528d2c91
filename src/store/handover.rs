//! What a restorer has for the program that it brings back: `selfdump restore --set KEY=VALUE`.
//!
//! It lies in the runtime folder under the process id, which is free until the program has it, so that there is one
//! reader at most. The program takes it away when it comes back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout;
use super::life::Life;
use super::runtime;
use crate::error::{Error, Result};
use crate::sys::{disk, procfs};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handover {
    /// The checkpoint whose process it is for: what was left by a restore that failed is nobody else's.
    checkpoint: String,
    settings: BTreeMap<String, String>,
}

/// A handover that lies ready. It is taken back when the restore fails.
pub(crate) struct Ready(PathBuf);

/// Lays settings ready in the program's runtime `folder` for the process `pid` of this pid namespace, which is to come
/// back from `checkpoint`. Where there are none, what an earlier restore has left is taken away.
pub(crate) fn lay_ready(
    folder: &Path,
    pid: i32,
    checkpoint: &str,
    settings: &BTreeMap<String, String>,
) -> Result<Ready> {
    let namespace = procfs::pid_namespace(crate::sys::process::id())
        .map_err(|source| Error::os("read /proc about this process", source))?;
    let path = layout::handover(folder, namespace, pid);
    if settings.is_empty() {
        return match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound && folder.is_dir() => {
                Err(Error::io("take away", &path, source))
            }
            _ => Ok(Ready(path)),
        };
    }
    runtime::make(folder).map_err(|source| Error::io("make", folder, source))?;
    let handover = Handover { checkpoint: checkpoint.to_owned(), settings: settings.clone() };
    let text = serde_json::to_vec(&handover).map_err(io::Error::from);
    text.and_then(|text| disk::replace(&path, &text, checkpoint.rsplit('/').next().unwrap_or_default()))
        .map_err(|source| Error::io("write", &path, source))?;
    Ok(Ready(path))
}

impl Ready {
    pub(crate) fn take_back(self) {
        // The program may have taken it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Takes what lies ready for a life that came back from `checkpoint`.
pub(crate) fn take(life: &Life, checkpoint: &str) -> BTreeMap<String, String> {
    let Some(folder) = runtime::to_read() else { return BTreeMap::new() };
    let path = layout::handover(&folder, life.pid_namespace, life.pid);
    let Ok(text) = fs::read_to_string(&path) else { return BTreeMap::new() };
    let _ = fs::remove_file(&path);
    match serde_json::from_str::<Handover>(&text) {
        Ok(handover) if handover.checkpoint == checkpoint => handover.settings,
        Ok(_) => BTreeMap::new(),
        Err(error) => {
            log::warn!("can't understand {}: {error}", path.display());
            BTreeMap::new()
        }
    }
}
