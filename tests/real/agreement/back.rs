//! Images are read and written back, and are the same files then, byte by byte.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use selfdump::inspect::rewrite;

/// Writes back every image of a folder. Which kinds were among them: the names without their numbers.
pub fn written_back(folder: &Path) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder of images").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().into_string().expect("a name of CRIU's");
        // Neither CRIU's log nor the link to the images below is one.
        if name.ends_with(".log") || !entry.file_type().expect("a type").is_file() {
            continue;
        }
        is_the_same(&entry.path(), &name);
        kinds.insert(kind(&name));
    }
    kinds
}

fn is_the_same(path: &Path, name: &str) {
    let mut back = Vec::new();
    let image = File::open(path).expect("an image");
    let rewritten = rewrite(name, image, &mut back).unwrap_or_else(|error| panic!("{error:?}"));
    let rewritten = rewritten.unwrap_or_else(|| panic!("{name} is of a kind that isn't read"));
    let unequal: Vec<String> = rewritten.unequal.iter().map(ToString::to_string).collect();
    assert_eq!(unequal, Vec::<String>::new());
    // The word of the library isn't taken for it.
    let original = fs::read(path).expect("an image");
    let differs = || original.iter().zip(&back).position(|(one, other)| one != other);
    assert!(
        back == original,
        "{name} differs at {:?}, {} bytes of {}",
        differs(),
        back.len(),
        original.len()
    );
}

/// `core` of `core-7.img`.
fn kind(name: &str) -> String {
    let stem = name.split('.').next().unwrap_or_default();
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match stem.rsplit_once('-') {
        Some((kind, last)) if number(last) => kind.to_owned(),
        _ => stem.to_owned(),
    }
}
