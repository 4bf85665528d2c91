//! Programs that come back from encrypted checkpoints.

use std::fs;
use std::process::Command;

use super::{Key, all_files, encrypted_chain, plain_folders};
use crate::afterlife::{Alone, bring_back_with};
use crate::chain::follow;
use crate::harness::{KILL, Lab, USR2, eventually, manifest, oldest_criu, selfdump, send, succeeds};

fn comes_back_unbroken(lab: &Lab) {
    let key = Key::make(lab, "key.txt");
    let (program, checkpoint) = encrypted_chain(lab, &key.recipient);
    assert_eq!(manifest(&checkpoint)["encrypted_to"], serde_json::json!([key.recipient]));
    let all = all_files(&checkpoint);
    let plain: Vec<_> = all.iter().filter(|file| file.extension().is_none_or(|end| end != "age")).collect();
    assert_eq!(plain, [&checkpoint.join("manifest.json")], "nothing else lies there as it is");
    assert!(plain_folders(lab, program.pid()).is_empty());
    let before = follow(&program.output());
    program.crash();
    let back = bring_back_with(lab, "chain", &key.identity());
    let restorer = back.program.restorer();
    assert!(plain_folders(lab, restorer).is_empty(), "what was decrypted goes when CRIU is done");
    eventually("every thread goes on beyond where it was", || {
        let now = follow(&fs::read_to_string(lab.path("chain.out")).unwrap());
        now.iter().all(|(thread, step)| *step > before[thread] + 100).then_some(())
    });
    // The life that has begun encrypts as the one before it did.
    back.program.signal(USR2);
    let next = lab.wait_for_checkpoint(2);
    assert_eq!(manifest(&next)["encrypted_to"], serde_json::json!([key.recipient]));
}

#[test]
fn a_chain_is_unbroken_after_its_encrypted_checkpoint_was_brought_back() {
    comes_back_unbroken(&Lab::new());
}

#[test]
fn so_it_is_with_the_oldest_supported_criu() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    comes_back_unbroken(&lab);
}

#[test]
fn each_of_several_recipients_opens_it_and_so_does_one_of_several_identities() {
    let lab = Lab::new();
    let [one, other, stranger] = ["one", "other", "stranger"].map(|name| Key::make(&lab, name));
    let team = lab.path("team.txt");
    fs::write(&team, format!("# the team\n\n{}\n", other.recipient)).unwrap();
    let (program, checkpoint) = encrypted_chain(&lab, &format!("{} {}", one.recipient, team.display()));
    assert_eq!(manifest(&checkpoint)["encrypted_to"], serde_json::json!([one.recipient, other.recipient]));
    program.crash();
    for identities in [vec![&one], vec![&other], vec![&stranger, &other]] {
        let options: Vec<&str> = identities.iter().flat_map(|key| key.identity()).collect();
        drop(bring_back_with(&lab, "chain", &options));
    }
    let variable = format!("{}:{}", stranger.path(), one.path());
    let said =
        lab.selfdump(["restore", "chain", "--dry-run"]).env("SELFDUMP_IDENTITY", variable).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn a_python_script_s_are_for_whom_it_names() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key.txt");
    let mut script = crate::python::start(&lab, "own", &[&key.recipient]).start();
    assert!(script.wait().success(), "{}", script.output());
    assert_eq!(manifest(&lab.wait_for_checkpoint(1))["encrypted_to"], serde_json::json!([key.recipient]));
    let without = lab.selfdump(["restore", "own.py"]).output().unwrap();
    assert!(!without.status.success() && !script.output().contains("restored"), "{without:?}");
    let _back = bring_back_with(&lab, "own.py", &key.identity());
    let output = lab.path("own.out");
    eventually("it comes back", || fs::read_to_string(&output).unwrap().contains("restored").then_some(()));
}

#[test]
fn a_program_and_its_children_come_back_together() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key.txt");
    let parent = lab.program("forker").env("SELFDUMP_ENCRYPT_TO", &key.recipient).start();
    parent.wait_for("ready");
    eventually("its children", || (parent.output().matches("child ").count() >= 4).then_some(()));
    parent.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let processes = manifest(&checkpoint)["processes"].as_array().unwrap().clone();
    let pids: Vec<i32> = processes.iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect();
    parent.crash();
    pids[1..].iter().for_each(|&pid| Alone::new(pid).crash());
    let back = bring_back_with(&lab, "forker", &key.identity());
    assert!(pids.iter().all(|&pid| crate::afterlife::is_there(pid)));
    drop(back);
    pids[1..].iter().for_each(|&pid| Alone::new(pid).crash());
}

