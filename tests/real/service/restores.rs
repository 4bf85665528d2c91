//! What a user gets back by the service.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ONE, OTHER, Served, TERM, names};
use crate::chain::follow;
use crate::harness::{
    KILL, Launch, Restored, Subject, USR2, copy_program, died_of, eventually, selfdump, send,
};

/// A checkpoint of a user's `chain`, which has ended since; its process id.
pub fn checkpoint(served: &Served, user: u32) -> (PathBuf, i32) {
    checkpoint_of(served, user, served.launch(user, "chain").arg("3"))
}

fn checkpoint_of(served: &Served, user: u32, chain: Launch) -> (PathBuf, i32) {
    let chain = chain.start();
    // What it prints goes on in a file that it can open again.
    chown(served.lab.path(&format!("chain-{user}.out")), Some(user), None).unwrap();
    let pid = chain.pid();
    chain.wait_for("step 100");
    chain.signal(USR2);
    served.attempt(user, "chain", true);
    chain.crash();
    let [checkpoint] = &*served.checkpoints(user, "chain") else { panic!("one checkpoint") };
    (checkpoint.clone(), pid)
}

/// Ends a `chain` that has come back, which is whole.
fn ends(served: &Served, mut restored: Restored) {
    restored.restorer.signal(TERM);
    restored.restorer.wait();
    follow(&output(served, ONE));
}

/// `selfdump restore`, as a user who has nothing but the service.
pub fn restore(served: &Served, user: u32, checkpoint: &Path) -> Subject {
    start(served, user, &["restore", checkpoint.to_str().unwrap()])
}

/// `selfdump` as a user.
pub fn start(served: &Served, user: u32, words: &[&str]) -> Subject {
    let program = served.lab.path("selfdump");
    if !program.exists() {
        copy_program(selfdump().get_program(), &program);
    }
    served
        .launch(user, "selfdump")
        .env("TMPDIR", served.lab.path(&format!("run-{user}")))
        .env_remove("SELFDUMP_NAME")
        .args(words)
        .start()
}

pub fn output(served: &Served, user: u32) -> String {
    fs::read_to_string(served.lab.path(&format!("chain-{user}.out"))).unwrap()
}

pub fn comes_back(served: &Served, user: u32) {
    let back = eventually("the second return", || output(served, user).find("restored chain/"));
    eventually("steps after it", || output(served, user)[back..].contains("step").then_some(()));
}

fn status_of(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{status}"));
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_users_own_program_comes_back_with_that_users_rights_and_no_others() {
    let served = Served::new(&[]);
    let (checkpoint, pid) = checkpoint(&served, ONE);
    let restorer = restore(&served, ONE, &checkpoint);
    let mut restored = Restored { restorer, pid };
    restored.restorer.wait_for("restored");
    comes_back(&served, ONE);
    let all = format!("{ONE} {ONE} {ONE} {ONE}");
    assert_eq!((status_of(pid, "Uid"), status_of(pid, "Gid")), (all.clone(), all));
    assert_eq!(status_of(pid, "Groups"), "");
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status_of(pid, set), "0000000000000000", "{set}");
    }
    // What the set bounds, no program can be started with any more.
    assert_eq!(status_of(pid, "NoNewPrivs"), "1");
    let bounding = u64::from_str_radix(&status_of(pid, "CapBnd"), 16).unwrap();
    assert_eq!(bounding & !(1 << 40 | 1 << 19 | 1 << 8), 0, "{bounding:x}");
    assert_eq!(names(&served.lab.path("state/restores")), Vec::<String>::new());
    served.service.wait_for("asked=restore result=\"restored process");
    send(pid, KILL);
    let status = restored.restorer.wait();
    assert!(died_of(status, KILL), "{status}");
    follow(&output(&served, ONE));
    served.service.wait_for("result=\"ended by SIGKILL");
    eventually("nothing under way", || served.is_idle().then_some(()));
}

#[test]
fn signals_reach_the_program_and_its_next_checkpoint_comes_back_as_well() {
    let served = Served::new(&[]);
    let (first, pid) = checkpoint(&served, ONE);
    let mut restored = Restored { restorer: restore(&served, ONE, &first), pid };
    comes_back(&served, ONE);
    restored.restorer.signal(USR2);
    let next = eventually("another checkpoint", || {
        served.checkpoints(ONE, "chain").into_iter().find(|one| *one != first)
    });
    restored.restorer.signal(TERM);
    let status = restored.restorer.wait();
    assert!(died_of(status, TERM), "{status}");
    let restored = Restored { restorer: restore(&served, ONE, &next), pid };
    eventually("a second life", || output(&served, ONE).contains("generation 2").then_some(()));
    ends(&served, restored);
}

