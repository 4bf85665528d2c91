//! Which checkpoints go, when a new one has come ([`expired`]), or because somebody wants to be rid of them ([`sentence`]):
//! pure functions.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::prune::{Limits, Reason};
use super::room::{Parts, Room};
use crate::frozen::Bytes;

/// What retention has to know of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) number: u64,
    /// It was written by this life, or by one that is over.
    pub(super) ours: bool,
    /// It is counted apart from those that a program can go on from.
    pub(super) forensic: bool,
    /// The checkpoint that it builds on.
    pub(super) parent: Option<u64>,
}

/// How many checkpoints of each kind stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    pub(crate) ordinary: u32,
    pub(crate) forensic: u32,
}

/// The numbers of the checkpoints that go: of ours, all but the newest of each kind, and none that one which
/// stays builds on. Those of a life that may still go on are left alone and not counted.
pub(super) fn expired(candidates: &[Candidate], keep: Keep) -> Vec<u64> {
    let going: BTreeSet<u64> = [(false, keep.ordinary), (true, keep.forensic)]
        .into_iter()
        .flat_map(|(forensic, keep)| beyond(candidates, forensic, keep))
        .collect();
    let needed = needed(candidates, &going);
    going.into_iter().filter(|number| !needed.contains(number)).collect()
}

/// Ours of one kind, without the newest `keep`.
fn beyond(candidates: &[Candidate], forensic: bool, keep: u32) -> Vec<u64> {
    let ours = candidates.iter().filter(|candidate| candidate.ours && candidate.forensic == forensic);
    let mut numbers: Vec<u64> = ours.map(|candidate| candidate.number).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.split_off((keep.max(1) as usize).min(numbers.len()))
}

/// All that a checkpoint which stays builds on, at any distance.
fn needed(candidates: &[Candidate], going: &BTreeSet<u64>) -> BTreeSet<u64> {
    let parent_of = |number: u64| candidates.iter().find(|candidate| candidate.number == number)?.parent;
    let mut needed = BTreeSet::new();
    for candidate in candidates.iter().filter(|candidate| !going.contains(&candidate.number)) {
        let mut ancestor = candidate.parent;
        while let Some(number) = ancestor.filter(|&number| needed.insert(number)) {
            ancestor = parent_of(number);
        }
    }
    needed
}

/// What is asked about a checkpoint that somebody may want to be rid of.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// NAME/INSTANCE/NUMBER.
    pub(super) id: String,
    /// The folder of its program, and that of its instance.
    pub(super) program: PathBuf,
    pub(super) instance: PathBuf,
    /// The life that wrote it.
    pub(super) life: String,
    /// That life is over for certain.
    pub(super) is_over: bool,
    pub(super) kind: Kind,
    pub(super) taken: SystemTime,
    pub(super) size: Bytes,
    pub(super) parts: Parts,
    /// The checkpoint that it builds on.
    pub(super) parent: Option<String>,
}

/// What a folder is that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program can go on from it.
    Good,
    Forensic,
    Damaged,
    /// A draft whose writer may be at work.
    Draft,
}

impl Kind {
    fn is_whole(self) -> bool {
        matches!(self, Kind::Good | Kind::Forensic)
    }
}

/// What becomes of each, and why: those that limits are about go, but for the last good one of an instance and of a
/// life that may go on, and for what one that stays builds on. `items` are newest first.
pub(super) fn sentence(items: &[Item], limits: &Limits, now: SystemTime) -> Vec<Reason> {
    let mut fates: Vec<Reason> = (0..items.len()).map(|at| by_itself(items, at, limits, now)).collect();
    keep_what_is_needed(items, &mut fates);
    if let Some(most) = limits.max_size {
        shrink(items, &mut fates, most);
    }
    fates
}

