//! Nothing that can be read comes onto the disk. The store is on a disk of its own, a file with a file system in it, and
//! the whole of that is searched for what the program has in each page of its memory: deleted files are found as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::{Key, all_files, keeper, plain_folders};
use crate::afterlife::bring_back_with;
use crate::harness::{Lab, PATIENCE, Subject, USR2, eventually, program, selfdump, succeeds};

#[path = "../../programs/secret.rs"]
mod secret;

/// A disk in the place of the store.
struct Disk {
    file: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn of(lab: &Lab) -> Disk {
        let (file, at) = (lab.path("disk"), lab.store());
        fs::create_dir(&at).unwrap();
        succeeds(Command::new("truncate").args(["-s", "300M"]).arg(&file));
        succeeds(Command::new("mkfs.ext4").arg("-q").arg(&file));
        succeeds(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&at));
        Disk { file, at }
    }

    /// Whether the secret has ever come onto it.
    fn ever_held_the_secret(&self) -> bool {
        succeeds(Command::new("sync").arg("-f").arg(&self.at));
        has_the_secret(&self.file)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// Whether the secret stands in a file, or in one of a folder.
fn has_the_secret(path: &Path) -> bool {
    let pattern: String = secret::secret().iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let mut grep = Command::new("grep");
    // By zero bytes instead of lines, which binary files don't have.
    grep.env("LC_ALL", "C").args(["-r", "-s", "-q", "-z", "-a", "-P", &pattern]).arg(path);
    grep.status().expect("grep").success()
}

/// Waits for a moment that is short.
fn at_the_moment(what: &str, mut has_come: impl FnMut() -> bool) {
    let started = Instant::now();
    while !has_come() {
        assert!(started.elapsed() < PATIENCE, "never came: {what}");
        std::thread::yield_now();
    }
}

fn drafts(lab: &Lab) -> Vec<PathBuf> {
    let is_draft = |folder: &PathBuf| folder.extension().is_some_and(|end| end == "partial");
    let instances = fs::read_dir(lab.store().join("asker")).into_iter().flatten().flatten();
    instances
        .flat_map(|instance| fs::read_dir(instance.path()).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(is_draft)
        .collect()
}

#[test]
fn what_is_looked_for_is_found_where_nothing_is_encrypted() {
    let lab = Lab::new();
    let disk = Disk::of(&lab);
    assert!(!disk.ever_held_the_secret());
    let program = lab.program("asker").arg("4").arg("secret").start();
    program.wait_for("ready");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    assert!(disk.ever_held_the_secret() && has_the_secret(&disk.at));
    fs::remove_dir_all(checkpoint).unwrap();
    assert!(disk.ever_held_the_secret() && !has_the_secret(&disk.at), "also where it was deleted");
}

#[test]
fn no_page_of_an_encrypted_checkpoint_ever_lies_on_the_disk_as_it_is() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let disk = Disk::of(&lab);
    let program = keeper(&lab, 32, &key.recipient);
    for number in 1..=3 {
        program.signal(USR2);
        eventually("a dump into memory", || plain_folders(&lab, program.pid()).pop());
        while lab.checkpoints().len() < number {
            assert!(!has_the_secret(&disk.at));
        }
    }
    assert!(plain_folders(&lab, program.pid()).is_empty());
    program.crash();
    let back = bring_back_with(&lab, "asker", &key.identity());
    drop(back);
    assert!(!disk.ever_held_the_secret());
}

#[test]
fn not_even_of_one_that_was_killed_at_any_step() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let disk = Disk::of(&lab);
    type Step<'a> = (&'a str, &'a dyn Fn(&Path, &Path) -> bool);
    let has_files = |folder: &Path| fs::read_dir(folder).is_ok_and(|files| files.count() > 0);
    // Where it is so only for a moment that may be missed, what comes next will do.
    let steps: [Step; 5] = [
        ("in mid-dump", &|plain, _| plain.join("images/pages-1.img").exists()),
        ("between dump and encryption", &|plain, draft| {
            plain.join("images/stats-dump").exists() || has_files(&draft.join("images"))
        }),
        ("with the first file encrypted", &|_, draft| has_files(&draft.join("images"))),
        ("with the memory being encrypted", &|_, draft| draft.join("images/pages-1.img.age").exists()),
        ("before the rename", &|_, draft| draft.join("manifest.json").exists() || !draft.exists()),
    ];
    for (step, has_come) in steps {
        let program = keeper(&lab, 32, &key.recipient);
        let pid = program.pid();
        program.signal(USR2);
        let plain = eventually("something dumped", || plain_folders(&lab, pid).pop());
        let draft = drafts(&lab).pop().expect("a draft");
        at_the_moment(step, || has_come(&plain, &draft));
        program.crash();
        assert!(!has_the_secret(&disk.at), "{step}");
        // The next one that starts takes away what it has left.
        let next = keeper(&lab, 1, &key.recipient);
        eventually("nothing left of it", || (!plain.exists() && drafts(&lab).is_empty()).then_some(()));
        next.crash();
    }
    assert!(!disk.ever_held_the_secret());
}

