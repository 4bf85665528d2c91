//! Files that have moved on since the checkpoint: each program comes back, and what it has written is whole.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::afterlife::Alone;
use crate::harness::{Lab, Subject, USR2, eventually, manifest, program, write_script};

/// The numbers of the lines in a file; the last may be cut.
fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.strip_prefix("line ").expect(line).parse().expect(line)).collect()
}

fn is_unbroken(numbers: &[u64]) -> bool {
    numbers.iter().enumerate().all(|(at, &number)| at as u64 == number)
}

/// A writer that was checkpointed, went on for a while, and was killed.
fn killed_writer(lab: &Lab, how: &str, file: &Path) -> Subject {
    let writer = lab.program("writer").arg(how).arg(file).start();
    eventually("some lines", || (numbers(file).len() > 50).then_some(()));
    writer.signal(USR2);
    lab.wait_for_checkpoint(1);
    let then = numbers(file).len();
    eventually("more lines", || (numbers(file).len() > then + 50).then_some(()));
    writer
}

/// `selfdump restore --json …` of the writer, detached.
fn restore(lab: &Lab, arguments: &[&str]) -> (Alone, Value) {
    let said = lab.run(["restore", "writer", "--detach", "--json"].iter().chain(arguments));
    let report: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    (Alone::new(report["pid"].as_i64().expect("a pid") as i32), report)
}

fn refused(lab: &Lab, arguments: &[&str], expected: &[&str]) {
    let said = lab.run(["restore", "writer", "--detach"].iter().chain(arguments));
    assert_eq!(said.status.code(), Some(125), "{said:?}");
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    expected.iter().for_each(|part| assert!(errors.contains(part), "{part:?} is not in {errors}"));
}

#[test]
fn what_it_reads_of_itself_in_proc_comes_back_with_it() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    let mut shell = Command::new("sh");
    // The shell becomes the program, whose own `stat` it is then.
    shell.args(["-c", "exec \"$0\" plain \"$1\" 7</proc/self/stat"]).arg(program("writer")).arg(&file);
    let writer = lab.launch(shell, "writer").start();
    eventually("some lines", || (numbers(&file).len() > 50).then_some(()));
    writer.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let told = format!("/proc/{}/stat", writer.pid());
    let open = manifest(&checkpoint)["processes"][0]["descriptors"].as_array().unwrap().clone();
    assert!(open.iter().any(|open| open["path"] == told.as_str()), "{open:?}");
    writer.crash();
    let (back, _) = restore(&lab, &[]);
    assert_eq!(fs::read_link(format!("/proc/{}/fd/7", back.pid)).unwrap(), Path::new(&told));
}

#[test]
fn a_file_that_has_grown_is_cut_back_and_each_of_its_lines_is_there_once() {
    for how in ["plain", "buffered"] {
        let lab = Lab::new();
        let file = lab.path("out.txt");
        killed_writer(&lab, how, &file).crash();
        let before = fs::read(&file).unwrap();
        let (back, report) = restore(&lab, &[]);
        let ours =
            report["files"].as_array().unwrap().iter().find(|plan| plan["path"] == *file.to_str().unwrap());
        let ours = ours.expect("a plan for the file");
        assert_eq!(ours["action"], "rewind", "{report}");
        eventually("it writes on", || {
            (fs::metadata(&file).unwrap().len() > before.len() as u64).then_some(())
        });
        back.crash();
        assert!(is_unbroken(&numbers(&file)), "{how}");

        // What was cut off is kept, and is what the file had there.
        let cut = PathBuf::from(report["cut"].as_str().unwrap());
        let from = ours["to_bytes"].as_u64().unwrap() as usize;
        assert_eq!(fs::read(cut.join("1-out.txt")).unwrap(), before[from..], "{how}");
        assert_eq!(cut.parent(), Path::new(report["path"].as_str().unwrap()).parent());
    }
}

