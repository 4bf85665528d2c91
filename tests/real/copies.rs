//! Files that are copied into a checkpoint while the program stands still, and put back before it comes back.

mod database;
mod spares;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::afterlife::{Alone, bring_back_with};
use crate::failures::criu::{Service, children};
use crate::failures::small_disk::Disk;
use crate::harness::{KILL, Lab, Subject, USR2, built, eventually, manifest, program, send, write_script};

/// `selfdump restore --json …` of a program, detached.
fn restore(lab: &Lab, name: &str) -> (Alone, Value) {
    let said = lab.run(["restore", name, "--detach", "--json"]);
    let report: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    (Alone::new(report["pid"].as_i64().expect("a pid") as i32), report)
}

fn action_on(report: &Value, file: &Path) -> String {
    let plans = report["files"].as_array().expect("plans");
    let plan = plans.iter().find(|plan| plan["path"] == *file.to_str().unwrap());
    plan.unwrap_or_else(|| panic!("no plan for {}: {report}", file.display()))["action"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// `writer` with this way to write, checkpointed with copies of what the patterns are for, gone on, and killed.
fn killed_writer(lab: &Lab, how: &str, file: &Path, patterns: &str) {
    let writer = lab.program("writer").arg(how).arg(file).env("SELFDUMP_COPY_FILES", patterns).start();
    checkpoint(lab, &writer, file);
    let then = fs::metadata(file).unwrap().modified().unwrap();
    eventually("it writes on", || (fs::metadata(file).unwrap().modified().unwrap() > then).then_some(()));
    writer.crash();
}

fn checkpoint(lab: &Lab, writer: &Subject, file: &Path) -> PathBuf {
    eventually("something written", || fs::metadata(file).is_ok_and(|file| file.len() > 20).then_some(()));
    writer.signal(USR2);
    let newest = lab.checkpoints().len() as u64 + 1;
    is_saved(lab);
    lab.wait_for_checkpoint(newest)
}

/// The first attempt, or the next one, comes to a checkpoint.
fn is_saved(lab: &Lab) {
    let last = lab.status().map_or(Value::Null, |status| status["last"]["started_unix_us"].clone());
    let status = lab.status_when("an attempt", |status| status["last"]["started_unix_us"] != last);
    assert_eq!(status["last"]["error"], Value::Null, "{status}");
}

/// The copy of the only file that was copied: what the manifest says of it, and its contents.
fn only_copy(lab: &Lab) -> (Value, Vec<u8>) {
    let checkpoint = &lab.checkpoints()[0];
    let copies = manifest(checkpoint)["copies"].as_array().unwrap().clone();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let contents = fs::read(checkpoint.join(copies[0]["copy"].as_str().unwrap())).unwrap();
    (copies[0].clone(), contents)
}

/// The file is what its copy in the checkpoint is. The program must not run yet.
fn is_as_at_the_checkpoint(lab: &Lab, file: &Path) {
    let (copy, contents) = only_copy(lab);
    let looks = fs::metadata(file).unwrap();
    assert_eq!(fs::read(file).unwrap(), contents);
    assert_eq!(looks.mode() & 0o7777, copy["mode"].as_u64().unwrap() as u32);
    assert_eq!(
        looks.mtime() * 1_000_000_000 + looks.mtime_nsec(),
        copy["modified_unix_ns"].as_i64().unwrap()
    );
}

/// Restored, but left stopped so that the file can be looked at.
fn comes_back_with(lab: &Lab, file: &Path) -> Value {
    let back = bring_back_with(lab, "writer", &["--stopped"]);
    let (back, report) = (back.program, back.report);
    assert_eq!(action_on(&report, file), "recreate");
    is_as_at_the_checkpoint(lab, file);
    let then = fs::metadata(file).unwrap().modified().unwrap();
    back.signal(18);
    eventually("it writes on", || (fs::metadata(file).unwrap().modified().unwrap() > then).then_some(()));
    back.crash();
    report
}

#[test]
fn a_file_that_was_rewritten_in_place_is_what_it_was_with_its_times_and_mode() {
    let lab = Lab::new();
    let file = lab.path("state.bin");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
    killed_writer(&lab, "in-place", &file, "*.bin");
    let before = fs::read(&file).unwrap();
    let report = comes_back_with(&lab, &file);
    let cut = PathBuf::from(report["cut"].as_str().unwrap());
    assert_eq!(fs::read(cut.join("1-state.bin")).unwrap(), before, "what it was before the restore is kept");
}

#[test]
fn a_deleted_a_replaced_and_a_shortened_file_come_back() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    killed_writer(&lab, "plain", &file, "*.txt");
    fs::remove_file(&file).unwrap();
    let plan = lab.run(["restore", "writer", "--dry-run"]);
    assert!(String::from_utf8_lossy(&plan.stdout).contains("(recreate)") && !file.exists(), "{plan:?}");
    comes_back_with(&lab, &file);
    fs::rename(&file, lab.path("aside")).unwrap();
    fs::write(&file, "another file, and a long one\n".repeat(100)).unwrap();
    comes_back_with(&lab, &file);
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1).unwrap();
    comes_back_with(&lab, &file);
}