#[test]
fn copies_of_files_are_encrypted_as_well_and_put_back() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key.txt");
    let file = lab.path("counter.txt");
    let launch = lab.program("writer").arg("in-place").arg(&file).env("SELFDUMP_COPY_FILES", &file);
    let writer = launch.env("SELFDUMP_ENCRYPT_TO", &key.recipient).start();
    eventually("something written", || fs::metadata(&file).is_ok_and(|file| file.len() > 5).then_some(()));
    writer.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let copy = checkpoint.join("files/1.age");
    assert!(copy.is_file() && !checkpoint.join("files/1").exists());
    let then = succeeds(Command::new("age").arg("-d").arg("-i").arg(&key.file).arg(&copy));
    eventually("it is rewritten", || (fs::read_to_string(&file).unwrap() != then).then_some(()));
    writer.crash();
    fs::write(&file, "something else altogether, and longer than before").unwrap();
    let back = bring_back_with(&lab, "writer", &[&key.identity()[..], &["--stopped"]].concat());
    assert_eq!(fs::read_to_string(&file).unwrap(), then, "it is what its copy was");
    drop(back);
}

#[test]
fn a_panic_s_own_words_are_only_for_those_who_have_the_identity() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key.txt");
    let launch = lab.program("crasher").arg("panic").env("SELFDUMP_ON_PANIC", "on");
    let program = launch.env("SELFDUMP_ENCRYPT_TO", &key.recipient).start();
    program.wait_for("ready");
    program.signal(libc::SIGUSR1);
    let checkpoint = lab.wait_for_checkpoint(1);
    let cause = &manifest(&checkpoint)["cause"];
    assert_eq!((cause["kind"].as_str(), cause["message"].as_str()), (Some("panic"), Some("")));
    let status = lab.status_when("the attempt", |status| status["last"].is_object());
    program.crash();
    assert_eq!(status["last"]["cause"]["message"], "", "{status}");
    let store = lab.store();
    let entries = selfdump::restore::find(&store, Some("crasher".as_ref())).unwrap();
    let opened = entries[0].open(&selfdump::Identities::read([&key.file]).unwrap()).unwrap();
    let selfdump::Cause::Panic { message, .. } = opened.manifest.unwrap().cause else {
        panic!("another cause")
    };
    assert!(message.contains("trouble"), "{message}");
    let back = bring_back_with(&lab, &checkpoint, &[&key.identity()[..], &["--stopped"]].concat());
    let stat = fs::read_to_string(format!("/proc/{}/stat", back.program.pid)).unwrap();
    assert!(stat.contains(") T "), "it stands for a debugger: {stat}");
}

/// A runner of a program that knows nothing of selfdump: what it says, and the program's process id.
fn run_sleep(lab: &Lab, options: &[&str]) -> (crate::harness::Subject, i32) {
    let mut command = selfdump();
    command.args(["run", "--every", "300ms", "--name", "sleeper"]).args(options);
    command.args(["--", "sleep", "600"]);
    let runner = lab.launch(command, "runner").start();
    let checkpoint = lab.wait_for_checkpoint(1);
    (runner, manifest(&checkpoint)["life"]["pid"].as_i64().unwrap() as i32)
}

#[test]
fn a_runner_with_the_identity_brings_its_program_back() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key.txt");
    let options = [&["--encrypt-to", &key.recipient][..], &key.identity()].concat();
    let (mut runner, pid) = run_sleep(&lab, &options);
    send(pid, libc::SIGSEGV);
    runner.wait_for("restored");
    assert!(runner.is_running() && plain_folders(&lab, runner.pid()).is_empty());
    runner.signal(KILL);
    drop(Alone::new(pid));
}

#[test]
fn one_without_says_so_at_the_beginning_and_takes_no_older_checkpoint_instead() {
    let lab = Lab::new();
    let (plain, plain_pid) = run_sleep(&lab, &[]);
    drop(plain);
    drop(Alone::new(plain_pid));
    let key = Key::make(&lab, "key.txt");
    let before = lab.checkpoints().len();
    let mut command = selfdump();
    command.args(["run", "--every", "300ms", "--name", "sleeper", "--encrypt-to", &key.recipient]);
    let mut runner = lab.launch(command, "runner").arg("--").arg("sleep").arg("600").start();
    runner.wait_for("none of the identities");
    let encrypted = eventually("an encrypted one", || {
        let all = lab.checkpoints();
        let is_encrypted = |checkpoint: &&std::path::PathBuf| manifest(checkpoint)["encrypted_to"].is_array();
        (all.len() > before).then(|| all.iter().find(is_encrypted).cloned()).flatten()
    });
    send(manifest(&encrypted)["life"]["pid"].as_i64().unwrap() as i32, libc::SIGSEGV);
    assert_eq!(runner.wait().code(), Some(125));
    assert!(runner.output().contains("--identity FILE"), "{}", runner.output());
}

#[test]
fn a_restorer_that_is_killed_leaves_nothing_decrypted_behind() {
    let lab = Lab::new();
    let key = Key::make(&lab, "key.txt");
    let program = super::keeper(&lab, 64, &key.recipient);
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    program.crash();
    for moment in 0..6 {
        let mut command = selfdump();
        command.args(["restore", "asker"]).args(key.identity());
        let restorer = lab.launch(command, "restore").start();
        let pid = restorer.pid();
        eventually("something decrypted", || plain_folders(&lab, pid).pop());
        std::thread::sleep(std::time::Duration::from_millis(30 * moment));
        restorer.crash();
        eventually("nothing of it", || plain_folders(&lab, pid).is_empty().then_some(()));
    }
}
