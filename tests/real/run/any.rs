//! Programs that know nothing of selfdump, each run, checkpointed, killed and brought back: what they compute is what
//! comes out in the end. What was seen is the table of docs/what-can-be-run.md: a row that differs fails its test, or
//! is written anew where SELFDUMP_WRITE_TABLE is set.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::harness::succeeds;

const STEPS: u64 = 150;

/// What each program computes, one step in ten milliseconds: `step N` for each, and `sum S` in the end.
fn sum() -> u64 {
    (1..=STEPS).fold(0, |sum, step| (sum * 31 + step) % 1_000_003)
}

/// A program, and what has to be set for it.
struct Case<'a> {
    row: &'a str,
    command: &'a [&'a str],
    settings: &'a [(&'static str, String)],
    signal: i32,
}

impl<'a> Case<'a> {
    fn new(row: &'a str, command: &'a [&'a str]) -> Case<'a> {
        Case { row, command, settings: &[], signal: USR2 }
    }

    fn start(&self, lab: &Lab) -> Runner {
        let mut command = runner(lab, &["--name", "any", "--backoff", "10ms"]);
        command.args(self.command).current_dir(lab.path(""));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        Runner::start(lab, command)
    }

    fn comes_back(self, lab: &Lab) {
        let mut run = self.start(lab);
        run.runner.wait_for("step 20");
        let pid = run.pid();
        send(pid, self.signal);
        run.wait_for("saved", 1);
        let then = step(&run);
        eventually("it goes on", || (step(&run) > then + 20).then_some(()));
        send(pid, KILL);
        assert_eq!(run.wait_for("restored", 1)["pid"], pid, "{}", run.runner.output());
        assert_eq!(run.runner.wait().code(), Some(0), "{}", run.runner.output());
        let output = run.runner.output();
        let steps: Vec<&str> = output.lines().filter(|line| line.starts_with("step ")).collect();
        assert!(steps.len() > STEPS as usize, "it went back to its checkpoint: {output}");
        assert_eq!(steps.iter().filter(|line| **line == "step 1").count(), 1, "not to its start: {output}");
        assert!(output.lines().any(|line| line == format!("sum {}", sum())), "{output}");
        self.seen("comes back");
    }

    /// Holds the table to what was seen.
    fn seen(&self, what: &str) {
        let needs: Vec<String> =
            self.settings.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
        let needs = if needs.is_empty() { "—".to_owned() } else { needs.join(" ") };
        row(self.row, &format!("| {} | {what} | {needs} |", self.row));
    }
}

fn step(run: &Runner) -> u64 {
    let output = run.runner.output();
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    whole.lines().rev().find_map(|line| line.strip_prefix("step ")?.parse().ok()).unwrap_or(0)
}

fn row(name: &str, row: &str) {
    static TABLE: Mutex<()> = Mutex::new(());
    let _alone = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/what-can-be-run.md");
    let text = fs::read_to_string(&page).expect("the page");
    if text.lines().any(|line| line == row) {
        return;
    }
    assert!(std::env::var_os("SELFDUMP_WRITE_TABLE").is_some(), "{} has not this row: {row}", page.display());
    let (head, table) = text.split_once("|---|---|---|\n").expect("a table");
    let is_row = |line: &&str| line.starts_with("| ");
    let other = |line: &&str| !line.starts_with(&format!("| {name} |"));
    let mut rows: Vec<&str> = table.lines().take_while(is_row).filter(other).chain([row]).collect();
    rows.sort_unstable();
    let rest: Vec<&str> = table.lines().skip_while(is_row).collect();
    let text = format!("{head}|---|---|---|\n{}\n{}\n", rows.join("\n"), rest.join("\n"));
    fs::write(&page, text).expect("the page");
}

fn file(lab: &Lab, name: &str, text: &str) {
    fs::write(lab.path(name), text).expect("a file");
}

#[test]
fn a_c_program() {
    let lab = Lab::new();
    let source = "#include <stdio.h>\n#include <unistd.h>\n\
        int main(void) {\n    unsigned long sum = 0;\n\
            for (unsigned long step = 1; step <= 150; step++) {\n\
                sum = (sum * 31 + step) % 1000003;\n\
                printf(\"step %lu\\n\", step);\n        fflush(stdout);\n        usleep(10000);\n    }\n\
            printf(\"sum %lu\\n\", sum);\n    return 0;\n}\n";
    file(&lab, "any.c", source);
    succeeds(Command::new("gcc").args(["-O2", "-o", "any", "any.c"]).current_dir(lab.path("")));
    Case::new("a C program", &["./any"]).comes_back(&lab);
}

#[test]
fn bash_and_the_commands_of_its_script() {
    let lab = Lab::new();
    file(
        &lab,
        "any.sh",
        "sum=0\nfor step in $(seq 150); do\n    sum=$(((sum * 31 + step) % 1000003))\n    \
         echo step $step\n    sleep 0.01\ndone\necho sum $sum\n",
    );
    Case::new("bash, with the commands of its script", &["bash", "any.sh"]).comes_back(&lab);
}

#[test]
fn python() {
    let script = "import time\nsum = 0\nfor step in range(1, 151):\n    sum = (sum * 31 + step) % 1000003\n    \
                  print('step', step, flush=True)\n    time.sleep(0.01)\nprint('sum', sum)\n";
    Case::new("python", &["/usr/bin/python3", "-c", script]).comes_back(&Lab::new());
}

#[test]
fn perl() {
    let script = "$| = 1; for $step (1..150) { $sum = ($sum * 31 + $step) % 1000003; print \"step $step\\n\"; \
                  select(undef, undef, undef, 0.01); } print \"sum $sum\\n\";";
    Case::new("perl", &["perl", "-e", script]).comes_back(&Lab::new());
}

#[test]
fn node() {
    let script = "let sum = 0, step = 0; const timer = setInterval(() => { step++; \
                  sum = (sum * 31 + step) % 1000003; console.log('step ' + step); \
                  if (step === 150) { console.log('sum ' + sum); clearInterval(timer); } }, 10);";
    Case::new("node", &["node", "-e", script]).comes_back(&Lab::new());
}

/// Its database is written in place, so it has to be copied into the checkpoint.
#[test]
fn the_shell_of_sqlite() {
    let lab = Lab::new();
    let mut script =
        "CREATE TABLE sums(step INTEGER PRIMARY KEY, sum INTEGER);\nINSERT INTO sums VALUES(0, 0);\n"
            .to_owned();
    for step in 1..=STEPS {
        script += &format!(
            "INSERT INTO sums SELECT {step}, (sum * 31 + {step}) % 1000003 FROM sums WHERE step = {step} - 1;\n\
             SELECT 'step ' || max(step) FROM sums;\n\
             WITH RECURSIVE pause(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM pause WHERE i < 30000) \
             SELECT 'pause' FROM pause WHERE i = 30000;\n"
        );
    }
    script += "SELECT 'sum ' || sum FROM sums WHERE step = 150;\nSELECT 'rows ' || count(*) FROM sums;\n";
    file(&lab, "any.sql", &script);
    // What it prints would stay in its buffer; stdbuf is a library that is preloaded as well.
    let command = ["stdbuf", "-oL", "sqlite3", "any.db", ".read any.sql"];
    let settings = [("SELFDUMP_COPY_FILES", "any.db*".to_owned())];
    Case { settings: &settings, ..Case::new("sqlite3's shell", &command) }.comes_back(&lab);
    let whole =
        succeeds(Command::new("sqlite3").arg(lab.path("any.db")).arg("SELECT count(*), max(step) FROM sums"));
    assert_eq!(whole.trim(), format!("{}|{STEPS}", STEPS + 1));
}

const JAVA: &str = "public class Any { public static void main(String[] none) throws Exception { long sum = 0; \
    for (int step = 1; step <= 150; step++) { sum = (sum * 31 + step) % 1000003; \
    System.out.println(\"step \" + step); Thread.sleep(10); } System.out.println(\"sum \" + sum); } }\n";

/// The virtual machine has SIGUSR2 for itself, and is ended by one that it didn't send.
#[test]
fn java_by_another_signal() {
    let lab = Lab::new();
    file(&lab, "Any.java", JAVA);
    succeeds(Command::new("javac").arg("Any.java").current_dir(lab.path("")));
    let signal = [("SELFDUMP_SIGNAL", "RTMIN+3".to_owned())];
    let command = ["java", "-cp", ".", "Any"];
    let by_usr2 = Case::new("java, by SIGUSR2", &command);
    let run = by_usr2.start(&lab);
    run.runner.wait_for("step 20");
    send(run.pid(), USR2);
    let end = run.wait_for("ended", 1)["life"]["end"].clone();
    assert!([libc::SIGABRT, SEGV].iter().any(|signal| end["signaled"] == *signal), "{end}");
    assert!(lab.checkpoints().is_empty());
    by_usr2.seen("dies: it has that signal for itself");
    drop(run);

    let lab = Lab::new();
    fs::write(lab.path("Any.java"), JAVA).expect("a file");
    succeeds(Command::new("javac").arg("Any.java").current_dir(lab.path("")));
    Case { settings: &signal, signal: libc::SIGRTMIN() + 3, ..Case::new("java", &command) }.comes_back(&lab);
}

#[test]
fn redis_with_the_data_that_was_written_while_it_ran() {
    let lab = Lab::new();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let port = port.to_string();
    let folder = lab.path("");
    let folder = folder.to_str().expect("a path in UTF-8");
    let command = ["redis-server", "--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", folder];
    let case = Case::new("redis-server", &command);
    let mut run = case.start(&lab);
    let client = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        succeeds(command.args(["-p", &port]).args(arguments)).trim().to_owned()
    };
    run.runner.wait_for("Ready to accept connections");
    let write = |from: u32, to: u32| {
        (from..to)
            .for_each(|key| assert_eq!(client(&["set", &key.to_string(), &format!("value {key}")]), "OK"));
    };
    write(0, 50);
    run.runner.signal(USR2);
    run.wait_for("saved", 1);
    write(50, 60);
    send(run.pid(), KILL);
    run.wait_for("restored", 1);
    assert_eq!(client(&["dbsize"]), "50");
    (0..50).for_each(|key| assert_eq!(client(&["get", &key.to_string()]), format!("value {key}")));
    write(100, 101);
    assert_eq!(client(&["dbsize"]), "51");
    client(&["shutdown", "nosave"]);
    assert_eq!(run.runner.wait().code(), Some(0), "{}", run.runner.output());
    case.seen("comes back");
}
