//! Programs of each kind: checkpointed while they run, killed, restored, and their result that of an undisturbed run.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use super::{line, python, script, start};
use crate::afterlife::bring_back;
use crate::harness::{Lab, Subject, USR2, eventually, manifest};

/// A run that nobody disturbs.
struct Undisturbed {
    program: Subject,
    // Its folder goes after it.
    _lab: Lab,
}

impl Undisturbed {
    fn start(name: &str, arguments: &[&str]) -> Undisturbed {
        let lab = Lab::new();
        Undisturbed { program: start(&lab, name, arguments).start(), _lab: lab }
    }

    fn result(mut self) -> String {
        assert!(self.program.wait().success(), "{}", self.program.output());
        line(&self.program.output(), "result").expect("a result")
    }
}

/// How many steps a script has made.
fn steps(output: &str) -> usize {
    output.lines().filter(|line| line.starts_with("step ")).count()
}

/// Checkpoints a running script by the signal, lets it go on, kills it, brings it back, and returns its result.
fn disturbed(lab: &Lab, snapshot: &str, name: &str, arguments: &[&str]) -> String {
    let program = start(lab, name, arguments).env("SELFDUMP_SNAPSHOT", snapshot).start();
    program.wait_for("step 3");
    checkpoint_and_kill(lab, program);
    let output = lab.path(&format!("{name}.out"));
    let _back = bring_back(lab, format!("{name}.py"));
    eventually("its result", || line(&fs::read_to_string(&output).ok()?, "result"))
}

fn checkpoint_and_kill(lab: &Lab, program: Subject) {
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    let then = steps(&program.output());
    eventually("it goes on", || (steps(&program.output()) > then + 2).then_some(()));
    assert_eq!(line(&program.output(), "result"), None, "it is not done yet");
    program.crash();
}

fn comes_to_the_same_result(name: &str, arguments: &[&str]) -> Lab {
    comes_to_it_by("freeze", name, arguments)
}

fn comes_to_it_by(snapshot: &str, name: &str, arguments: &[&str]) -> Lab {
    let lab = Lab::new();
    let undisturbed = Undisturbed::start(name, arguments);
    assert_eq!(disturbed(&lab, snapshot, name, arguments), undisturbed.result(), "{name} {arguments:?}");
    lab
}

#[test]
fn a_monte_carlo_job_comes_to_the_same_estimate() {
    comes_to_the_same_result("pi", &["300"]);
}

#[test]
fn a_training_loop_in_numpy_with_its_threads_comes_to_the_same_weights() {
    let lab = comes_to_the_same_result("training", &["300"]);
    let processes = &manifest(&lab.checkpoints()[0])["processes"];
    let threads = processes[0]["threads"].as_array().expect("threads").len();
    assert!(threads >= 3, "the main one, selfdump's and those of the BLAS: {threads}");
}

#[test]
fn so_do_both_where_a_copy_of_them_is_dumped() {
    for name in ["pi", "training"] {
        let lab = comes_to_it_by("cow", name, &["300"]);
        assert_eq!(manifest(&lab.checkpoints()[0])["technique"]["how"], "cow", "{name}");
    }
}

#[test]
fn a_pool_of_processes_comes_back_with_them_however_they_were_started() {
    for method in ["fork", "spawn", "forkserver"] {
        let lab = comes_to_the_same_result("pool", &[method, "300"]);
        let output = fs::read_to_string(lab.path("pool.out")).unwrap();
        assert_eq!(
            line(&output, "children").as_deref(),
            Some("['not-installed']"),
            "{method}: they are inert"
        );
        let processes = manifest(&lab.checkpoints()[0])["processes"].as_array().unwrap().len();
        assert!(processes >= 3, "{method}: {processes}");
    }
}

#[test]
fn threads_a_child_a_database_a_log_and_redirected_output_go_on_together() {
    let lab = Lab::new();
    let folder = lab.path("desk");
    fs::create_dir(&folder).unwrap();
    // As a shell redirects it, not to be appended to.
    let printed = folder.join("printed");
    let mut shell = Command::new("sh");
    shell.args(["-c", "out=$1; shift; exec \"$@\" > \"$out\"", "sh"]).arg(&printed);
    shell.arg(python().get_program()).arg("-B").arg(script("desk")).arg(&folder).arg("400");
    let program = lab.launch(shell, "desk").start();
    let log = || fs::read_to_string(folder.join("desk.log")).unwrap_or_default();
    let logged = |count: usize| eventually("its log", || (log().lines().count() > count).then_some(()));
    logged(20);
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    logged(log().lines().count() + 10);
    program.crash();

    let _back = bring_back(&lab, "desk.py");
    let result = eventually("its result", || line(&fs::read_to_string(&printed).ok()?, "result"));
    assert_eq!(result, format!("(400, {}) [400, 400] 0", 400 * 399 / 2));
    let numbers =
        |text: &str| (0..400).map(|step| format!("step {step}")).eq(text.lines().map(str::to_owned));
    assert!(numbers(&log()), "each line is in the log once: {}", log());
    let printed = fs::read_to_string(&printed).unwrap();
    assert!(numbers(printed.split("result").next().unwrap()), "and in its output: {printed}");
}

