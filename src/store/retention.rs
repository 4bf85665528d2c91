//! Which checkpoints go when a new one has come: a pure function.

use std::collections::BTreeSet;

/// What retention has to know of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) number: u64,
    /// It was written by this life, or by one that is over.
    pub(super) ours: bool,
    /// The checkpoint that it builds on.
    pub(super) parent: Option<u64>,
}

/// The numbers of the checkpoints that go: of ours, all but the newest `keep`, and none that one which
/// stays builds on. Those of a life that may still go on are left alone and not counted.
pub(super) fn expired(candidates: &[Candidate], keep: u32) -> Vec<u64> {
    let mut ours: Vec<u64> = candidates.iter().filter(|candidate| candidate.ours).map(|c| c.number).collect();
    ours.sort_unstable_by(|a, b| b.cmp(a));
    let going: BTreeSet<u64> = ours.into_iter().skip(keep.max(1) as usize).collect();
    let needed = needed(candidates, &going);
    going.into_iter().filter(|number| !needed.contains(number)).collect()
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
        Candidate { number, ours: true, parent: None }
    }

    #[test]
    fn the_newest_stay() {
        let candidates: Vec<_> = [4, 2, 5, 1, 3].map(plain).to_vec();
        assert_eq!(expired(&candidates, 3), [1, 2]);
        assert!(expired(&candidates, 5).is_empty());
        assert!(expired(&candidates, 99).is_empty());
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
