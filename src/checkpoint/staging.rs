//! Whether a checkpoint goes by way of memory, and what of the program has to fit in there.

use std::path::Path;
use std::sync::Once;

use super::{BESIDE_THE_MEMORY, Subject};
use crate::config::{Snapshot, Staging};
use crate::criu::Way;
use crate::error::Result;
use crate::frozen::Bytes;
use crate::report::{Cause, Staged};
use crate::store::draft::Draft;
use crate::store::staging::Wanted;
use crate::sys::{self, procfs};

/// How many files CRIU writes for a program (they were 23), and for each process (6) and thread (1) of it.
const FILES: u64 = 24;
const FILES_OF_A_PROCESS: u64 = 8;

/// What is known of the program's processes before they are dumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    /// Memory of their own.
    pub(super) memory: Bytes,
    /// Memory that they may share with each other, counted for each that uses it.
    shared: Bytes,
    /// How many files CRIU writes about them.
    files: u64,
}

impl Tree {
    pub(super) fn look() -> Tree {
        procfs::tree(sys::process::id())
            .into_iter()
            .fold(Tree { files: FILES, ..Tree::default() }, Tree::with)
    }

    fn with(self, pid: i32) -> Tree {
        let of = |key| procfs::status_number(pid, key).unwrap_or(0);
        let add = |all: Bytes, key| Bytes(all.0 + of(key) * 1024);
        Tree {
            memory: add(self.memory, "RssAnon"),
            shared: add(self.shared, "RssShmem"),
            files: self.files + FILES_OF_A_PROCESS + of("Threads"),
        }
    }

    fn wanted(self, copies: Bytes) -> Wanted {
        Wanted {
            room: [self.memory, self.shared, BESIDE_THE_MEMORY, copies].into_iter().sum(),
            memory: self.memory,
            files: self.files,
            runs_programs: copies > Bytes(0),
        }
    }
}

/// Has the draft written in memory, where that is wanted and can be; where it is written.
///
/// A program that is about to end, or has gone wrong, gains nothing by a shorter pause.
pub(super) fn prepare(
    subject: &Subject,
    draft: &mut Draft,
    cause: &Cause,
    ways: &[Way],
    tree: Tree,
) -> Result<Staged> {
    let settings = &subject.settings;
    let wanted = tree.wanted(settings.most_to_copy());
    // A service sees other file systems than we do, maybe.
    let is_by_worker = ways.iter().all(|way| matches!(way, Way::Worker(_)));
    let staging = match &settings.staging {
        _ if is_urgent(subject, cause) => &Staging::Off,
        // What is left to be written builds on what is on the disk already, and is little.
        _ if draft.levels() > 0 => &Staging::Off,
        // The program runs while its copy is dumped, so there is no pause to be made shorter.
        _ if settings.snapshot != Snapshot::Freeze => &Staging::Off,
        Staging::Auto if !is_by_worker => &Staging::Off,
        staging => staging,
    };
    if settings.encrypts() {
        draft.write_apart(&subject.life, staging, wanted)?;
        return Ok(draft.staged());
    }
    let staged = draft.stage(&subject.life, staging, wanted)?;
    if let Staged::FellBack { why } = &staged {
        tell(why, &settings.dir);
    }
    Ok(staged)
}

/// Whether the program is about to end, or has gone wrong.
pub(super) fn is_urgent(subject: &Subject, cause: &Cause) -> bool {
    let ends = subject
        .settings
        .exit_signal
        .is_some_and(|exit| matches!(cause, Cause::Signal { signal } if *signal == exit.number()));
    ends || cause.is_forensic()
}

/// Whether what follows the dump is to leave the disk to everybody else. The program runs on meanwhile, and what is in
/// memory takes no place in the disk's queue that somebody waits for.
pub(super) fn is_at_leisure(subject: &Subject, staged: &Staged) -> bool {
    let is_in_memory = matches!(staged, Staged::Folder { .. } | Staged::Memory);
    is_in_memory && !subject.settings.encrypts()
}

/// Once, since it may be so at every checkpoint; the report of each has it.
pub(super) fn tell(why: &str, store: &Path) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!("checkpoints are written straight to {}, not by way of memory: {why}", store.display());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memory_of_a_program_counts_and_each_of_its_threads_is_a_file() {
        let tree = Tree { memory: Bytes(10), shared: Bytes(20), files: 3 };
        let wanted = tree.wanted(Bytes(5));
        assert_eq!((wanted.room, wanted.files), (Bytes(35 + (1 << 20)), 3));
        assert!(wanted.runs_programs && !tree.wanted(Bytes(0)).runs_programs);
        let of_this_process = Tree::look();
        assert!(of_this_process.files > FILES && of_this_process.memory > Bytes(0));
    }
}
