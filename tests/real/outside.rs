//! What led out of the program: terminals, sockets and pipes, and what a restore puts in their place.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::afterlife::Alone;
use crate::harness::{KILL, Lab, USR2, eventually, manifest, program, selfdump, send};

/// A command that runs under a terminal of its own, which `script` makes and whose output it writes to a file.
fn under_a_terminal(lab: &Lab, line: &str, output: &str) -> Child {
    let mut script = Command::new("script");
    script.args(["-qfec", line]).arg(lab.path(output)).envs(lab.environment());
    script
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("script, of bsdutils")
}

/// Waits for the end of a child, but not for ever.
fn end_of(child: &mut Child) -> ExitStatus {
    eventually("the end of a child", || child.try_wait().expect("a child"))
}

fn text(lab: &Lab, output: &str) -> String {
    String::from_utf8_lossy(&fs::read(lab.path(output)).unwrap_or_default()).into_owned()
}

/// The process id that a program of ours has said.
fn pid_of(lab: &Lab, output: &str) -> i32 {
    eventually("the program's process id", || {
        let text = text(lab, output);
        let line = text.lines().find_map(|line| line.trim().strip_prefix("ready "))?.to_owned();
        line.parse().ok()
    })
}

fn steps(text: &str) -> usize {
    text.matches("thread 0 step").count()
}

