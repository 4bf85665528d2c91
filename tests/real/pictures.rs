//! `selfdump map` and `selfdump history`: pictures that say what they have to.

use std::fs;

use roxmltree::{Document, Node};

use crate::diff::changed;
use crate::harness::{Lab, succeeds};
use crate::show::{fails, said};

const BLUE: &str = "#3F7CBF";
const ORANGE: &str = "#E66A2C";

/// Draws into a file, and reads that.
fn drawn(lab: &Lab, arguments: &[&str]) -> String {
    let path = lab.path("picture.svg");
    succeeds(lab.selfdump(arguments).arg("-o").arg(&path));
    fs::read_to_string(path).unwrap()
}

/// The texts of a picture, each with its height.
fn texts(picture: &Document<'_>) -> Vec<(String, String)> {
    let texts = picture.descendants().filter(|node| node.has_tag_name("text"));
    let both = |node: Node<'_, '_>| Some((node.text()?.trim().to_owned(), node.attribute("y")?.to_owned()));
    texts.filter_map(both).collect()
}

fn count(picture: &Document<'_>, shape: &str, colour: &str) -> usize {
    let is_one = |node: &Node<'_, '_>| node.has_tag_name(shape) && node.attribute("fill") == Some(colour);
    picture.descendants().filter(is_one).count()
}

#[test]
fn a_map_tells_of_each_region_how_much_was_dumped_and_how_much_has_changed() {
    let lab = Lab::new();
    let program = changed(&lab);
    let said = said(&program);
    let picture = drawn(&lab, &["map", "shown"]);
    let picture = Document::parse(&picture).unwrap();
    let texts = texts(&picture);
    let has = |wanted: &str| texts.iter().any(|(text, _)| text.contains(wanted));
    for word in
        ["shown/", ": memory of", "changed since shown/", "stack of standing", "heap", "libc.so.6", "pause"]
    {
        assert!(has(word), "{word:?} is not in {texts:?}");
    }
    let address = format!("{:012x}", said["pages"]);
    let (_, height) = texts.iter().find(|(text, _)| *text == address).expect("the pages have a bar");
    let row: Vec<&str> = texts.iter().filter(|(_, y)| y == height).map(|(text, _)| text.as_str()).collect();
    assert_eq!(row, ["anonymous", &address, "256.0 KiB", "252.0 KiB", "12.0 KiB"]);
    assert!(count(&picture, "rect", BLUE) > 5 && count(&picture, "rect", ORANGE) > 5);

    let first = lab.checkpoints()[0].to_str().unwrap().to_owned();
    let picture = drawn(&lab, &["map", &first]);
    let picture = Document::parse(&picture).unwrap();
    assert_eq!(count(&picture, "rect", ORANGE), 0, "nothing was there before it");
    assert!(count(&picture, "rect", BLUE) > 5);
    fails(&lab, &["map", "shown", "-o", "/nowhere/map.svg"], &["can't write /nowhere/map.svg"]);
    fails(&lab, &["map", "shown", "-o", "-", "--pid", "1"], &["holds no process 1"]);
}

#[test]
fn a_history_has_a_point_for_each_checkpoint_in_each_of_its_panels() {
    let lab = Lab::new();
    drop(changed(&lab));
    let picture = String::from_utf8(lab.run(["history", "shown", "-o", "-"]).stdout).unwrap();
    let picture = Document::parse(&picture).unwrap();
    let texts = texts(&picture);
    let has = |wanted: &str| texts.iter().any(|(text, _)| text.contains(wanted));
    for word in ["shown: 2 checkpoints", "since 20", "size (", "pause: ", "duration: ", "ms)"] {
        assert!(has(word), "{word:?} is not in {texts:?}");
    }
    // One more stands in the legend.
    assert_eq!(count(&picture, "circle", BLUE), 3 * 2 + 1);
    assert_eq!(count(&picture, "circle", ORANGE), 0);

    let first = lab.checkpoints()[0].to_str().unwrap().to_owned();
    let alone = drawn(&lab, &["history", &first]);
    assert_eq!(count(&Document::parse(&alone).unwrap(), "circle", BLUE), 3 + 1);
    fails(&lab, &["history", "nobody", "-o", "-"], &["no checkpoints of nobody"]);
    fs::create_dir(lab.path("empty")).unwrap();
    fails(&lab, &["history", lab.path("empty").to_str().unwrap(), "-o", "-"], &["holds no checkpoint"]);
}
