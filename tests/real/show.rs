//! `selfdump show`: what it tells of a program is what `/proc` tells of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{
    KILL, Lab, Subject, USR2, copy_program, eventually, oldest_criu, program, send, succeeds,
};

const PAGE: u64 = 4096;

/// `shown`, with one checkpoint; what it says of itself, by name.
pub fn shown(lab: &Lab) -> (Subject, BTreeMap<String, u64>) {
    let program = lab.program("shown").arg(lab.path("file")).start();
    program.wait_for("ready");
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    let said = said(&program);
    (program, said)
}

/// The numbers in the lines of its output.
pub fn said(program: &Subject) -> BTreeMap<String, u64> {
    let output = program.output();
    let pairs = output.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect()
}

pub fn json(lab: &Lab, arguments: &[&str]) -> Value {
    let text = succeeds(&mut lab.selfdump(arguments));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The member of an array whose field has this value.
pub fn with<'a>(array: &'a Value, field: &str, value: impl Into<Value>) -> &'a Value {
    let value = value.into();
    let all = array.as_array().unwrap_or_else(|| panic!("no array: {array}"));
    all.iter().find(|one| one[field] == value).unwrap_or_else(|| panic!("no {field} {value} in {array:#}"))
}

pub fn fails(lab: &Lab, arguments: &[&str], words: &[&str]) {
    let output = lab.run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?}: {word:?} is not in: {error}");
    }
}

#[test]
fn what_is_shown_is_what_proc_says() {
    let lab = Lab::new();
    let (program, said) = shown(&lab);
    let shown = json(&lab, &["show", "shown", "--json"]);
    assert_eq!(shown["criu"]["version"].as_str().map(|version| version.split('.').count()), Some(3));
    assert_eq!((&shown["format_version"], &shown["cause"]["signal"]), (&Value::from(1), &Value::from(USR2)));
    let process = with(&shown["processes"], "pid", program.pid());
    threads_are_those_of_proc(process, program.pid());
    memory_is_that_of_proc(process, program.pid(), ["pages", "shared"].map(|name| said[name]));
    descriptors_are_those_of_proc(process, program.pid());
    fates_and_sockets(process, &said);
}

fn threads_are_those_of_proc(process: &Value, pid: i32) {
    let threads = process["threads"].as_array().unwrap();
    let tasks: Vec<i32> = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|task| task.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    assert_eq!(threads.len(), tasks.len(), "{threads:#?}");
    for tid in tasks {
        let comm = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap();
        assert_eq!(with(&process["threads"], "tid", tid)["name"], comm.trim_end());
    }
    let standing = with(&process["threads"], "name", "standing");
    assert_eq!(standing["at"]["function"], "stand_here");
    assert_eq!(standing["at"]["file"], program("shown").to_str().unwrap());
    let registers = &standing["registers"]["general"];
    assert_eq!(registers["r15"], 0x5e1f_d0b5_1234_5678_u64);
    // In a system call the kernel tells its number, arguments, stack pointer and instruction pointer.
    let call = fs::read_to_string(format!("/proc/{pid}/task/{}/syscall", standing["tid"])).unwrap();
    let call: Vec<&str> = call.split_whitespace().rev().take(2).collect();
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    assert_eq!(registers["sp"], number(call[1]));
    // CRIU winds the call back by its two bytes, so that it is made again.
    assert_eq!(registers["ip"], number(call[0]) - 2);
}

/// Those of files; others may have grown since.
fn memory_is_that_of_proc(process: &Value, pid: i32, [pages, shared]: [u64; 2]) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mappings = &process["memory"]["mappings"];
    let mut compared = 0;
    for line in maps.lines().filter(|line| !line.ends_with("(deleted)")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let Some(path) = fields.get(5).filter(|path| path.starts_with('/')) else { continue };
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = fields[0].split_once('-').unwrap();
        let mapping = with(mappings, "start", number(start));
        assert_eq!((&mapping["end"], &mapping["path"]), (&number(end).into(), &(*path).into()));
        assert_eq!(mapping["offset_bytes"], number(fields[2]));
        let protection = ["r", "w", "x"].iter().zip([1, 2, 4]);
        let protection: u64 =
            protection.filter(|(letter, _)| fields[1].contains(**letter)).map(|(_, bit)| bit).sum();
        assert_eq!(mapping["protection"], protection, "{line}");
        compared += 1;
    }
    assert!(compared > 5, "{maps}");
    assert_eq!(with(mappings, "start", pages)["end"], pages + 64 * PAGE);
    assert_eq!(with(mappings, "start", pages)["dumped_bytes"], 64 * PAGE);
    assert_eq!(with(mappings, "start", shared)["dumped_bytes"], 4 * PAGE);
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
    let end = u64::from_str_radix(stack.split(['-', ' ']).nth(1).unwrap(), 16).unwrap();
    assert_eq!(with(mappings, "kind", "stack")["end"], end);
}

