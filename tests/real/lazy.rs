//! `selfdump restore --lazy`: a program runs while its memory is filled, and whoever dies meanwhile, it never reads a
//! word that isn't its own. `memory` knows what each has to be, and says `WRONG` otherwise.

mod deaths;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::afterlife::{Alone, is_there};
use crate::harness::{Lab, Subject, USR2, eventually, manifest, oldest_criu, send, write_script};

/// `memory` with one checkpoint, and gone.
struct Gone {
    lab: Lab,
    pid: i32,
    checkpoint: PathBuf,
}

impl Gone {
    fn new(mebibytes: u32, children: u32) -> Gone {
        Gone::in_lab(Lab::new(), mebibytes, children)
    }

    fn in_lab(lab: Lab, mebibytes: u32, children: u32) -> Gone {
        let program = lab.program("memory").args([mebibytes, 2, children].map(|number| number.to_string()));
        let program = program.env("SELFDUMP_INCREMENTAL", "off").start();
        program.wait_for("ready");
        program.signal(USR2);
        let (pid, checkpoint) = (program.pid(), lab.wait_for_checkpoint(1));
        lab.status_when("its status", |status| status["last"]["saved"] == true);
        program.crash();
        Gone { lab, pid, checkpoint }
    }

    /// Brings it back lazily; what it says from here on is read from [`Back::said`].
    fn lazily(&self, options: &[&str]) -> Back<'_> {
        let said_before = self.said().len();
        let mut command = crate::harness::selfdump();
        command.args(["restore", "--lazy", "memory"]).args(options);
        // What an earlier one has said isn't this one's word.
        let _ = fs::remove_file(self.lab.path("restore.out"));
        Back { gone: self, restorer: self.lab.launch(command, "restore").start(), said_before }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.lab.path("memory.out")).unwrap_or_default()
    }
}

/// One that is coming back. It ends with its restorer.
struct Back<'a> {
    gone: &'a Gone,
    restorer: Subject,
    said_before: usize,
}

impl Back<'_> {
    /// What the program has said since; nothing of that is wrong.
    fn said(&self) -> String {
        let said = self.gone.said().split_off(self.said_before);
        assert!(!said.contains("WRONG"), "{said}");
        said
    }

    /// Waits until each thread has gone over its memory several times.
    fn looks_at_everything(&self) {
        eventually("a look at all pages", || {
            let said = self.said();
            let has_seen = |thread: &str| said.lines().filter(|line| line.starts_with(thread)).count() > 3;
            (has_seen("thread 0") && has_seen("thread 1")).then_some(())
        });
    }

    fn restored(&self) {
        eventually("its return", || {
            let goes_on = runs(self.restorer.pid());
            let output = self.restorer.output();
            let is_back = output.contains("selfdump: restored memory/");
            assert!(goes_on || is_back, "{output}");
            is_back.then_some(())
        });
    }

    fn was_restored_at_once(&self) -> bool {
        self.restorer.output().contains("at once")
    }

    /// The process that fills its memory, while there is one.
    fn filler(&self) -> Option<i32> {
        let is_filler = |pid: &i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|&byte| byte == 0).nth(1) == Some(b"lazy-pages")
        };
        children(self.restorer.pid()).into_iter().find(is_filler)
    }

    /// Ends the program by itself, as another than the restorer would.
    fn program(&self) -> Alone {
        Alone::new(self.gone.pid)
    }
}

/// Whether a process has not ended.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// The children of all threads of a process.
fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// The file that says that a process's memory is being filled.
fn mark(pid: i32) -> PathBuf {
    let namespace = fs::read_link("/proc/self/ns/pid").expect("a pid namespace").display().to_string();
    let number = namespace.trim_start_matches("pid:[").trim_end_matches(']').to_owned();
    Path::new("/run/selfdump").join(format!("{number}-{pid}.filling"))
}

#[test]
fn every_word_is_what_it_was_with_threads_and_children_and_either_criu() {
    for criu in [crate::harness::criu(), oldest_criu()] {
        let mut lab = Lab::new();
        lab.criu = criu;
        let gone = Gone::in_lab(lab, 64, 2);
        let back = gone.lazily(&[]);
        back.restored();
        back.looks_at_everything();
        eventually("the end of the filler", || back.filler().is_none().then_some(()));
        assert!(!mark(gone.pid).exists(), "all is there");
        assert!(!back.was_restored_at_once(), "{}", back.restorer.output());
        drop(back.program());
    }
}

#[test]
fn detached_the_command_stays_until_all_is_filled() {
    let gone = Gone::new(64, 0);
    let mut back = gone.lazily(&["--detach"]);
    assert!(back.restorer.wait().success(), "{}", back.restorer.output());
    let program = back.program();
    assert!(is_there(program.pid) && !mark(gone.pid).exists());
    back.looks_at_everything();
}

#[test]
fn a_checkpoint_waits_until_the_memory_is_filled() {
    let lab = Lab::new();
    let program = lab.program("memory").args(["8", "2", "0"]).start();
    program.wait_for("ready");
    let path = mark(program.pid());
    let held = fs::File::create(&path).expect("a file in the runtime folder");
    // SAFETY: plain numbers.
    assert_eq!(unsafe { libc::flock(held.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
    program.signal(USR2);
    std::thread::sleep(Duration::from_millis(500));
    assert!(lab.checkpoints().is_empty());
    drop(held);
    lab.wait_for_checkpoint(1);
    fs::remove_file(path).expect("it is ours to remove");
}

#[test]
fn a_checkpoint_that_is_asked_for_meanwhile_is_whole() {
    let gone = Gone::new(256, 0);
    let mut back = gone.lazily(&[]);
    eventually("the program", || is_there(gone.pid).then_some(()));
    back.restored();
    send(gone.pid, USR2);
    let second = gone.lab.wait_for_checkpoint(2);
    send(gone.pid, crate::harness::KILL);
    back.restorer.wait();
    let again = gone.lazily(&[]);
    again.restored();
    assert!(again.restorer.output().contains(manifest(&second)["id"].as_str().expect("an id")));
    again.looks_at_everything();
    drop(again.program());
}

#[test]
fn nothing_runs_from_a_checkpoint_whose_memory_is_damaged() {
    let gone = Gone::new(64, 0);
    let pages = gone.checkpoint.join("images/pages-1.img");
    let mut bytes = fs::read(&pages).expect("pages");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pages, bytes).expect("a damage");
    let mut back = gone.lazily(&[]);
    assert_eq!(back.restorer.wait().code(), Some(125));
    assert!(
        back.restorer.output().contains("pages-1.img has another checksum"),
        "{}",
        back.restorer.output()
    );
    assert_eq!(back.said(), "");
    assert!(!is_there(gone.pid));
}

#[test]
fn where_it_can_not_be_had_the_program_is_restored_at_once() {
    let mut gone = Gone::new(8, 0);
    let real = gone.lab.criu.clone();
    let script = format!("#!/bin/sh\n[ \"$1\" = lazy-pages ] && exit 1\nexec {} \"$@\"\n", real.display());
    let without = gone.lab.path("criu-without");
    write_script(&without, script);
    gone.lab.criu = without;
    let back = gone.lazily(&[]);
    back.restored();
    back.looks_at_everything();
    assert!(back.restorer.output().contains("`criu lazy-pages` doesn't start"), "{}", back.restorer.output());
    drop(back.program());
}