#[test]
fn what_only_a_child_has_open_is_copied_by_its_name() {
    const PARENT: &str = "
import ctypes, subprocess, sys, time
ctypes.CDLL(sys.argv[1]).plugged()
with open(sys.argv[2], 'w') as out:
    subprocess.Popen(['sh', '-c', 'echo what a child of it has open; while :; do sleep 0.1; done'], stdout=out)
print('ready', flush=True)
time.sleep(1000)
";
    let lab = Lab::new();
    let file = lab.path("child.txt");
    let mut python = Command::new("python3");
    python.args(["-c", PARENT]).arg(built("examples/libplugin.so".as_ref())).arg(&file);
    let parent = lab.launch(python, "parent").env("SELFDUMP_COPY_FILES", "*.txt").start();
    parent.wait_for("ready");
    checkpoint(&lab, &parent, &file);
    let child = children(parent.pid());
    parent.crash();
    child.into_iter().for_each(|pid| send(pid, KILL));
    assert_eq!(only_copy(&lab).1, b"what a child of it has open\n");
}

#[test]
fn a_rule_wins_over_a_copy() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    killed_writer(&lab, "plain", &file, "*.txt");
    let failed = lab.run(["restore", "writer", "--detach", "--files", "fail:*.txt"]);
    assert!(String::from_utf8_lossy(&failed.stderr).contains("a rule says"), "{failed:?}");
    let kept = lab.run(["restore", "writer", "--dry-run", "--json", "--files", "keep:*.txt"]);
    assert_eq!(action_on(&serde_json::from_slice(&kept.stdout).unwrap(), &file), "keep");
}

#[test]
fn files_with_any_name_are_copied_and_put_back() {
    let lab = Lab::new();
    let data = lab.path("data");
    fs::create_dir(&data).unwrap();
    let (open, other) =
        (data.join("it's \"a\" $(b)\n c.txt"), data.join(OsStr::from_bytes(b"\xff\x81 #.txt")));
    fs::write(&other, "nobody has it open\n").unwrap();
    killed_writer(&lab, "plain", &open, &format!("{}/*", data.display()));
    fs::remove_file(&open).and_then(|()| fs::remove_file(&other)).unwrap();
    let back = bring_back_with(&lab, "writer", &["--stopped"]);
    let back = back.program;
    let checkpoint = &lab.checkpoints()[0];
    assert_eq!(fs::read(&open).unwrap(), fs::read(checkpoint.join("files/1")).unwrap());
    assert_eq!(fs::read(&other).unwrap(), b"nobody has it open\n");
    let copies = &manifest(checkpoint)["copies"];
    assert_eq!(copies.as_array().unwrap().len(), 2, "{copies}");
    back.crash();
}

/// The last attempt failed so, and the program runs on with its older checkpoints.
fn fails(lab: &Lab, writer: &mut Subject, kind: &str, parts: &[&str]) {
    let before: Vec<_> = lab.checkpoints();
    let attempts = lab.status().map_or(0, |status| status["failures_in_a_row"].as_u64().unwrap());
    writer.signal(USR2);
    let status =
        lab.status_when("a failure", |status| status["failures_in_a_row"].as_u64() == Some(attempts + 1));
    let error = &status["last"]["error"];
    let text = format!("{} {}", error["message"], error["hint"]);
    assert_eq!(error["kind"], kind, "{error}");
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in {text}"));
    assert_eq!(lab.checkpoints(), before);
    for checkpoint in before {
        let listed = lab.run([OsStr::new("restore"), checkpoint.as_os_str(), OsStr::new("--dry-run")]);
        assert!(listed.status.success(), "{listed:?}");
    }
    assert!(writer.is_running());
}

fn writes_on(file: &Path) {
    let size = || fs::metadata(file).unwrap().len();
    let then = size();
    eventually("it writes on", || (size() > then).then_some(()));
}

#[test]
fn a_disk_that_runs_full_of_copies_fails_the_checkpoint_and_the_program_goes_on() {
    let lab = Lab::new();
    let _disk = Disk::of(&lab, 80);
    let extra = lab.path("extra.dat");
    fs::write(&extra, "small").unwrap();
    // That memory is in a file without a name, of which nobody knows beforehand what its image will take.
    let asker = lab.program("asker").arg("1").arg("shared=32").env("SELFDUMP_COPY_FILES", &extra);
    let mut asker = asker.start();
    asker.wait_for("ready");
    asker.signal(USR2);
    lab.wait_for_checkpoint(1);
    fs::write(&extra, vec![1; 20 << 20]).unwrap();
    fails(&lab, &mut asker, "no-space", &["extra.dat can't be copied", "No space left", "SELFDUMP_KEEP"]);
}

