//! The part of a draft in which memory is written ahead of the images, level by level, while the program runs.
//!
//! Each level is a folder of its own, in which CRIU makes the link to the one that it builds on. They are the draft's
//! like all else in it: no checkpoint builds on what is in another's folder, so one that is deleted takes nothing with it
//! that somebody needs.

use std::fs;
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::layout;
use crate::error::{Error, Result};
use crate::sys::disk;

/// A level that is about to be written.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) folder: PathBuf,
    /// What it builds on, by the path from its folder.
    pub(crate) parent: Option<PathBuf>,
}

impl Draft {
    /// Leads CRIU to a folder for the next level.
    pub(crate) fn begin_level(&mut self) -> Result<Level> {
        let levels = self.above_levels();
        let number = self.levels + 1;
        let folder = levels.join(number.to_string());
        for folder in [&levels, &folder].into_iter().filter(|folder| !folder.exists()) {
            disk::make_private(folder).map_err(|source| Error::io("make", folder, source))?;
        }
        self.point_the_link(&folder)?;
        let parent = (self.levels > 0).then(|| Path::new("..").join(self.levels.to_string()));
        self.levels = number;
        Ok(Level { folder, parent })
    }

    /// Leads CRIU to the images after the last level.
    pub(crate) fn end_levels(&self) -> Result<()> {
        self.point_the_link(&self.images())
    }

    /// The last level, which the images build on, by the path from their folder.
    pub(crate) fn last_level(&self) -> Option<PathBuf> {
        (self.levels > 0).then(|| Path::new("..").join(layout::AHEAD).join(self.levels.to_string()))
    }

    /// Removes all levels: the images are to hold everything themselves.
    pub(crate) fn drop_levels(&mut self) -> Result<()> {
        if self.levels == 0 {
            return Ok(());
        }
        let levels = self.above_levels();
        fs::remove_dir_all(&levels).map_err(|source| Error::io("remove", &levels, source))?;
        self.levels = 0;
        self.end_levels()
    }

    /// How many levels there are.
    pub(crate) fn levels(&self) -> u32 {
        self.levels
    }

    fn above_levels(&self) -> PathBuf {
        self.path(layout::AHEAD)
    }
}
