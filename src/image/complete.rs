//! Makes the images of a process out of those of its copy.
//!
//! A copy of a process was made in a moment, by a thread of it that has become the copy's only one, and CRIU has dumped
//! the copy. Its memory is that of the process at that moment. What it doesn't show was noted ([`Moment`]): other
//! threads, what belongs to one process and not to another (its ids, timers, locks, signals that wait for it), and what
//! the copy shares with the process, which has gone on: how far open files are read, what is in pipes.
//!
//! All is written in the form in which CRIU writes it itself. An image that holds more than is known here is refused,
//! since that would be lost. New files are written aside, and take their places when all has been read; images of which
//! that fails are of no use.

mod draft;
mod files;
mod info;
mod locks;
mod pipes;
mod registers;
mod threads;

use std::path::Path;
use std::time::Duration;

use draft::Draft;

use super::images::{ObjectIds, Stats, TerminalInfo, TreeItem};
use super::kind::{Image, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::snapshot::moment::Moment;

/// The images that a process has one of each, named for it, but for those of its threads.
const OF_A_PROCESS: [Kind; 4] = [Kind::Ids, Kind::Memory, Kind::Pagemap, Kind::Place];

/// How long the process was held up when it was copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// How long it took to stop every thread.
    pub(crate) freezing: Duration,
    /// How long they were stopped.
    pub(crate) frozen: Duration,
}

/// Makes images of the process `copy` into those of the process that it was copied from. The descriptor `leash` is the
/// copy's alone.
pub(crate) fn complete(images: &Path, copy: i32, leash: i32, moment: &Moment, pause: Pause) -> Result<()> {
    let (copy, pid) = (number(copy)?, number(moment.pid)?);
    let mut draft = Draft::of(images);
    tree(&mut draft, copy, moment)?;
    threads::split(&mut draft, copy, moment)?;
    let ids: ObjectIds = draft.read_one(Image::of(Kind::Ids, copy))?;
    let open = files::complete(&mut draft, ids.files_id, leash, moment)?;
    pipes::refill(&mut draft, &open)?;
    locks::note(&mut draft, moment.pid, &open)?;
    terminals(&mut draft, copy, pid)?;
    account(&mut draft, pause)?;
    for kind in OF_A_PROCESS {
        draft.rename(Image::of(kind, copy), Image::of(kind, pid))?;
    }
    draft.finish()
}

/// The tree of processes, which is one process.
fn tree(draft: &mut Draft, copy: u32, moment: &Moment) -> Result<()> {
    let items: Vec<TreeItem> = draft.read(Image::TREE)?;
    let [item] = &*items else {
        return Err(draft.damaged(Image::TREE, format!("it has {} processes, not one", items.len())));
    };
    if item.pid != copy || item.threads != [copy] {
        return Err(draft.damaged(Image::TREE, format!("it isn't of process {copy}, with one thread")));
    }
    let item = TreeItem {
        pid: number(moment.pid)?,
        pgid: number(moment.process_group)?,
        sid: number(moment.session)?,
        threads: moment.threads.iter().map(|thread| number(thread.tid)).collect::<Result<_>>()?,
        ..item.clone()
    };
    draft.write(Image::TREE, &[item])
}

/// Terminals name whose they are.
fn terminals(draft: &mut Draft, copy: u32, pid: u32) -> Result<()> {
    let image = Image::of(Kind::TerminalInfo, 0_u32);
    if !draft.has(image) {
        return Ok(());
    }
    let whose = |id: u32| if id == copy { pid } else { id };
    let read: Vec<TerminalInfo> = draft.read(image)?;
    let terminals = read.into_iter().map(|terminal| TerminalInfo {
        sid: whose(terminal.sid),
        pgrp: whose(terminal.pgrp),
        ..terminal
    });
    draft.write(image, &terminals.collect::<Vec<_>>())
}

/// CRIU's account: how long the copy stood still is nothing that the program noticed.
fn account(draft: &mut Draft, pause: Pause) -> Result<()> {
    let image = Image::DUMP_STATS;
    let mut stats: Stats = draft.read_one(image)?;
    let dump = stats.dump.as_mut().ok_or_else(|| draft.damaged(image, "it isn't about a dump"))?;
    (dump.freezing_time, dump.frozen_time) = (micros(pause.freezing), micros(pause.frozen));
    draft.write(image, &[stats])
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// The id of a process as images have it.
fn number(id: i32) -> Result<u32> {
    u32::try_from(id).map_err(|_| senseless(format!("{id} is no process id")))
}

/// What was noted can't be.
fn senseless(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Dump, format!("what was noted when the process was copied makes no sense: {what}"))
}

#[cfg(test)]
mod tests;
