//! Memory by way of which checkpoints go. It lies in the store, so that faults strike what is done there as well.

use std::fs;

use crate::aftermath::folders;
use crate::failures::small_disk::Disk;
use crate::harness::{Lab, Launch};

pub struct Memory(Disk);

impl Memory {
    pub fn of(lab: &Lab) -> Memory {
        fs::create_dir_all(lab.store()).expect("a store");
        Memory(Disk::at(lab.store().join("memory"), "huge=always,size=400m"))
    }

    pub fn for_program(&self, launch: Launch) -> Launch {
        launch.env("SELFDUMP_STAGING", self.0.path())
    }

    /// Nothing is left there of any checkpoint, but for folders that are nobody's: those go after a minute.
    pub fn is_nobodys(&self) -> bool {
        folders(self.0.path()).iter().all(|folder| !folder.join("owner.json").exists())
    }
}