/// What becomes of one for its count and its age.
fn by_itself(items: &[Item], at: usize, limits: &Limits, now: SystemTime) -> Reason {
    let item = &items[at];
    let newer = || items[..at].iter().filter(|newer| newer.kind == item.kind);
    match item.kind {
        Kind::Draft if item.is_over => return Reason::Abandoned,
        Kind::Draft => return Reason::BeingWritten,
        Kind::Damaged => return Reason::Damaged,
        Kind::Good if newer().all(|newer| newer.instance != item.instance) => {
            let is_newest = newer().all(|newer| newer.program != item.program);
            if is_newest || !item.is_over || !limits.ended {
                return Reason::LastOfInstance;
            }
        }
        Kind::Good if !item.is_over && newer().all(|newer| newer.life != item.life) => {
            return Reason::LastOfLife;
        }
        Kind::Good | Kind::Forensic => {}
    }
    let before = newer().filter(|newer| newer.instance == item.instance).count();
    let age = now.duration_since(item.taken).unwrap_or(Duration::ZERO);
    match (limits.keep, limits.older_than) {
        (Some(keep), _) if before >= keep as usize => Reason::BeyondCount,
        (_, Some(oldest)) if age > oldest => Reason::TooOld,
        _ => Reason::WithinLimits,
    }
}

/// Takes back what those that stay build on, at any distance.
fn keep_what_is_needed(items: &[Item], fates: &mut [Reason]) {
    let mut needed: HashSet<&str> = HashSet::new();
    for item in items.iter().zip(fates.iter()).filter(|(_, fate)| !fate.goes()).map(|(item, _)| item) {
        let mut ancestor = item.parent.as_deref();
        while let Some(id) = ancestor.filter(|&id| needed.insert(id)) {
            ancestor = items.iter().find(|item| item.id == id).and_then(|item| item.parent.as_deref());
        }
    }
    for (item, fate) in items.iter().zip(fates).filter(|(item, _)| needed.contains(item.id.as_str())) {
        if fate.goes() || *fate == Reason::WithinLimits {
            debug_assert!(item.kind.is_whole() || item.kind == Kind::Damaged);
            *fate = Reason::Needed;
        }
    }
}