#[test]
fn standard_output_into_a_file_comes_back_as_any_file() {
    let lab = Lab::new();
    let file = lab.path("stdout.txt");
    let mut command = Command::new(program("writer"));
    command.args(["plain", "stdout"]).envs(lab.environment()).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(fs::File::create(&file).unwrap()).spawn().unwrap();
    eventually("some lines", || (numbers(&file).len() > 50).then_some(()));
    crate::harness::send(child.id() as i32, USR2);
    lab.wait_for_checkpoint(1);
    let then = numbers(&file).len();
    eventually("more lines", || (numbers(&file).len() > then + 50).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let before = numbers(&file).len();
    let (back, _) = restore(&lab, &[]);
    eventually("it writes on", || (numbers(&file).len() > before).then_some(()));
    back.crash();
    assert!(is_unbroken(&numbers(&file)));
}

#[test]
fn a_file_that_is_appended_to_stays_and_the_lines_go_on_at_its_end() {
    for how in ["append", "read-append"] {
        let lab = Lab::new();
        let file = lab.path("out.txt");
        killed_writer(&lab, how, &file).crash();
        let before = fs::read(&file).unwrap();
        let (back, report) = restore(&lab, &[]);
        assert_eq!(report["cut"], Value::Null);
        eventually("it writes on", || {
            (fs::metadata(&file).unwrap().len() > before.len() as u64 + 100).then_some(())
        });
        back.crash();
        assert!(fs::read(&file).unwrap().starts_with(&before), "{how}");
    }
}

/// The size of a file in the manifest of the only checkpoint.
fn size_at_the_checkpoint(lab: &Lab, file: &Path) -> usize {
    let manifest = manifest(&lab.checkpoints()[0]);
    let descriptors = manifest["processes"][0]["descriptors"].as_array().unwrap();
    let ours = descriptors.iter().find(|open| open["path"] == *file.to_str().unwrap()).unwrap();
    ours["size_bytes"].as_u64().unwrap() as usize
}

#[test]
fn a_file_that_another_process_writes_to_is_not_cut_unless_a_rule_says_so() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    killed_writer(&lab, "plain", &file).crash();
    let mut other = fs::OpenOptions::new().append(true).open(&file).unwrap();
    other.write_all(b"line 0\n").unwrap();
    let before = fs::read(&file).unwrap();
    let (back, report) = restore(&lab, &[]);
    let text = report["files"].to_string();
    assert!(text.contains("\"keep\"") && text.contains("writes to it as well"), "{text}");
    // It goes on at its old position, over what is there now.
    let size = size_at_the_checkpoint(&lab, &file);
    eventually("it writes on", || (fs::read(&file).unwrap()[..before.len()] != before).then_some(()));
    assert_eq!(fs::read(&file).unwrap()[..size], before[..size]);
    back.crash();

    let (back, report) = restore(&lab, &["--files", "keep:*.log", "rewind:*.txt"]);
    assert!(report["cut"].is_string(), "{report}");
    back.crash();
}

#[test]
fn a_program_that_only_reads_a_file_which_grows_goes_on_reading_it() {
    let lab = Lab::new();
    let file = lab.path("in.txt");
    fs::write(&file, "line 0\nline 1\n").unwrap();
    let reader = lab.program("writer").arg("tail").arg(&file).start();
    reader.wait_for("seen 2");
    reader.signal(USR2);
    lab.wait_for_checkpoint(1);
    reader.crash();
    fs::write(&file, "line 0\nline 1\nline 2\n").unwrap();
    let (back, _) = restore(&lab, &[]);
    let output = || fs::read_to_string(lab.path("writer.out")).unwrap();
    eventually("it reads what has come", || output().contains("seen 3").then_some(()));
    back.crash();
}

