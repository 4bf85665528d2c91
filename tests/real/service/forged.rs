//! Images that nobody gets back by the service.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::restores::{checkpoint, output};
use super::words::{hear, number, send as say, text, with_message};
use super::{ONE, OTHER, Served, names};
use crate::chain::follow;
use crate::harness::eventually;

/// RESTORE with what the library tells, and a folder.
fn asked(images: &Path, options: &[u8]) -> Vec<String> {
    vec![with_message(&restore_of(options), &[images]), hear()]
}

fn restore_of(options: &[u8]) -> Vec<u8> {
    [number(1, 2), text(2, [number(1, u64::MAX), options.to_vec()].concat())].concat()
}

fn good() -> Vec<u8> {
    [number(7, 1), number(26, 1)].concat()
}

/// A copy of images, with their user's files.
fn copy(served: &Served, user: u32, images: &Path, name: &str) -> PathBuf {
    let to = served.images(user, name);
    for file in names(images) {
        fs::copy(images.join(&file), to.join(&file)).unwrap();
        chown(to.join(&file), Some(user), Some(user)).unwrap();
    }
    to
}

#[test]
fn images_that_the_service_has_not_sealed_are_refused_before_criu_starts() {
    let served = Served::new(&["--requests-each", "100000"]);
    let (mine, pid) = checkpoint(&served, ONE);
    let (others, _) = checkpoint(&served, OTHER);
    let (mine, others) = (mine.join("images"), others.join("images"));
    let made = |name: &str| copy(&served, ONE, &mine, name);
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let flipped = made("flipped");
    flip(&flipped.join(format!("core-{pid}.img")));
    let page = made("page");
    flip(&page.join("pages-1.img"));
    let added = made("added");
    fs::write(added.join("x.img"), "").unwrap();
    chown(added.join("x.img"), Some(ONE), Some(ONE)).unwrap();
    let removed = made("removed");
    fs::remove_file(removed.join("stats-dump")).unwrap();
    let linked = made("linked");
    fs::remove_file(linked.join("pages-1.img")).unwrap();
    symlink(mine.join("pages-1.img"), linked.join("pages-1.img")).unwrap();
    let twice = made("twice");
    fs::hard_link(twice.join("pages-1.img"), served.store(ONE).join("link")).unwrap();
    let bare = made("bare");
    fs::remove_file(bare.join("seal.json")).unwrap();
    let garbage = made("garbage");
    fs::write(garbage.join("seal.json"), "{}").unwrap();
    // Another program's seal, and one that says that it is this user's.
    let reused = copy(&served, ONE, &others, "reused");
    let claimed = copy(&served, ONE, &others, "claimed");
    let seal = fs::read_to_string(claimed.join("seal.json")).unwrap();
    fs::write(claimed.join("seal.json"), seal.replace(&OTHER.to_string(), &ONE.to_string())).unwrap();
    let swapped = made("swapped");
    fs::copy(claimed.join("seal.json"), swapped.join("seal.json")).unwrap();
    // One of another user that anybody can read.
    let open = copy(&served, OTHER, &others, "open");
    fs::set_permissions(served.store(OTHER), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(&open, PermissionsExt::from_mode(0o755)).unwrap();

    // Fields stand in the order of their numbers.
    let arm = |field: u32, bytes: Vec<u8>| {
        if field < 26 { [number(7, 1), bytes, number(26, 1)].concat() } else { [good(), bytes].concat() }
    };
    let inherited = |key: &str| text(27, [text(1, key), number(2, 4)].concat());
    let not_sealed = "aren't those that this service has sealed";
    let table: Vec<(&str, Vec<String>, &str)> = vec![
        ("a bit of the registers", asked(&flipped, &good()), not_sealed),
        ("a bit of the memory", asked(&page, &good()), not_sealed),
        ("a file more", asked(&added, &good()), not_sealed),
        ("a file less", asked(&removed, &good()), not_sealed),
        ("a link", asked(&linked, &good()), "can't read the images"),
        ("a file with another name", asked(&twice, &good()), "is no image of this dump"),
        ("no seal", asked(&bare, &good()), "bear no seal"),
        ("a seal that is none", asked(&garbage, &good()), "the seal is none"),
        ("another user's checkpoint", asked(&reused, &good()), "the seal is for user 4200002"),
        ("another user's that claims to be mine", asked(&claimed, &good()), not_sealed),
        ("a seal of other images", asked(&swapped, &good()), not_sealed),
        ("another user's folder", asked(&open, &good()), "belongs to user 4200002"),
        ("no folder", vec![say(&restore_of(&good())), hear()], "0 descriptors came along instead of 1"),
        ("two folders", vec![with_message(&restore_of(&good()), &[&mine, &mine]), hear()], "2 descriptors"),
        ("a file", asked(&mine.join("seal.json"), &good()), "is no folder"),
        ("a program to run", asked(&mine, &arm(22, text(22, "/bin/sh"))), "option exec_cmd isn't allowed"),
        ("a file of settings", asked(&mine, &arm(51, text(51, "/x"))), "option config_file isn't allowed"),
        ("another root", asked(&mine, &arm(13, text(13, "/"))), "option root isn't allowed"),
        ("a namespace", asked(&mine, &arm(39, text(39, text(1, "net")))), "option join_ns isn't allowed"),
        (
            "a mount",
            asked(&mine, &arm(23, text(23, [text(1, "a"), text(2, "b")].concat()))),
            "option ext_mnt isn't",
        ),
        ("something left outside", asked(&mine, &arm(37, text(37, "mnt[]:m"))), "option external isn't"),
        ("a path for the images", asked(&mine, &arm(68, text(68, "/etc"))), "option images_dir isn't"),
        ("a folder to work in", asked(&mine, &arm(17, number(17, 1))), "option work_dir_fd isn't"),
        (
            "a file that is inherited",
            asked(&mine, &arm(27, inherited("etc/shadow"))),
            "inherit_fd names something",
        ),
        ("an unknown option", asked(&mine, &arm(99, number(99, 1))), "not written plainly"),
    ];
    let before = fs::read_dir(served.lab.path("state/restores")).unwrap().count();
    let mut wrong = Vec::new();
    for (name, operations, answer) in &table {
        let heard = served.speak(ONE, operations);
        if !heard.contains(answer) {
            wrong.push(format!("{name}: {heard}"));
        }
        eventually(name, || served.is_idle().then_some(()));
        assert_eq!(fs::read_dir(served.lab.path("state/restores")).unwrap().count(), before, "{name}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let said = served.service.output();
    assert_eq!(said.matches("asked=restore result=\"restored").count(), 0, "{said}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    println!("{} hostile restores refused", table.len());
}

/// The registers are forged and put back all the time. What comes back is what was sealed, or nothing.
#[test]
fn images_that_are_swapped_during_the_restore_are_refused_or_those_that_were_sealed() {
    let served = Served::new(&["--requests-each", "100000"]);
    let (checkpoint, pid) = checkpoint(&served, ONE);
    let images = checkpoint.join("images");
    let core = format!("core-{pid}.img");
    let (good_one, bad_one) = (copy(&served, ONE, &images, "good"), copy(&served, ONE, &images, "bad"));
    let mut bytes = fs::read(bad_one.join(&core)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(bad_one.join(&core), bytes).unwrap();
    let [right, forged] = [&good_one, &bad_one].map(|folder| fs::read(folder.join(&core)).unwrap());
    let target = images.join(&core);
    let counted =
        |result: &str| served.service.output().matches(&format!("asked=restore result=\"{result}")).count();
    let done = AtomicBool::new(false);
    let (mut back, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // In place, so that it stays the same file.
            let file = fs::OpenOptions::new().write(true).open(&target).unwrap();
            while !done.load(Ordering::Relaxed) {
                file.write_all_at(&forged, 0).unwrap();
                std::thread::sleep(Duration::from_micros(50));
                file.write_all_at(&right, 0).unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        for _ in 0..30 {
            let heard = served.speak(ONE, &asked(&images, &good()));
            let is_refused =
                ["has sealed", "another size", "aren't whole"].iter().any(|why| heard.contains(why));
            if is_refused {
                refused += 1
            } else {
                back += 1;
                // The speaker is gone by now, and its program with it. It is said when its number is free.
                eventually("the end of the program", || {
                    (counted("ended with its restorer") == back).then_some(())
                });
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(counted("restored process"), back, "{}", served.service.output());
    assert!(refused > 0, "it was never met in the middle");
    follow(&output(&served, ONE));
    println!("swapped: {back} came back, {refused} refused");
}
