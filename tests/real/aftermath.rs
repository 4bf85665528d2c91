//! What a crash leaves in a store, seen from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use selfdump::restore::{find, newest_good};

use crate::harness::Lab;

/// The drafts in a lab's store.
pub fn drafts(lab: &Lab) -> Vec<PathBuf> {
    let instances = folders(&lab.store()).into_iter().flat_map(|program| folders(&program));
    let all = instances.flat_map(|instance| folders(&instance));
    all.filter(|folder| folder.extension().is_some_and(|extension| extension == "partial")).collect()
}

pub fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

/// A draft whose owner is not written down yet may be another's that is just being made, for a minute: this
/// lets it pass.
pub fn age(draft: &Path) {
    let folder = fs::File::open(draft).expect("a draft");
    folder.set_modified(SystemTime::now() - Duration::from_secs(120)).expect("an older time");
}

/// The processes that have a file of the lab's store open; a program has none, but CRIU has while it dumps.
pub fn holders(lab: &Lab) -> Vec<PathBuf> {
    let store = fs::canonicalize(lab.store()).expect("a store");
    let holds = |process: &PathBuf| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| target.starts_with(&store))
    };
    fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path()).filter(holds).collect()
}

/// Drafts are no checkpoints for anybody who looks, and each checkpoint is all there.
pub fn assert_everything_committed_is_whole(lab: &Lab, after: &str) {
    let mut passed_over = Vec::new();
    let newest =
        newest_good(&lab.store(), None, &mut |entry, error| passed_over.push((entry.id(), error.chain())));
    assert!(passed_over.is_empty(), "after {after}: {passed_over:?}");
    let mut committed = lab.checkpoints();
    let entries = find(&lab.store(), None).expect("a store");
    assert_eq!(newest.expect("a checkpoint").path, *committed.last().expect("a checkpoint"));
    let mut listed: Vec<PathBuf> = entries.iter().map(|entry| entry.path.clone()).collect();
    committed.sort();
    listed.sort();
    assert_eq!(listed, committed);
    for entry in entries {
        entry.verify().unwrap_or_else(|error| panic!("after {after}: {error:?}"));
    }
}