/// A client of `service`.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: &str) -> Client {
        let port: u16 = port.parse().expect("a port");
        let stream = eventually("a connection", || TcpStream::connect(("127.0.0.1", port)).ok());
        Client(BufReader::new(stream))
    }

    fn ask(&mut self, what: &str) -> String {
        self.0.get_mut().write_all(format!("{what}\n").as_bytes()).expect("a request");
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("an answer");
        answer.trim().to_owned()
    }
}

#[test]
fn an_asyncio_server_awaits_its_checkpoint_and_serves_again_when_it_is_back() {
    let lab = Lab::new();
    let program = start(&lab, "service", &[]).start();
    let port = line(&program.wait_for("port "), "port").unwrap();
    let mut client = Client::connect(&port);
    assert_eq!((client.ask("5"), client.ask("30")), ("5".into(), "35".into()));
    assert_eq!(client.ask("save"), "saved");
    assert_eq!(client.ask("1000"), "1035", "it goes on, and that is lost");
    program.crash();

    let back = bring_back(&lab, "service.py");
    let output = || fs::read_to_string(lab.path("service.out")).unwrap();
    eventually("the awaited checkpoint has brought it back", || {
        output().contains("restored 35").then_some(())
    });
    let ticks = || super::lines(&output(), "tick").len();
    let then = ticks();
    let mut client = Client::connect(&port);
    assert_eq!(client.ask("7"), "42");
    eventually("its loop goes on", || (ticks() > then + 3).then_some(()));
    back.program.crash();
}

#[test]
fn criu_started_by_the_script_itself_fails_where_selfdump_does_not() {
    let lab = Lab::new();
    let (criu, images) = (lab.criu.clone(), lab.path("images"));
    let arguments = [criu.to_str().unwrap(), images.to_str().unwrap()];
    let mut theirs = start(&lab, "own_criu", &arguments).start();
    theirs.wait();
    let said = theirs.wait_for("criu ");
    assert!(said.contains("The criu itself is within dumped tree"), "{said}");
    assert!(!said.starts_with("criu 0 "), "{said}");

    let mut ours = start(&lab, "own", &[]).start();
    assert!(ours.wait().success(), "{}", ours.output());
    assert_eq!(ours.output().trim(), "saved");
    drop(ours);
    let _back = bring_back(&lab, "own.py");
    let output = lab.path("own.out");
    eventually("it comes back", || fs::read_to_string(&output).unwrap().contains("restored").then_some(()));
}

#[test]
fn a_hundred_checkpoints_leave_memory_descriptors_and_threads_as_they_were() {
    let lab = Lab::new();
    let mut program = start(&lab, "hundred", &[]).start();
    assert!(program.wait().success(), "{}", program.output());
    let grown = line(&program.output(), "grown").expect("what has grown");
    let (memory, rest) = grown.split_once(' ').unwrap();
    let memory: i64 = memory.parse().unwrap();
    assert!(memory < 256, "{memory} KiB more after a hundred checkpoints");
    assert_eq!(rest, "True", "descriptors and threads");
}

/// Interpreters of other versions that are on this machine, and the one that the virtualenv was made by.
#[test]
fn one_wheel_is_for_every_python_that_is_here() {
    let mut tried = BTreeSet::new();
    for name in ["python3", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13", "python3.14"]
    {
        let version = Command::new(name).arg("--version").output();
        // The one without a number is one of the others.
        if !version.is_ok_and(|version| version.status.success() && tried.insert(version.stdout)) {
            continue;
        }
        let lab = Lab::new();
        let undisturbed = Undisturbed::start("pi", &["300"]);
        let mut command = Command::new(name);
        command.arg("-B").arg(script("pi")).arg("300");
        command.env("PYTHONPATH", crate::harness::target().join("python/any"));
        let program = lab.launch(command, "pi").start();
        program.wait_for("step 3");
        checkpoint_and_kill(&lab, program);
        let _back = bring_back(&lab, "pi.py");
        let output = lab.path("pi.out");
        let result = eventually(name, || line(&fs::read_to_string(&output).ok()?, "result"));
        assert_eq!(result, undisturbed.result(), "{name}");
        println!("{name} comes back");
    }
    assert!(!tried.is_empty(), "there is no python3 on PATH");
}
