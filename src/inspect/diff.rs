//! What is different between two checkpoints: memory page by page, threads, descriptors.

mod memory;

use std::collections::BTreeMap;

use serde::Serialize;

pub use memory::{MappingChange, MappingDifference};

use super::{Inside, Process, Thread};
use crate::error::Result;
use crate::frozen;
use crate::store::catalogue::Entry;

/// What is different between two checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// Each process of both, by its process id.
    pub processes: Vec<ProcessDifference>,
}

/// What is different in a process. Of one that came or went nothing more is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProcessDifference {
    /// Its process id.
    pub pid: i32,
    /// Its name in the later checkpoint that has it.
    pub name: String,
    /// Whether both have it.
    pub change: Change,
    /// The mappings in which something is different, by address.
    pub memory: Vec<MappingDifference>,
    /// The threads that are different, by id.
    pub threads: Vec<ThreadDifference>,
    /// The descriptors that are different, by number.
    pub descriptors: Vec<DescriptorDifference>,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// Only the later checkpoint has it.
    Came,
    /// Only the earlier one has it.
    Went,
    /// Both have it.
    Stayed,
}

/// A thread that came, went, or stands somewhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ThreadDifference {
    /// Its id.
    pub tid: i32,
    /// Its name in the later checkpoint that has it.
    pub name: String,
    /// Whether both have it.
    pub change: Change,
    /// Where it stood.
    pub before: Option<u64>,
    /// Where it stands.
    pub after: Option<u64>,
}

/// A descriptor that came, went, or is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DescriptorDifference {
    /// Its number.
    pub fd: i32,
    /// What became of it.
    pub change: DescriptorChange,
    /// What it was.
    pub before: Option<frozen::Descriptor>,
    /// What it is.
    pub after: Option<frozen::Descriptor>,
}

/// What became of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DescriptorChange {
    /// It was opened.
    Came,
    /// It was closed.
    Went,
    /// It refers to something else.
    Replaced,
    /// It is the same file, under another name.
    Renamed,
    /// It is the same file, and its position, its size or its flags are others.
    Moved,
}

/// Compares two checkpoints, page by page where both have one; neither is held in memory. Processes, threads and
/// descriptors are the same where their numbers are.
///
/// # Errors
///
/// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) where an image or a manifest can't be read.
pub fn diff(earlier: &Entry, later: &Entry) -> Result<Difference> {
    let [before, after] = [processes(earlier)?, processes(later)?];
    let processes = pairs(before, after).map(|(pid, change, before, after)| {
        let name =
            after.as_ref().or(before.as_ref()).map_or_else(String::new, |(process, _)| process.name.clone());
        let mut difference = ProcessDifference {
            pid,
            name,
            change,
            memory: Vec::new(),
            threads: Vec::new(),
            descriptors: Vec::new(),
        };
        if let (Some((before, was_open)), Some((after, is_open))) = (before, after) {
            difference.memory = memory::diff((earlier, &before), (later, &after))?;
            difference.threads = threads(before.threads, after.threads);
            difference.descriptors = descriptors(was_open, is_open);
        }
        Ok(difference)
    });
    Ok(Difference { processes: processes.collect::<Result<_>>()? })
}

/// What is in the images of each process, and what the manifest has of its descriptors: which files they were.
fn processes(entry: &Entry) -> Result<BTreeMap<i32, (Process, Vec<frozen::Descriptor>)>> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let open_in = |pid| manifest.processes.iter().find(|process| process.pid == pid);
    let with_files = |process: Process| {
        let open = open_in(process.pid).map(|known| known.descriptors.clone()).unwrap_or_default();
        (process.pid, (process, open))
    };
    Ok(Inside::of(entry)?.processes.into_iter().map(with_files).collect())
}

/// What has the same number in both, by number.
fn pairs<T>(
    mut before: BTreeMap<i32, T>,
    mut after: BTreeMap<i32, T>,
) -> impl Iterator<Item = (i32, Change, Option<T>, Option<T>)> {
    let mut numbers: Vec<i32> = before.keys().chain(after.keys()).copied().collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.into_iter().map(move |number| {
        let (before, after) = (before.remove(&number), after.remove(&number));
        let change = match (&before, &after) {
            (None, _) => Change::Came,
            (_, None) => Change::Went,
            _ => Change::Stayed,
        };
        (number, change, before, after)
    })
}

fn threads(before: Vec<Thread>, after: Vec<Thread>) -> Vec<ThreadDifference> {
    let by_id = |threads: Vec<Thread>| threads.into_iter().map(|thread| (thread.tid, thread)).collect();
    let all = pairs::<Thread>(by_id(before), by_id(after)).map(|(tid, change, before, after)| {
        let name = after.as_ref().or(before.as_ref()).map_or_else(String::new, |thread| thread.name.clone());
        let place = |thread: Option<Thread>| thread.map(|thread| thread.registers.instruction_pointer());
        ThreadDifference { tid, name, change, before: place(before), after: place(after) }
    });
    all.filter(|thread| thread.before != thread.after).collect()
}

fn descriptors(before: Vec<frozen::Descriptor>, after: Vec<frozen::Descriptor>) -> Vec<DescriptorDifference> {
    let by_number = |open: Vec<frozen::Descriptor>| open.into_iter().map(|open| (open.fd, open)).collect();
    let all = pairs::<frozen::Descriptor>(by_number(before), by_number(after));
    let different = all.filter(|(_, _, before, after)| before != after);
    let told = different.map(|(fd, change, before, after)| {
        let change = match (change, &before, &after) {
            (Change::Came, ..) => DescriptorChange::Came,
            (_, Some(before), Some(after)) => became(before, after),
            _ => DescriptorChange::Went,
        };
        DescriptorDifference { fd, change, before, after }
    });
    told.collect()
}

/// Both tell which file it is only where it was there by its name; else the name has to do.
fn became(before: &frozen::Descriptor, after: &frozen::Descriptor) -> DescriptorChange {
    let same_file = match (before.identity, after.identity) {
        (Some(before), Some(after)) => before == after,
        _ => before.path == after.path,
    };
    match same_file && before.kind == after.kind {
        false => DescriptorChange::Replaced,
        true if before.path != after.path => DescriptorChange::Renamed,
        true => DescriptorChange::Moved,
    }
}