#[test]
fn the_exit_status_is_passed_on_and_a_file_that_is_kept_may_have_another_size() {
    let served = Served::new(&[]);
    copy_program(crate::harness::program("ender"), &served.lab.path("ender"));
    let end = served.store(ONE).join("end");
    // Its output isn't appended to, and grows after the checkpoint.
    let output = served.lab.path("run-4200001/out");
    let line =
        format!("exec {} {} > {}", served.lab.path("ender").display(), end.display(), output.display());
    copy_program("/bin/sh", &served.lab.path("shell"));
    let ender = served.launch(ONE, "shell").env("SELFDUMP_NAME", "ender").arg("-c").arg(line).start();
    chown(served.lab.path(&format!("shell-{ONE}.out")), Some(ONE), None).unwrap();
    eventually("lines", || (fs::read_to_string(&output).ok()?.lines().count() > 5).then_some(()));
    ender.signal(USR2);
    served.attempt(ONE, "ender", true);
    ender.crash();
    let [checkpoint] = &*served.checkpoints(ONE, "ender") else { panic!("one checkpoint") };
    let mut restorer = start(&served, ONE, &["restore", checkpoint.to_str().unwrap(), "--files", "keep:**"]);
    restorer.wait_for("restored");
    assert!(restorer.output().contains("kept"), "{}", restorer.output());
    fs::write(&end, "").unwrap();
    assert_eq!(restorer.wait().code(), Some(7), "{}", restorer.output());
    served.service.wait_for("ended with status 7");
}

/// The images that the service has sealed were encrypted by the program, and are what they were when they are opened.
#[test]
fn an_encrypted_checkpoint_comes_back_by_the_service_as_well() {
    let served = Served::new(&[]);
    let key = served.lab.path(&format!("run-{ONE}/key"));
    crate::harness::succeeds(Command::new("age-keygen").arg("-o").arg(&key));
    chown(&key, Some(ONE), Some(ONE)).unwrap();
    let recipient = crate::harness::succeeds(Command::new("age-keygen").arg("-y").arg(&key));
    let chain = served.launch(ONE, "chain").arg("3").env("SELFDUMP_ENCRYPT_TO", recipient.trim());
    let (checkpoint, pid) = checkpoint_of(&served, ONE, chain);
    let images = names(&checkpoint.join("images"));
    assert!(images.contains(&"seal.json.age".to_owned()), "{images:?}");
    assert!(images.iter().all(|name| name.ends_with(".age")), "{images:?}");
    let words = ["restore", checkpoint.to_str().unwrap(), "--identity", key.to_str().unwrap()];
    let restored = Restored { restorer: start(&served, ONE, &words), pid };
    restored.restorer.wait_for("selfdump: restored");
    comes_back(&served, ONE);
    served.service.wait_for("asked=restore result=\"restored process");
    ends(&served, restored);
}

/// Who may read another's checkpoint may not have it run, whatever is said of trust: neither the restorer nor the service
/// does it.
#[test]
fn another_users_checkpoint_is_not_restored_whoever_trusts_it() {
    let served = Served::new(&[]);
    let (checkpoint, pid) = checkpoint(&served, ONE);
    for folder in checkpoint.ancestors().take(4).chain([checkpoint.join("images").as_path()]) {
        fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    }
    for file in names(&checkpoint.join("images")) {
        fs::set_permissions(checkpoint.join("images").join(file), PermissionsExt::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(checkpoint.join("manifest.json"), PermissionsExt::from_mode(0o644)).unwrap();
    let tried = |words: &[&str]| {
        let mut restorer =
            start(&served, OTHER, &[&["restore", checkpoint.to_str().unwrap()], words].concat());
        assert!(!restorer.wait().success());
        restorer.output()
    };
    let said = tried(&[]);
    assert!(said.contains("--trust"), "{said}");
    assert!(!served.service.output().contains("asked=restore"));
    let said = tried(&["--trust"]);
    assert!(said.contains(&format!("the folder belongs to user {ONE}")), "{said}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