/// Has the oldest of those that may go, until what stays fits.
fn shrink(items: &[Item], fates: &mut [Reason], most: Bytes) {
    let staying = items.iter().zip(fates.iter()).filter(|(_, fate)| !fate.goes());
    let mut room = Room::of(staying.map(|(item, _)| &item.parts));
    let mut total = room.size();
    for (item, fate) in items.iter().zip(fates).rev() {
        if total <= most {
            return;
        }
        if *fate == Reason::WithinLimits {
            *fate = Reason::TooLarge;
            total = Bytes(total.0 - room.without(&item.parts).0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(number: u64) -> Candidate {
        Candidate { number, ours: true, forensic: false, parent: None }
    }

    fn expired(candidates: &[Candidate], keep: u32) -> Vec<u64> {
        super::expired(candidates, Keep { ordinary: keep, forensic: 1 })
    }

    #[test]
    fn the_newest_stay() {
        let candidates: Vec<_> = [4, 2, 5, 1, 3].map(plain).to_vec();
        assert_eq!(expired(&candidates, 3), [1, 2]);
        assert!(expired(&candidates, 5).is_empty());
        assert!(expired(&candidates, 99).is_empty());
    }

    #[test]
    fn forensic_ones_are_counted_by_themselves() {
        let forensic = |number| Candidate { forensic: true, ..plain(number) };
        let candidates = [plain(1), forensic(2), forensic(3), plain(4), forensic(5), plain(6)];
        let keep = |ordinary, forensic| super::expired(&candidates, Keep { ordinary, forensic });
        assert_eq!(keep(3, 1), [2, 3]);
        assert_eq!(keep(1, 2), [1, 2, 4]);
        assert!(keep(3, 3).is_empty());
    }

    #[test]
    fn the_last_one_never_goes() {
        assert!(expired(&[plain(1)], 0).is_empty());
    }

    #[test]
    fn another_life_that_may_go_on_keeps_all_of_its_own() {
        let theirs = |number| Candidate { ours: false, ..plain(number) };
        let candidates = [plain(1), theirs(2), plain(3), theirs(4), plain(5)];
        assert_eq!(expired(&candidates, 1), [1, 3]);
    }

    #[test]
    fn what_another_builds_on_stays_at_any_distance() {
        let on = |number, parent| Candidate { parent: Some(parent), ..plain(number) };
        assert!(expired(&[plain(1), on(2, 1), on(3, 2), plain(4), plain(5)], 3).is_empty());
        assert_eq!(expired(&[plain(1), on(2, 1), plain(3), plain(4), plain(5)], 3), [1, 2]);
    }

    /// Checkpoints of one instance and one life that is over, newest first, an hour and a KiB each.
    fn items(count: u64) -> Vec<Item> {
        let item = |number: u64| Item {
            id: format!("app/1-1/{number}"),
            program: "app".into(),
            instance: "app/1-1".into(),
            life: "first".into(),
            is_over: true,
            kind: Kind::Good,
            taken: SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * number),
            size: Bytes(1024),
            parts: Parts::of(&PathBuf::from(format!("app/1-1/{number}")), Bytes(1024), []),
            parent: None,
        };
        (1..=count).rev().map(item).collect()
    }

    fn sentenced(items: &[Item], limits: Limits) -> Vec<Reason> {
        let newest = items.iter().map(|item| item.taken).max().unwrap();
        sentence(items, &limits, newest)
    }

    const NONE: Limits = Limits { keep: None, older_than: None, max_size: None, ended: false };

    #[test]
    fn each_limit_takes_the_oldest_and_leaves_the_last() {
        use Reason::{BeyondCount, LastOfInstance, TooLarge, TooOld, WithinLimits};
        let four = items(4);
        let keep = |keep| Limits { keep: Some(keep), ..NONE };
        assert_eq!(sentenced(&four, keep(2)), [LastOfInstance, WithinLimits, BeyondCount, BeyondCount]);
        assert_eq!(sentenced(&four, keep(0)), [LastOfInstance, BeyondCount, BeyondCount, BeyondCount]);
        let old = Limits { older_than: Some(Duration::from_secs(2 * 3600)), ..NONE };
        assert_eq!(sentenced(&four, old), [LastOfInstance, WithinLimits, WithinLimits, TooOld]);
        let large = |size| Limits { max_size: Some(Bytes(size)), ..NONE };
        assert_eq!(sentenced(&four, large(2048)), [LastOfInstance, WithinLimits, TooLarge, TooLarge]);
        assert_eq!(sentenced(&four, large(0)), [LastOfInstance, TooLarge, TooLarge, TooLarge]);
    }

    #[test]
    fn damaged_ones_and_drafts_count_for_nothing() {
        use Reason::{Abandoned, BeingWritten, BeyondCount, Damaged, LastOfInstance};
        let mut four = items(4);
        four[0].kind = Kind::Damaged;
        let keep = Limits { keep: Some(1), ..NONE };
        assert_eq!(sentenced(&four, keep), [Damaged, LastOfInstance, BeyondCount, BeyondCount]);
        four[0].kind = Kind::Draft;
        assert_eq!(sentenced(&four, keep)[0], Abandoned);
        four[0].is_over = false;
        assert_eq!(sentenced(&four, keep)[0], BeingWritten);
    }

    #[test]
    fn what_others_build_on_and_the_last_of_a_life_that_goes_on_stay() {
        use Reason::{BeyondCount, LastOfInstance, LastOfLife, Needed};
        let keep = Limits { keep: Some(1), max_size: Some(Bytes(0)), ..NONE };
        let mut four = items(4);
        four[0].parent = Some("app/1-1/2".into());
        four[2].parent = Some("app/1-1/1".into());
        assert_eq!(sentenced(&four, keep), [LastOfInstance, BeyondCount, Needed, Needed]);
        let mut four = items(4);
        four[2].life = "a copy elsewhere".into();
        four[2].is_over = false;
        assert_eq!(sentenced(&four, keep), [LastOfInstance, BeyondCount, LastOfLife, BeyondCount]);
        four[3].instance = "app/2-2".into();
        assert_eq!(sentenced(&four, keep)[3], LastOfInstance);
        assert_eq!(sentenced(&four, Limits { ended: true, ..keep })[3], Reason::TooLarge);
        four[3].is_over = false;
        assert_eq!(sentenced(&four, Limits { ended: true, ..keep })[3], LastOfInstance);
    }
}
