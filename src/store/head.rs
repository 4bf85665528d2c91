//! What a program that is checkpointed reads of its checkpoints.

use std::path::Path;

use serde::Deserialize;

use super::layout;
use super::life::Life;
use super::manifest::{FileEntry, Level, Versioned, parse, read_text};
use crate::error::Result;

/// As much of a manifest as retention asks for, and the checkpoint that builds on it. A program that is checkpointed reads
/// no more of its checkpoints, and has no code for the rest.
#[derive(Deserialize)]
pub(crate) struct Head {
    format_version: u32,
    pub(crate) id: String,
    pub(super) forensic: bool,
    pub(super) life: Life,
    criu: WhichCriu,
    files: Vec<FileEntry>,
    pub(super) parent: Option<String>,
    #[serde(default)]
    pub(super) chain: Vec<Level>,
    #[serde(default)]
    encrypted_to: Vec<String>,
}

#[derive(Deserialize)]
struct WhichCriu {
    version: String,
}

impl Versioned for Head {
    fn format_version(&self) -> u32 {
        self.format_version
    }
}

impl Head {
    /// Reads that of a checkpoint's folder, and checks the manifest against its own checksum.
    pub(super) fn read(folder: &Path) -> Result<Head> {
        parse(folder, &read_text(folder)?)
    }

    /// Whether its images can be read here and are CRIU's of this version: an older one may be the one that restores what
    /// builds on them, and has to understand all of it. What a service has made it vouches for as it is; and images of which
    /// a part was written ahead are of more than one folder.
    pub(crate) fn can_be_built_on(&self, criu: &str) -> bool {
        let seal = Path::new(layout::IMAGES).join(layout::SEAL);
        let stands_alone = self.files.iter().map(|file| Path::new(&file.path));
        let stands_alone = !stands_alone.clone().any(|file| file == seal || file.starts_with(layout::AHEAD));
        self.encrypted_to.is_empty() && stands_alone && self.criu.version == criu
    }
}