/// Checkpoints `chain` under a terminal, and kills it.
fn killed_at_its_terminal(lab: &Lab, line: &str) -> i32 {
    let mut terminal = under_a_terminal(lab, line, "first.out");
    let pid = pid_of(lab, "first.out");
    eventually("some steps", || (steps(&text(lab, "first.out")) > 1).then_some(()));
    send(pid, USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let outside = manifest(&checkpoint)["criu"]["needs"]["outside"].clone();
    let kind = if line.starts_with("exec ") { "terminal" } else { "shells-terminal" };
    assert_eq!(outside[0]["kind"], kind, "{outside}");
    send(pid, KILL);
    end_of(&mut terminal);
    pid
}

/// As a shell starts it (the shell leads the session), and as a terminal does (it leads the session itself).
fn ways_to_start() -> [String; 2] {
    // Whoever runs the tests may ignore what a key sends, and what is ignored stays so.
    let chain = format!("env --default-signal=INT {}", program("chain").display());
    [format!("{chain}; true"), format!("exec {chain}")]
}

#[test]
fn a_program_from_a_terminal_comes_back_where_there_is_none() {
    for line in ways_to_start() {
        let lab = Lab::new();
        let pid = killed_at_its_terminal(&lab, &line);
        let mut restorer =
            lab.selfdump(["restore", "chain"]).stdout(Stdio::piped()).spawn().expect("selfdump");
        let back = Alone::new(pid);
        let mut output = BufReader::new(restorer.stdout.take().expect("a pipe")).lines();
        let line = output.find(|line| line.as_ref().is_ok_and(|line| line.contains("thread 0 step")));
        assert!(line.is_some(), "what it writes to its terminal comes to our output");
        send(back.pid, KILL);
        end_of(&mut restorer);
    }
}

#[test]
fn a_program_from_a_terminal_comes_back_at_another_one() {
    for line in ways_to_start() {
        let lab = Lab::new();
        let pid = killed_at_its_terminal(&lab, &line);
        let restore = format!("{} restore chain", selfdump().get_program().display());
        let mut terminal = under_a_terminal(&lab, &restore, "second.out");
        let back = Alone::new(pid);
        eventually("it goes on", || (steps(&text(&lab, "second.out")) > 3).then_some(()));
        assert!(text(&lab, "second.out").contains("restored chain/"), "{}", text(&lab, "second.out"));
        send(back.pid, KILL);
        end_of(&mut terminal);
    }
}

#[test]
fn a_key_that_interrupts_ends_the_program_at_its_new_terminal() {
    let [_, leader] = ways_to_start();
    let lab = Lab::new();
    let pid = killed_at_its_terminal(&lab, &leader);
    let restore = format!("{} restore chain", selfdump().get_program().display());
    let mut terminal = under_a_terminal(&lab, &restore, "second.out");
    let back = Alone::new(pid);
    eventually("it goes on", || (steps(&text(&lab, "second.out")) > 3).then_some(()));
    terminal.stdin.as_mut().expect("a pipe").write_all(b"\x03").expect("a key");
    let status = end_of(&mut terminal);
    // script tells the status of what it ran as a shell does: 128 and the signal's number.
    assert_eq!(status.code(), Some(128 + libc::SIGINT));
    drop(back);
}

#[test]
fn a_restorer_in_the_background_passes_keys_on_once_it_is_in_the_foreground() {
    let lab = Lab::new();
    let talker =
        format!("echo $$ >{}; exec {} stdin", lab.path("pid").display(), program("talker").display());
    let mut terminal = under_a_terminal(&lab, &talker, "first.out");
    let types = |terminal: &mut Child, line: &str, output: &str| {
        terminal.stdin.as_mut().expect("a pipe").write_all(format!("{line}\n").as_bytes()).expect("keys");
        let heard = format!("heard {line}");
        eventually(&heard, || text(&lab, output).contains(&heard).then_some(()));
    };
    types(&mut terminal, "one", "first.out");
    let pid = text(&lab, "pid").trim().parse().expect("a process id");
    send(pid, USR2);
    lab.wait_for_checkpoint(1);
    send(pid, KILL);
    end_of(&mut terminal);

    let restorer = selfdump().get_program().display().to_string();
    let restored = "until grep -q restored second.out; do sleep 0.1; done";
    let line = format!("cd {}; set -m; {restorer} restore talker & {restored}; fg", lab.path("").display());
    let mut terminal = under_a_terminal(&lab, &line, "second.out");
    let back = Alone::new(pid);
    types(&mut terminal, "two", "second.out");
    send(back.pid, KILL);
    end_of(&mut terminal);
}

#[test]
fn a_detached_program_that_had_a_terminal_is_refused_where_there_is_none() {
    let [_, leader] = ways_to_start();
    let lab = Lab::new();
    killed_at_its_terminal(&lab, &leader);
    let said = lab.run(["restore", "chain", "--detach"]);
    assert_eq!(said.status.code(), Some(125));
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(errors.contains("terminal") && errors.contains("without --detach"), "{errors}");
}

/// A listener that keeps what comes over all its connections.
fn listener(lab: &Lab, name: &str) -> (std::path::PathBuf, UnixListener) {
    let path = lab.path(name);
    let listener = UnixListener::bind(&path).expect("a socket");
    (path, listener)
}

#[test]
fn standard_output_into_a_socket_is_dumped_and_comes_back_to_ours() {
    let lab = Lab::new();
    let (path, listener) = listener(&lab, "journal");
    let ours = UnixStream::connect(&path).expect("a connection");
    let (theirs, _) = listener.accept().expect("a connection");
    let mut command = Command::new(program("chain"));
    command.envs(lab.environment()).stdin(Stdio::null());
    let error_stream = OwnedFd::from(ours.try_clone().expect("a duplicate"));
    let mut child = command.stdout(OwnedFd::from(ours)).stderr(error_stream).spawn().expect("chain");
    drop(command);
    let mut lines = BufReader::new(theirs.try_clone().expect("a duplicate")).lines();
    assert!(lines.any(|line| line.expect("text").contains("thread 0 step")), "the journal has its lines");
    send(child.id() as i32, USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let outside = manifest(&checkpoint)["criu"]["needs"]["outside"].clone();
    assert_eq!(
        (&outside[0]["kind"], &outside[0]["descriptors"]),
        (&"unix-socket".into(), &serde_json::json!([1, 2]))
    );
    child.kill().expect("a kill");
    child.wait().expect("its end");
    drop((lines, theirs, listener));

    let mut restorer = lab.selfdump(["restore", "chain"]).stdout(Stdio::piped()).spawn().expect("selfdump");
    let back = Alone::new(child.id() as i32);
    let mut output = BufReader::new(restorer.stdout.take().expect("a pipe")).lines();
    assert!(output.any(|line| line.expect("text").contains("thread 0 step")));
    send(back.pid, KILL);
    end_of(&mut restorer);
}

#[test]
fn any_other_connection_has_hung_up_and_the_program_is_told_by_its_next_read() {
    let lab = Lab::new();
    let (path, listener) = listener(&lab, "bus");
    let client = lab.program("talker").arg(&path).start();
    let (mut bus, _) = listener.accept().expect("a connection");
    bus.write_all(b"hello\n").expect("a line");
    client.wait_for("heard hello");
    client.signal(USR2);
    lab.wait_for_checkpoint(1);
    client.crash();
    drop(bus);

    let back = crate::afterlife::bring_back(&lab, "talker");
    let output = || text(&lab, "talker.out");
    eventually("it is told", || output().contains("the other end has hung up").then_some(()));
    // And it can connect anew.
    let (mut bus, _) = listener.accept().expect("a connection");
    bus.write_all(b"again\n").expect("a line");
    eventually("it hears the new one", || output().contains("heard again").then_some(()));
    back.program.crash();
}

#[test]
fn standard_input_from_a_pipe_is_ours_or_a_file_that_is_named() {
    let lab = Lab::new();
    let mut command = Command::new(program("talker"));
    command.arg("stdin").envs(lab.environment()).stdin(Stdio::piped());
    let mut child = lab.launch_piped(command, "talker");
    child.stdin.as_mut().expect("a pipe").write_all(b"one\n").expect("a line");
    eventually("it hears", || text(&lab, "talker.out").contains("heard one").then_some(()));
    send(child.id() as i32, USR2);
    lab.wait_for_checkpoint(1);
    child.kill().expect("a kill");
    child.wait().expect("its end");

    let pid = child.id() as i32;
    let mut restorer = lab.selfdump(["restore", "talker"]).stdin(Stdio::piped()).spawn().expect("selfdump");
    let back = Alone::new(pid);
    restorer.stdin.as_mut().expect("a pipe").write_all(b"two\n").expect("a line");
    eventually("it hears ours", || text(&lab, "talker.out").contains("heard two").then_some(()));
    send(back.pid, KILL);
    end_of(&mut restorer);
    drop(back);

    let file = lab.path("input");
    fs::write(&file, "three\n").expect("a file");
    let inherit = format!("0={}", file.display());
    let mut restorer = lab.selfdump(["restore", "talker", "--inherit", &inherit]).spawn().expect("selfdump");
    let back = Alone::new(pid);
    eventually("it reads the file", || text(&lab, "talker.out").contains("heard three").then_some(()));
    send(back.pid, KILL);
    end_of(&mut restorer);
}

#[test]
fn a_file_for_what_does_not_lead_outside_is_refused() {
    let lab = Lab::new();
    let chain = lab.program("chain").start();
    chain.wait_for("ready");
    chain.signal(USR2);
    lab.wait_for_checkpoint(1);
    chain.crash();
    for (inherit, status, part) in [
        ("77=/dev/null", 125, "descriptor 77 of the program doesn't lead outside"),
        ("nothing", 2, "FD=FILE"),
    ] {
        let said = lab.run(["restore", "chain", "--inherit", inherit]);
        assert_eq!(said.status.code(), Some(status), "{said:?}");
        assert!(String::from_utf8_lossy(&said.stderr).contains(part), "{said:?}");
    }
}

#[test]
fn a_terminal_that_the_program_itself_provides_stays_its_own() {
    let lab = Lab::new();
    let program = lab.program("talker").arg("terminal").start();
    program.wait_for("heard 3");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    assert_eq!(
        manifest(&checkpoint)["criu"]["needs"]["outside"],
        serde_json::json!([]),
        "nothing leads outside"
    );
    program.crash();
    let before = text(&lab, "talker.out");
    let back = crate::afterlife::bring_back(&lab, "talker");
    eventually("it talks on", || (text(&lab, "talker.out").len() > before.len() + 100).then_some(()));
    back.program.crash();
}