#[test]
fn what_cp_can_not_read_is_named() {
    let lab = Lab::new();
    let (file, bad) = (lab.path("out.txt"), lab.path("no \"cp\".txt"));
    let tools = lab.path("tools");
    fs::create_dir(&tools).unwrap();
    // Root reads everything, so a cp that is refused has to be made.
    let cp = tools.join("cp");
    write_script(
        &cp,
        "#!/bin/sh\ncase \"$*\" in *no*cp*) echo \"cp: cannot open: Permission denied\" >&2; exit 1 ;; esac\nexec /bin/cp \"$@\"\n",
    );
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let patterns = format!("{}/*.txt", file.parent().unwrap().display());
    let mut writer = lab
        .program("writer")
        .arg("plain")
        .arg(&file)
        .env("SELFDUMP_COPY_FILES", &patterns)
        .env("PATH", path)
        .start();
    checkpoint(&lab, &writer, &file);
    fs::write(&bad, "x").unwrap();
    fails(
        &lab,
        &mut writer,
        "permission",
        &["no \\\"cp\\\".txt can't be copied", "Permission denied", "read the file"],
    );
    fails(&lab, &mut writer, "permission", &["SELFDUMP_COPY_FILES leave it out"]);
    writes_on(&file);
    fs::remove_file(&bad).unwrap();
    checkpoint(&lab, &writer, &file);
}

#[test]
fn more_than_the_limit_is_said_before_anything_stands_still() {
    let lab = Lab::new();
    let (file, large) = (lab.path("out.txt"), lab.path("large.dat"));
    fs::write(&large, vec![1; 3 << 20]).unwrap();
    let mut writer = lab
        .program("writer")
        .arg("plain")
        .arg(&file)
        .env("SELFDUMP_COPY_FILES", format!("*.txt {}", large.display()))
        .env("SELFDUMP_COPY_LIMIT", "2 MiB")
        .start();
    eventually("something written", || file.exists().then_some(()));
    fails(
        &lab,
        &mut writer,
        "no-space",
        &["large.dat with 3.0 MiB", "2.0 MiB is the limit", "SELFDUMP_COPY_LIMIT"],
    );
    let status = lab.status().unwrap();
    assert_eq!(status["last"]["frozen_us"], Value::Null);
    fs::write(&large, "small").unwrap();
    checkpoint(&lab, &writer, &file);
}

#[test]
fn a_store_that_no_script_can_be_run_from_is_said_before_anything_stands_still() {
    let lab = Lab::new();
    let disk = Disk::of(&lab, 64);
    disk.runs_no_programs();
    let file = lab.path("out.txt");
    let mut writer =
        lab.program("writer").arg("plain").arg(&file).env("SELFDUMP_COPY_FILES", "*.txt").start();
    eventually("something written", || file.exists().then_some(()));
    fails(&lab, &mut writer, "config", &["noexec", "SELFDUMP_DIR"]);
    writes_on(&file);
}

#[test]
fn a_service_of_another_user_is_not_asked_for_copies() {
    let lab = Lab::new();
    let socket = lab.path("criu.socket");
    let _service = Service::start(&lab, &socket);
    let file = lab.path("out.txt");
    // Everybody may ask root's service, in a folder of the user's own.
    std::os::unix::fs::chown(lab.path(""), Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program("writer"));
    let mut writer = lab
        .launch(command, "writer")
        .arg("plain")
        .arg(&file)
        .env("SELFDUMP_SERVICE", &socket)
        .env("SELFDUMP_COPY_FILES", "*.txt")
        .start();
    eventually("something written", || file.exists().then_some(()));
    fails(
        &lab,
        &mut writer,
        "config",
        &["runs as user 0, and the program as user 65534", "SELFDUMP_SERVICE"],
    );
    writes_on(&file);
}

#[test]
fn a_restore_that_fails_leaves_everything_as_it_was() {
    let lab = Lab::new();
    let data = lab.path("data");
    fs::create_dir(&data).unwrap();
    let file = data.join("state.bin");
    killed_writer(&lab, "in-place", &file, &format!("{}/*", data.display()));
    let newcomer = data.join("state.bin-wal");
    fs::write(&newcomer, "since").unwrap();
    let looks = |file: &Path| {
        let looks = fs::metadata(file).unwrap();
        (fs::read(file).unwrap(), looks.ino(), looks.mode(), looks.mtime(), looks.mtime_nsec())
    };
    let before = (looks(&file), looks(&newcomer));
    let false_criu = lab.path("criu");
    write_script(&false_criu, "#!/bin/sh\nexit 1\n");
    let failed = lab.selfdump(["restore", "writer", "--detach"]).env("SELFDUMP_CRIU", &false_criu).output();
    assert_eq!(failed.unwrap().status.code(), Some(125));
    assert_eq!((looks(&file), looks(&newcomer)), before);
    let instance = lab.checkpoints()[0].parent().unwrap().to_owned();
    let mut left = fs::read_dir(instance).unwrap().flatten();
    assert!(!left.any(|entry| entry.file_name().to_string_lossy().contains(".cut-")));

    // And one that succeeds moves the newcomer aside.
    let report = comes_back_with(&lab, &file);
    assert!(!newcomer.exists());
    let cut = PathBuf::from(report["cut"].as_str().unwrap());
    assert_eq!(fs::read(cut.join("2-state.bin-wal")).unwrap(), b"since");
}