/// Those that there are still; what a dump has open is closed after it.
fn descriptors_are_those_of_proc(process: &Value, pid: i32) {
    let mut compared = 0;
    for shown in process["descriptors"].as_array().unwrap() {
        let fd = &shown["fd"];
        let Ok(link) = fs::read_link(format!("/proc/{pid}/fd/{fd}")) else { continue };
        if shown["path"] != link.to_str().unwrap() {
            continue;
        }
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let flags = u64::from_str_radix(field("flags:"), 8).unwrap();
        let cloexec = libc::O_CLOEXEC as u64;
        assert_eq!(shown["flags"], flags & !cloexec, "{shown}");
        assert_eq!(shown["close_on_exec"], flags & cloexec != 0, "{shown}");
        if let Some(position) = shown["position_bytes"].as_u64() {
            let is_output = link.extension().is_some_and(|name| name == "out");
            assert!(is_output || field("pos:") == position.to_string(), "{shown} {info}");
        }
        compared += 1;
    }
    assert!(compared >= 10, "{compared} of {}", process["descriptors"]);
}

fn fates_and_sockets(process: &Value, said: &BTreeMap<String, u64>) {
    let named = |name: &str| with(&process["descriptors"], "fd", said[name]);
    assert_eq!((&named("file")["position_bytes"], &named("file")["size_bytes"]), (&12.into(), &12.into()));
    assert_eq!(named("second")["position_bytes"], 0);
    assert_eq!(
        (&named("file")["fate"]["restore"], &named("file")["fate"]["action"]),
        (&"file".into(), &"nothing".into())
    );
    let fate = |name: &str| named(name)["fate"]["restore"].as_str().unwrap().to_owned();
    assert_eq!(["listener", "client", "server"].map(fate), ["as-it-was", "hung-up", "hung-up"]);
    assert_eq!(["one-end", "other-end"].map(fate), ["as-it-was", "as-it-was"]);
    let socket = |name: &str| &named(name)["detail"];
    let address = format!("127.0.0.1:{}", said["port"]);
    assert_eq!(
        (&socket("listener")["state"], &socket("listener")["local"]),
        (&10.into(), &address.as_str().into())
    );
    assert_eq!(
        (&socket("client")["state"], &socket("client")["remote"]),
        (&1.into(), &address.as_str().into())
    );
    assert_eq!(socket("server")["remote"], socket("client")["local"]);
    assert_eq!(socket("one-end")["peer"], socket("other-end")["inode"]);
}

#[test]
fn a_stream_that_leads_outside_will_lead_to_the_restorers() {
    let lab = Lab::new();
    let mut command = Command::new(program("shown"));
    command.arg(lab.path("file")).envs(lab.environment()).stdin(Stdio::piped());
    let mut child = lab.launch_piped(command, "shown");
    let ready = || fs::read_to_string(lab.path("shown.out")).ok()?.contains("ready").then_some(());
    eventually("it is ready", ready);
    send(child.id() as i32, USR2);
    lab.wait_for_checkpoint(1);
    child.kill().unwrap();
    child.wait().unwrap();
    let shown = json(&lab, &["show", "shown", "--json"]);
    let descriptors = &shown["processes"][0]["descriptors"];
    assert_eq!(with(descriptors, "fd", 0)["fate"], serde_json::json!({"restore": "stream", "stream": 0}));
    assert_eq!(with(descriptors, "fd", 1)["fate"]["restore"], "file");
}

/// A process that is ended when this is dropped: a child outlives its parent.
pub struct Ended(pub i32);

impl Drop for Ended {
    fn drop(&mut self) {
        send(self.0, KILL);
    }
}

