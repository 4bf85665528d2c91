//! A store that others have a hand in: nothing is written to it, and the error names path, owner, mode and remedy. Once
//! that is put right, the next checkpoint is made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::super::failures::asker::{Asker, Failure};
use super::{STRANGER, give_away, set_mode};
use crate::harness::Lab;

/// A folder of a store, by its depth: the store, a name's, an instance's.
fn folders(checkpoint: &Path) -> [PathBuf; 3] {
    let mut above = checkpoint.ancestors().skip(1).map(Path::to_owned);
    let (instance, name, store) = (above.next(), above.next(), above.next());
    [store, name, instance].map(|folder| folder.expect("a folder"))
}

/// Has a program fail as long as something is wrong with its store.
fn is_refused_while(wrong: &str, asker: &Asker<'_>, path: &Path, cause: &str, remedy: &str) {
    let cause = cause.replace("PATH", &path.display().to_string());
    let remedy = remedy.replace("PATH", &path.display().to_string());
    eprintln!("{wrong}: {cause}");
    asker.fails_without_a_store(&Failure { kind: "permission", cause: &cause, remedy: &remedy });
}

#[test]
fn a_store_that_is_another_user_s_or_that_others_can_write_to_is_refused() {
    let lab = Lab::new();
    let asker = Asker::plain(&lab, &[]);
    let all = folders(&asker.saves());
    for folder in &all {
        give_away(folder, STRANGER);
        let cause = format!("PATH is user {STRANGER}'s (mode 0700), and we are user 0");
        is_refused_while("another's", &asker, folder, &cause, "`chown 0 PATH`");
        give_away(folder, 0);
        asker.saves();
        set_mode(folder, 0o777);
        is_refused_while("for all", &asker, folder, "can write to PATH (mode 0777)", "`chmod go-w PATH`");
        set_mode(folder, 0o755);
        asker.saves();
        std::os::unix::fs::chown(folder, None, Some(STRANGER)).expect("root can");
        set_mode(folder, 0o2770);
        is_refused_while("a group's", &asker, folder, "can write to PATH (mode 2770)", "`chmod go-w PATH`");
        set_mode(folder, 0o2750);
        asker.saves();
        give_away(folder, 0);
    }
    asker.comes_back();
}

#[test]
fn a_folder_above_that_others_can_write_to_is_refused_unless_it_is_sticky() {
    let lab = Lab::new();
    let asker = Asker::plain(&lab, &[]);
    asker.saves();
    let above = lab.store().parent().expect("a folder").to_owned();
    set_mode(&above, 0o777);
    is_refused_while("above", &asker, &above, "can write to PATH (mode 0777)", "`chmod +t PATH`");
    set_mode(&above, 0o1777);
    asker.saves();
    // A store for everybody, in which each has a folder.
    set_mode(&lab.store(), 0o1777);
    asker.saves();
    set_mode(&above, 0o700);
    asker.comes_back();
}

#[test]
fn a_link_that_is_planted_in_the_place_of_a_folder_is_refused() {
    let lab = Lab::new();
    let asker = Asker::plain(&lab, &[]);
    let [store, name, instance] = folders(&asker.saves());
    let elsewhere = lab.path("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    for (folder, owner) in [(&store, STRANGER), (&name, 0), (&name, STRANGER), (&instance, 0)] {
        let aside = lab.path("aside");
        fs::rename(folder, &aside).expect("it is moved");
        symlink(&elsewhere, folder).expect("a link");
        give_away(folder, owner);
        let cause = format!("PATH is a symbolic link of user {owner}'s");
        is_refused_while("planted", &asker, folder, &cause, "`rm PATH`");
        fs::remove_file(folder).expect("the link");
        fs::rename(&aside, folder).expect("it is moved back");
        asker.saves();
    }
    assert_eq!(fs::read_dir(&elsewhere).expect("it is there").count(), 0, "nothing was written there");
    // A link of our own to a store is a store.
    fs::rename(&store, lab.path("moved")).expect("it is moved");
    symlink("moved", &store).expect("a link");
    asker.saves();
}

#[test]
fn links_that_lie_in_the_place_of_files_lead_nowhere() {
    let lab = Lab::new();
    let asker = Asker::plain(&lab, &[]);
    let first = asker.saves();
    let instance = first.parent().expect("its instance");
    let victim = lab.path("victim");
    fs::create_dir(&victim).expect("a folder");
    let file = victim.join("file");
    fs::write(&file, "untouched").expect("a file");
    let plant = |name: &str, target: &Path| {
        let _ = fs::remove_file(instance.join(name));
        symlink(target, instance.join(name)).expect("a link");
    };
    // The next draft, the next status, and what the link to the newest is made as.
    plant("000002.partial", &victim);
    plant("status.json", &file);
    plant("latest", &victim);
    plant("latest.new", &file);
    let outcome = asker.outcome(asker.asks());
    assert!(outcome.ends_with("/000003"), "the number of the planted draft is passed over: {outcome}");
    let is_link = |name: &str| instance.join(name).symlink_metadata().expect("it is there").is_symlink();
    assert!(!is_link("status.json"), "it was put in the place of the link");
    assert_eq!(fs::read_link(instance.join("latest")).expect("a link"), Path::new("000003"));
    assert_eq!(fs::read_to_string(&file).expect("the file"), "untouched");
    assert_eq!(fs::read_dir(&victim).expect("the folder").count(), 1);
}
