//! Copies that nobody has asked for by name: of what a program has open to write in it, as `selfdump run` has them made.

use super::*;
use crate::harness::selfdump;

/// `writer` with this way to write, checkpointed with a spare copy of its file, gone on, and killed.
fn killed_writer_with_a_spare(lab: &Lab, how: &str, file: &Path) {
    let writer = lab.program("writer").arg(how).arg(file).env("SELFDUMP_COPY_OPEN", "1 MiB").start();
    checkpoint(lab, &writer, file);
    assert_eq!(only_copy(lab).0["spare"], true);
    let then = fs::metadata(file).unwrap().modified().unwrap();
    eventually("it writes on", || (fs::metadata(file).unwrap().modified().unwrap() > then).then_some(()));
    writer.crash();
}

#[test]
fn a_file_that_only_grew_is_cut_back_though_there_is_a_spare_copy() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    killed_writer_with_a_spare(&lab, "plain", &file);
    let before = fs::read(&file).unwrap();
    let back = bring_back_with(&lab, "writer", &["--stopped"]);
    let (back, report) = (back.program, back.report);
    assert_eq!(action_on(&report, &file), "rewind");
    let (_, then) = only_copy(&lab);
    assert_eq!(fs::read(&file).unwrap(), then);
    let cut = PathBuf::from(report["cut"].as_str().unwrap());
    assert_eq!(fs::read(cut.join("1-out.txt")).unwrap(), before[then.len()..], "only the tail is kept");
    back.crash();
}

#[test]
fn a_rewritten_a_replaced_and_a_deleted_file_come_back_from_their_spare_copy() {
    let lab = Lab::new();
    let file = lab.path("state.bin");
    killed_writer_with_a_spare(&lab, "in-place", &file);
    comes_back_with(&lab, &file);
    fs::rename(&file, lab.path("aside")).unwrap();
    fs::write(&file, "another file, and a long one\n".repeat(100)).unwrap();
    comes_back_with(&lab, &file);
    fs::remove_file(&file).unwrap();
    comes_back_with(&lab, &file);
}

/// A checkpoint of `writer` without a copy, though spare ones are wanted up to this size.
fn is_saved_without_a_copy(lab: &Lab, limit: &str) {
    let file = lab.path("out.txt");
    let writer = lab.program("writer").arg("plain").arg(&file).env("SELFDUMP_COPY_OPEN", limit).start();
    let checkpoint = checkpoint(lab, &writer, &file);
    assert_eq!(manifest(&checkpoint)["copies"].as_array().unwrap().len(), 0);
}

#[test]
fn a_checkpoint_does_without_a_spare_copy_that_is_too_large() {
    is_saved_without_a_copy(&Lab::new(), "10");
}

#[test]
fn a_checkpoint_does_without_spare_copies_where_no_script_can_be_run() {
    let lab = Lab::new();
    let disk = Disk::of(&lab, 64);
    disk.runs_no_programs();
    is_saved_without_a_copy(&lab, "1 MiB");
}

#[test]
fn a_runner_has_them_made() {
    let lab = Lab::new();
    let file = lab.path("state.bin");
    let mut command = selfdump();
    command.args(["run", "--"]).arg(program("writer")).arg("in-place").arg(&file);
    let run = lab.launch(command, "writer").start();
    let newest = checkpoint(&lab, &run, &file);
    let (copy, then) = only_copy(&lab);
    assert_eq!((&copy["path"], &copy["spare"]), (&file.to_str().unwrap().into(), &true.into()));
    let writer = Alone::new(manifest(&newest)["life"]["pid"].as_i64().unwrap() as i32);
    fs::remove_file(&file).unwrap();
    writer.signal(KILL);
    let now = eventually("the file, back", || fs::read_to_string(&file).ok().filter(|text| text.len() == 21));
    let count = |text: &str| text.trim().parse::<u64>().unwrap();
    assert!(count(&now) >= count(std::str::from_utf8(&then).unwrap()), "it went on where it was: {now}");
}