/// With the oldest CRIU, whose images are of an older kind.
#[test]
fn a_tree_is_shown_with_each_child_below_its_parent() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    let family = lab.program("family").arg("1").arg("fork").start();
    family.wait_for("ready");
    let said = family.wait_for(" asked and got ");
    let child = said.split(' ').nth(1).unwrap().to_owned();
    let _ended = Ended(child.parse().unwrap());
    family.signal(USR2);
    lab.wait_for_checkpoint(1);
    let tree = succeeds(&mut lab.selfdump(["show", "family"]));
    let lines: Vec<&str> = tree.lines().skip_while(|line| !line.starts_with("PROCESS")).collect();
    assert!(lines[1].starts_with(&format!("{} family ", family.pid())), "{tree}");
    assert!(lines[2].starts_with(&format!("  {child} family ")), "{tree}");
    assert!(tree.contains("criu      4.1.1"), "{tree}");
    let [whole, one] = [vec![], vec!["--pid", &child]]
        .map(|more| json(&lab, &[vec!["show", "family", "--json"], more].concat()));
    assert_eq!(whole["processes"].as_array().unwrap().len(), 2);
    assert_eq!(one["processes"], serde_json::json!([with(&whole["processes"], "parent", family.pid())]));
    let function = one["processes"][0]["threads"][0]["at"]["function"].as_str();
    assert!(function.is_some_and(|function| function.contains("nanosleep")), "{one:#}");
}

#[test]
fn the_tables_fit_eighty_columns_and_tell_what_a_restore_would_do_by_now() {
    let lab = Lab::new();
    let (program, _) = shown(&lab);
    let at_a_terminal = |arguments: &str| {
        let selfdump = lab.selfdump([""; 0]).get_program().to_str().unwrap().to_owned();
        let line = format!("stty rows 24 cols 80; '{selfdump}' show shown {arguments}");
        let mut script = Command::new("script");
        succeeds(script.args(["-qec", &line, "/dev/null"]).envs(lab.environment())).replace('\r', "")
    };
    let all = at_a_terminal("");
    let parts = at_a_terminal("--threads --memory --descriptors --sockets");
    for line in all.lines().chain(parts.lines()) {
        let is_a_path =
            line.starts_with("  folder") || line.starts_with("  program") || line.starts_with("  criu");
        assert!(is_a_path || line.chars().count() <= 80, "{line}");
    }
    for word in ["stand_here+0x", "(shown)", "tcp established", "listening", "hung up", "private-file"] {
        assert!(all.contains(word), "{word:?} is not in {all}");
    }
    assert!(parts.contains("r15 5e1fd0b512345678") && parts.contains(" rw-p 256.0 KiB 256.0 KiB"), "{parts}");
    assert!(!parts.contains("private-file") && !at_a_terminal("--memory").contains("stand_here"));

    program.signal(libc::SIGUSR1);
    program.wait_for("changed");
    let gone = at_a_terminal("--descriptors");
    assert!(gone.contains("REFUSED"), "the file has another name now: {gone}");
}

#[test]
fn a_program_that_was_built_anew_gives_no_names_and_what_is_wrong_is_said() {
    let lab = Lab::new();
    let copy = lab.path("rebuilt");
    copy_program(program("shown"), &copy);
    let subject = lab.launch(Command::new(&copy), "rebuilt").arg(lab.path("file")).start();
    subject.wait_for("ready");
    subject.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    subject.crash();
    let standing = |lab: &Lab| {
        let shown = json(lab, &["show", "rebuilt", "--json"]);
        with(&shown["processes"][0]["threads"], "name", "standing")["at"].clone()
    };
    assert_eq!(standing(&lab)["function"], "stand_here");
    fs::remove_file(&copy).unwrap();
    assert_eq!(standing(&lab)["function"], Value::Null);
    copy_program(program("chain"), &copy);
    assert_eq!(standing(&lab)["function"], Value::Null);
    assert_eq!(standing(&lab)["file"], copy.to_str().unwrap());

    fails(&lab, &["show", "nobody"], &["no checkpoints of nobody", "help: `selfdump list`"]);
    fails(&lab, &["show", "rebuilt", "--pid", "1"], &["holds no process 1", "without --pid"]);
    let folder = checkpoint.to_str().unwrap();
    remove(&checkpoint.join("images/pstree.img"));
    fails(&lab, &["show", folder], &["pstree.img is missing"]);
    remove(&checkpoint.join("manifest.json"));
    fails(&lab, &["show", folder], &["manifest.json"]);
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
    eventually("it is gone", || (!path.exists()).then_some(()));
}