#[test]
fn a_file_that_is_rewritten_in_place_comes_back_and_is_said() {
    let lab = Lab::new();
    let file = lab.path("state.bin");
    let writer = lab.program("writer").arg("in-place").arg(&file).start();
    let counter = || fs::read_to_string(&file).ok()?.trim().parse::<u64>().ok();
    eventually("some counting", || counter().filter(|&count| count > 20));
    writer.signal(USR2);
    lab.wait_for_checkpoint(1);
    let then = counter().unwrap();
    eventually("more counting", || counter().filter(|&count| count > then + 50));
    writer.crash();
    let last = counter().unwrap();
    let plan = lab.run(["restore", "writer", "--dry-run"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("left alone") && plan.contains("later than what the program remembers"), "{plan}");
    let (back, _) = restore(&lab, &[]);
    eventually("it counts from where it was", || counter().filter(|&count| count < last));
    back.crash();
}

#[test]
fn a_dry_run_tells_the_plan_and_touches_nothing() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    killed_writer(&lab, "plain", &file).crash();
    let before = fs::read(&file).unwrap();
    let plan = lab.run(["restore", "writer", "--dry-run"]);
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.status.success() && text.contains("out.txt: cut back to "), "{plan:?}");
    let json = lab.run(["restore", "writer", "--dry-run", "--json", "--files", "fail:*.txt"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let actions: Vec<&Value> = json["files"].as_array().unwrap().iter().map(|file| &file["action"]).collect();
    assert!(actions.contains(&&Value::from("refuse")), "{json}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(lab.checkpoints().len(), 1);
}

#[test]
fn what_would_lose_data_is_refused_and_names_the_file_and_the_way_out() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    killed_writer(&lab, "plain", &file).crash();
    let before = fs::read(&file).unwrap();
    refused(&lab, &["--files", "fail:*"], &["out.txt has changed", "--files"]);
    let wrong = lab.run(["restore", "writer", "--files", "cut:*"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("rewind:*.csv"), "{wrong:?}");

    let aside = lab.path("aside.txt");
    fs::rename(&file, &aside).unwrap();
    refused(&lab, &[], &["out.txt is gone", "put it back"]);
    fs::write(&file, &before).unwrap();
    refused(&lab, &[], &["out.txt is another file", "--files keep:"]);
    fs::rename(&aside, &file).unwrap();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(10).unwrap();
    refused(&lab, &[], &["out.txt is shorter (10 B)", "--files keep:"]);

    // And the way out is one: the program goes on, over a hole where its lines were.
    let (back, _) = restore(&lab, &["--files", "keep:*.txt"]);
    eventually("it writes on", || (fs::metadata(&file).unwrap().len() > 100).then_some(()));
    back.crash();
}

#[test]
fn a_restore_that_fails_leaves_the_files_as_they_were() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    killed_writer(&lab, "plain", &file).crash();
    let before = fs::read(&file).unwrap();
    let false_criu = lab.path("criu");
    write_script(&false_criu, "#!/bin/sh\nexit 1\n");
    let failed = lab.selfdump(["restore", "writer", "--detach"]).env("SELFDUMP_CRIU", &false_criu).output();
    assert_eq!(failed.unwrap().status.code(), Some(125));
    assert_eq!(fs::read(&file).unwrap(), before);
    let instance = lab.checkpoints()[0].parent().unwrap().to_owned();
    let mut left = fs::read_dir(instance).unwrap().flatten();
    assert!(!left.any(|entry| entry.file_name().to_string_lossy().contains(".cut-")));
}

#[test]
fn a_program_that_still_runs_has_its_files_left_alone() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    let writer = killed_writer(&lab, "plain", &file);
    // It was not killed after all.
    refused(&lab, &[], &["the program still runs"]);
    let then = numbers(&file).len();
    eventually("it writes on", || (numbers(&file).len() > then + 20).then_some(()));
    writer.crash();
    assert!(is_unbroken(&numbers(&file)));
}

#[test]
fn rules_of_the_program_and_of_the_variable_count_where_no_flag_does() {
    let lab = Lab::new();
    let file = lab.path("out.txt");
    let writer = lab.program("writer").arg("plain").arg(&file).env("SELFDUMP_FILES", "fail:*.txt").start();
    eventually("some lines", || (numbers(&file).len() > 20).then_some(()));
    writer.signal(USR2);
    lab.wait_for_checkpoint(1);
    let then = numbers(&file).len();
    eventually("more lines", || (numbers(&file).len() > then + 20).then_some(()));
    writer.crash();
    refused(&lab, &[], &["a rule says"]);
    let said =
        lab.selfdump(["restore", "writer", "--dry-run"]).env("SELFDUMP_FILES", "keep:*").output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("kept as it is"), "{said:?}");
    let (back, report) = restore(&lab, &["--files", "rewind:*"]);
    assert!(report["cut"].is_string());
    back.crash();
}

#[test]
fn where_the_newest_does_not_come_back_the_next_older_one_does() {
    let lab = Lab::new();
    let (old, new) = (lab.path("old.txt"), lab.path("new.txt"));
    fs::write(&old, "").unwrap();
    fs::write(&new, "").unwrap();
    let program = lab.program("writer").arg("two").arg(&old).arg(&new).start();
    program.wait_for("first open");
    program.signal(USR2);
    let first = lab.wait_for_checkpoint(1);
    program.signal(libc::SIGUSR1);
    program.wait_for("second open");
    program.signal(USR2);
    lab.wait_for_checkpoint(2);
    program.crash();
    fs::remove_file(&new).unwrap();

    let (back, report) = restore(&lab, &[]);
    assert_eq!(report["path"], *first.to_str().unwrap());
    let skipped = report["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0]["problem"].as_str().unwrap().contains("new.txt is gone"), "{report}");
    back.crash();
    // One that is named comes back or not; nothing else takes its place.
    let newest = lab.checkpoints().pop().unwrap();
    let said = lab.run(["restore", newest.to_str().unwrap(), "--detach"]);
    assert_eq!(said.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&said.stderr).contains("new.txt is gone"), "{said:?}");
}
