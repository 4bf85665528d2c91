//! Deleting checkpoints that somebody wants to be rid of, by count, age and size, but never the last good one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::draft;
use super::life::Here;
use super::listing::{self, Listed, State, Summary};
use super::retention::{self, Item, Kind};
use super::room::{Parts, Room};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;

/// What may stay. Without any limit all does, but drafts that a crash has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many of each instance; forensic ones are counted by themselves.
    pub keep: Option<u32>,
    /// None that is older.
    pub older_than: Option<Duration>,
    /// How much all may take together; the oldest go first.
    pub max_size: Option<Bytes>,
    /// Whether these are about the last good ones of instances that have ended as well, but for the newest of each program.
    pub ended: bool,
}

/// Why a checkpoint goes or stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// It stays: no limit is about it.
    WithinLimits,
    /// It stays: it is the last good one of its instance.
    LastOfInstance,
    /// It stays: it is the last good one of a program that may still run.
    LastOfLife,
    /// It stays: another one that stays builds on it.
    Needed,
    /// It stays: it is being written.
    BeingWritten,
    /// It stays: it is damaged, and not deleted unseen.
    Damaged,
    /// It goes: there are enough newer ones.
    BeyondCount,
    /// It goes for its age.
    TooOld,
    /// It goes for the size of all.
    TooLarge,
    /// It goes: a draft that a crash has left.
    Abandoned,
}

impl Reason {
    /// Whether it goes.
    pub fn goes(self) -> bool {
        matches!(self, Reason::BeyondCount | Reason::TooOld | Reason::TooLarge | Reason::Abandoned)
    }

    /// The reason for people.
    pub fn text(self) -> &'static str {
        match self {
            Reason::WithinLimits => "within the limits",
            Reason::LastOfInstance => "the last good one",
            Reason::LastOfLife => "the last good one of a running program",
            Reason::Needed => "another one builds on it",
            Reason::BeingWritten => "being written",
            Reason::Damaged => "damaged: look at it, and delete it by hand",
            Reason::BeyondCount => "more than --keep",
            Reason::TooOld => "older than --older-than",
            Reason::TooLarge => "more than --max-size together",
            Reason::Abandoned => "left by a crash",
        }
    }
}

/// What becomes of a checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fate {
    /// NAME/INSTANCE/NUMBER.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// When it was taken.
    pub taken: SystemTime,
    /// The size of its files, without what is those of earlier checkpoints as well.
    pub size: Bytes,
    parts: Parts,
    /// Whether it goes, and why.
    pub reason: Reason,
}

/// What would become of the checkpoints of a target, newest first, by these limits. A target is a NAME or an id in the
/// store, or a folder; none is all. Nothing is touched.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where there is no such target.
pub fn plan(store: &Path, target: Option<&Path>, limits: &Limits) -> Result<Vec<Fate>> {
    let listed = listing::list_for_good(store, target)?;
    if target.is_some() && listed.len() == 1 && listed[0].path == store.join(target.unwrap_or(store)) {
        return Err(Error::new(ErrorKind::NotFound, "one checkpoint has no older ones")
            .with_hint("name a program, an instance or a store: `selfdump prune NAME`"));
    }
    let here = Here::look().map_err(|source| Error::os("read /proc about this process", source))?;
    let items: Vec<Item> = listed.iter().map(|listed| item(listed, &here)).collect();
    let reasons = retention::sentence(&items, limits, SystemTime::now());
    let fates = listed.into_iter().zip(items).zip(reasons);
    Ok(fates
        .map(|((listed, item), reason)| Fate {
            id: listed.id,
            path: listed.path,
            taken: item.taken,
            size: item.size,
            parts: item.parts,
            reason,
        })
        .collect())
}

/// How much is free when a plan has been carried out that isn't now, and how much is taken then. What one that stays has in
/// common with one that goes stays.
pub fn sizes(plan: &[Fate]) -> (Bytes, Bytes) {
    let mut room = Room::of(plan.iter().map(|fate| &fate.parts));
    let going = plan.iter().filter(|fate| fate.reason.goes());
    let freed = going.map(|fate| room.without(&fate.parts)).sum();
    (freed, room.size())
}

/// Deletes what a plan says. What has gone by itself meanwhile is no failure.
///
/// # Errors
///
/// Where one can't be deleted; those before it are gone.
pub fn carry_out(plan: &[Fate]) -> Result<()> {
    plan.iter().filter(|fate| fate.reason.goes()).try_for_each(|fate| {
        match fate.reason {
            Reason::Abandoned => fs::remove_dir_all(&fate.path).or_else(gone),
            _ => draft::delete_folder(&fate.path).or_else(gone),
        }
        .map_err(|source| Error::io("delete", &fate.path, source))
    })
}

fn gone(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn item(listed: &Listed, here: &Here) -> Item {
    let life = listed.summary.as_ref().map(|summary| &summary.life);
    let kind = match listed.state {
        State::Good => Kind::Good,
        State::Forensic => Kind::Forensic,
        State::Damaged(_) => Kind::Damaged,
        State::Partial { .. } => Kind::Draft,
    };
    let is_over = match listed.state {
        State::Partial { is_abandoned } => is_abandoned,
        _ => life.is_some_and(|life| here.is_over(life)),
    };
    Item {
        id: listed.id.clone(),
        // Where the folder stands counts: a copy of a store is another one.
        program: above(&above(&listed.path)),
        instance: above(&listed.path),
        life: life.map(|life| life.id.clone()).unwrap_or_default(),
        is_over,
        kind,
        taken: listed.taken.unwrap_or(SystemTime::UNIX_EPOCH),
        size: listed.summary.as_ref().map_or(Bytes(0), |summary: &Summary| summary.size),
        parts: listed.parts(),
        parent: listed.summary.as_ref().and_then(|summary| summary.parent.clone()),
    }
}

fn above(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}
