//! A real dump in which one image is replaced: all of it is read and checked, or refused.
//!
//! SELFDUMP_FUZZ_DUMP names the folder of the checkpoint, which is written to: `cargo xtask fuzz` makes one in memory.
//! The first byte of the input says which image is replaced.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use selfdump::inspect::{self, Inside};
use selfdump::{Entry, restore};

struct Dump {
    entry: Entry,
    /// Each image with what stands in it.
    images: Vec<(PathBuf, Vec<u8>)>,
    options: restore::Options,
}

static DUMP: OnceLock<Dump> = OnceLock::new();

fn dump() -> Dump {
    let folder = PathBuf::from(std::env::var_os("SELFDUMP_FUZZ_DUMP").expect("SELFDUMP_FUZZ_DUMP"));
    let (store, options) = restore::from_environment(None).expect("settings");
    let entry = restore::find(&store, Some(&folder)).expect("a checkpoint").remove(0);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder.join("images")).expect("images").map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| !path.to_string_lossy().contains("pages-"));
    paths.sort();
    let images = paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("an image"))).collect();
    Dump { entry, images, options }
}

fuzz_target!(|input: &[u8]| {
    let Dump { entry, images, options } = DUMP.get_or_init(dump);
    let Some((which, image)) = input.split_first() else { return };
    let (path, original) = &images[usize::from(*which) % images.len()];
    fs::write(path, image).expect("the folder is ours");
    let _ = Inside::of(entry);
    let verification = inspect::verify(entry, options);
    assert!(image == original.as_slice() || !verification.is_good());
    fs::write(path, original).expect("the folder is ours");
});
