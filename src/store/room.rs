//! How much room checkpoints take on the disk together: what they have in common takes it once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::frozen::Bytes;

/// What a checkpoint is made of: itself, and what it has in common with earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts(Vec<(PathBuf, Bytes)>);

impl Parts {
    /// Those of a checkpoint in a folder. Each level has the id of the checkpoint that it was stored with, which stood, or
    /// stands, in the same instance; in a copy of the store that is another one.
    pub(super) fn of(folder: &Path, own: Bytes, levels: impl IntoIterator<Item = (String, Bytes)>) -> Parts {
        let beside = |id: &str| folder.with_file_name(id.rsplit('/').next().unwrap_or(id));
        let levels = levels.into_iter().map(|(id, size)| (beside(&id), size));
        Parts(std::iter::once((folder.to_owned(), own)).chain(levels).collect())
    }
}

/// How many checkpoints have each part.
#[derive(Debug, Default)]
pub(crate) struct Room<'a> {
    holders: BTreeMap<&'a Path, (usize, Bytes)>,
}

impl<'a> Room<'a> {
    /// What these take.
    pub(crate) fn of(checkpoints: impl IntoIterator<Item = &'a Parts>) -> Room<'a> {
        let mut room = Room::default();
        for (place, size) in checkpoints.into_iter().flat_map(|parts| &parts.0) {
            let (count, most) = room.holders.entry(place).or_default();
            (*count, *most) = (*count + 1, Bytes(size.0.max(most.0)));
        }
        room
    }

    pub(crate) fn size(&self) -> Bytes {
        self.holders.values().map(|(_, size)| *size).sum()
    }

    /// Takes one away; how much is free then.
    pub(crate) fn without(&mut self, checkpoint: &Parts) -> Bytes {
        let mut freed = 0;
        for (place, _) in &checkpoint.0 {
            if let Some((count, size)) = self.holders.get_mut(place.as_path()) {
                *count -= 1;
                if *count == 0 {
                    freed += size.0;
                    self.holders.remove(place.as_path());
                }
            }
        }
        Bytes(freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_have_takes_room_once_and_until_the_last_goes() {
        let level = |number: u64, size| (format!("app/1-1/00000{number}"), Bytes(size));
        let place = |number: u64| PathBuf::from(format!("/elsewhere/00000{number}"));
        let parts = [
            Parts::of(&place(1), Bytes(1000), []),
            Parts::of(&place(2), Bytes(10), [level(1, 990)]),
            Parts::of(&place(3), Bytes(20), [level(1, 990), level(2, 9)]),
        ];
        let mut room = Room::of(&parts);
        assert_eq!(room.size(), Bytes(1030));
        assert_eq!(room.without(&parts[0]), Bytes(0), "others have it");
        assert_eq!(room.without(&parts[2]), Bytes(20));
        assert_eq!(room.without(&parts[1]), Bytes(1010));
        assert_eq!(room.size(), Bytes(0));
    }
}
