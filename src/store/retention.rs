//! Which checkpoints go when a new one has come: a pure function.

use std::collections::BTreeSet;

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
}