/// A command that finds no room in memory: in a mount namespace of its own with small folders for it. Its streams are
/// opened in there, as CRIU has to see them, and whatever else was open outside is closed.
fn without_room(lab: &Lab, command: &Command, output: &str) -> Command {
    const PREPARE: &str = "output=$1; shift; mkdir -p /run/selfdump
        for small in /dev/shm /run/selfdump; do mount -t tmpfs -o size=1m none $small || exit 99; done
        for open in /proc/$$/fd/*; do eval \"exec ${open##*/}>&-\"; done
        exec </dev/null >>\"$output\" 2>&1
        exec \"$@\"";
    let mut without = Command::new("unshare");
    without.args(["--mount", "bash", "-c", PREPARE, "bash"]).arg(lab.path(output));
    without.arg(command.get_program()).args(command.get_args());
    without
}

fn keeper_without_room(lab: &Lab, key: &Key) -> Subject {
    let mut asker = Command::new(program("asker"));
    asker.args(["16", "secret"]);
    let launch = lab.launch(without_room(lab, &asker, "asker.out"), "asker");
    let program = launch.env("SELFDUMP_ENCRYPT_TO", &key.recipient).start();
    program.wait_for("ready");
    program
}

#[test]
fn without_room_in_memory_there_is_none_after_the_commit_and_it_is_said_once() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let disk = Disk::of(&lab);
    let program = keeper_without_room(&lab, &key);
    for number in 1..=2 {
        program.signal(USR2);
        lab.wait_for_checkpoint(number);
        assert!(!has_the_secret(&disk.at));
    }
    assert_eq!(program.output().matches("there is no room in memory").count(), 1);
    program.crash();
    let mut command = selfdump();
    command.args(["restore", "asker", "--detach"]).args(key.identity());
    let mut restorer = lab.launch(without_room(&lab, &command, "restore.out"), "restore").start();
    assert!(restorer.wait().success(), "{}", restorer.output());
    assert!(restorer.output().contains("there is no room in memory"), "{}", restorer.output());
    let restored = restorer.output().rsplit(' ').next().unwrap().trim().parse().unwrap();
    drop(crate::afterlife::Alone::new(restored));
    assert!(
        !all_files(&lab.path("")).iter().any(|file| file.ends_with("pages-1.img")),
        "nothing decrypted is left"
    );
}

#[test]
fn what_a_crash_leaves_on_the_disk_without_room_in_memory_goes_with_the_next_start() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key");
    let disk = Disk::of(&lab);
    let program = keeper_without_room(&lab, &key);
    program.signal(USR2);
    at_the_moment("a dump", || {
        drafts(&lab).iter().any(|draft| draft.join("plain/images/stats-dump").exists())
    });
    program.crash();
    assert!(has_the_secret(&disk.at), "it was there to be encrypted");
    let next = keeper(&lab, 1, &key.recipient);
    eventually("nothing left of it", || (!has_the_secret(&disk.at)).then_some(()));
    drop(next);
}
