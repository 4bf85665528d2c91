//! Programs that know nothing of selfdump, each run, checkpointed, killed and brought back: what they compute is what
//! comes out in the end. What was seen is the table of docs/what-can-be-run.md: a row that differs fails its test, or
//! is written anew where SELFDUMP_WRITE_TABLE is set.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::harness::succeeds;
use crate::redis::Redis;

/// What each program computes, one step in about ten milliseconds: it says `step N` with each, and `sum N S` when it
/// finds the file `go`.
pub fn sum(steps: u64) -> u64 {
    (1..=steps).fold(0, |sum, step| (sum * 31 + step) % 1_000_003)
}

/// A program, and what has to be set for it.
struct Case<'a> {
    row: &'a str,
    command: &'a [&'a str],
    settings: &'a [(&'static str, String)],
    signal: i32,
    /// The file that it waits for, and what it finds in it.
    go: (&'a str, &'a str),
    status: i32,
}

impl<'a> Case<'a> {
    fn new(row: &'a str, command: &'a [&'a str]) -> Case<'a> {
        Case { row, command, settings: &[], signal: USR2, go: ("go", ""), status: 0 }
    }

    fn start(&self, lab: &Lab) -> Runner {
        let mut command = runner(lab, &["--name", "any", "--backoff", "10ms", "--resume"]);
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
        goes_on_by(&run, 20);
        send(pid, KILL);
        assert_eq!(run.wait_for("restored", 1)["pid"], pid, "{}", run.runner.output());
        goes_on_by(&run, 5);
        let (file, text) = self.go;
        // Whole or not at all.
        fs::write(lab.path("written"), text)
            .and_then(|()| fs::rename(lab.path("written"), lab.path(file)))
            .expect("go");
        assert_eq!(run.runner.wait().code(), Some(self.status), "{}", run.runner.output());
        assert_went_back(&run.runner.output());
        self.seen(lab, "comes back");
    }

    /// Holds the table to what was seen.
    fn seen(&self, lab: &Lab, what: &str) {
        let folder = lab.path("");
        let folder = folder.to_str().expect("a path in UTF-8");
        let needs: Vec<String> = self
            .settings
            .iter()
            .map(|(name, value)| format!("`{name}={}`", value.replace(folder, "/data/")))
            .collect();
        let needs = if needs.is_empty() { "—".to_owned() } else { needs.join(" ") };
        row(self.row, &format!("| {} | {what} | {needs} |", self.row));
    }
}

/// The lines that tell of steps, without one that is being written.
fn steps(output: &str) -> Vec<&str> {
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    whole.lines().filter(|line| line.starts_with("step ")).collect()
}

fn goes_on_by(run: &Runner, count: usize) {
    let then = steps(&run.runner.output()).len();
    eventually("it goes on", || (steps(&run.runner.output()).len() > then + count).then_some(()));
}

/// To its checkpoint, and not to its start, and its result is that of an undisturbed run.
fn assert_went_back(output: &str) {
    let result = output.lines().find_map(|line| line.strip_prefix("sum ")).expect("a result");
    let (count, result) = result.split_once(' ').expect("two numbers");
    let count: usize = count.parse().expect("a number");
    assert_eq!(result.parse(), Ok(sum(count as u64)), "{output}");
    let steps = steps(output);
    assert!(steps.len() > count, "it went back: {output}");
    assert_eq!(steps.iter().filter(|line| **line == "step 1").count(), 1, "not to its start: {output}");
}

/// Holds a row of the table to what was seen.
pub fn row(name: &str, row: &str) {
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

#[test]
fn a_c_program() {
    let lab = Lab::new();
    let source = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    unsigned long sum = 0, step = 0;
    while (access("go", F_OK) != 0) {
        step++;
        sum = (sum * 31 + step) % 1000003;
        printf("step %lu\n", step);
        fflush(stdout);
        usleep(10000);
    }
    printf("sum %lu %lu\n", step, sum);
    return 0;
}
"#;
    fs::write(lab.path("any.c"), source).expect("a file");
    succeeds(Command::new("gcc").args(["-O2", "-o", "any", "any.c"]).current_dir(lab.path("")));
    Case::new("a C program", &["./any"]).comes_back(&lab);
}

#[test]
fn bash_and_the_commands_of_its_script() {
    let script = "
        while ! test -e go; do
            sum=$(((sum * 31 + ++step) % 1000003))
            echo step $step
            sleep 0.01
        done
        echo sum $step $sum";
    Case::new("bash, with the commands of its script", &["bash", "-c", script]).comes_back(&Lab::new());
}

#[test]
fn python() {
    let script = "
import os, time
sum = step = 0
while not os.path.exists('go'):
    step += 1
    sum = (sum * 31 + step) % 1000003
    print('step', step, flush=True)
    time.sleep(0.01)
print('sum', step, sum)
";
    Case::new("python", &["/usr/bin/python3", "-c", script]).comes_back(&Lab::new());
}

#[test]
fn perl() {
    let script = r#"
        $| = 1;
        until (-e "go") {
            $sum = ($sum * 31 + ++$step) % 1000003;
            print "step $step\n";
            select(undef, undef, undef, 0.01);
        }
        print "sum $step $sum\n";"#;
    Case::new("perl", &["perl", "-e", script]).comes_back(&Lab::new());
}

#[test]
fn node() {
    let script = "
        let sum = 0, step = 0;
        const timer = setInterval(() => {
            if (require('fs').existsSync('go')) {
                console.log(`sum ${step} ${sum}`);
                clearInterval(timer);
                return;
            }
            step++;
            sum = (sum * 31 + step) % 1000003;
            console.log(`step ${step}`);
        }, 10);";
    Case::new("node", &["node", "-e", script]).comes_back(&Lab::new());
}

/// Its database is written in place, so it has to be copied into the checkpoint. It goes through a script, and ends
/// with the one that it reads after each step.
#[test]
fn the_shell_of_sqlite() {
    let lab = Lab::new();
    let mut script = "CREATE TABLE sums(step INTEGER PRIMARY KEY, sum INTEGER);\n\
                      INSERT INTO sums VALUES(0, 0);\n"
        .to_owned();
    for step in 1..=20_000 {
        script += &format!(
            "INSERT INTO sums SELECT {step}, (sum * 31 + {step}) % 1000003 FROM sums WHERE step = {step} - 1;\n\
             SELECT 'step ' || max(step) FROM sums;\n\
             WITH RECURSIVE pause(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM pause WHERE i < 30000) \
             SELECT 'pause' FROM pause WHERE i = 30000;\n\
             .read go.sql\n"
        );
    }
    fs::write(lab.path("any.sql"), script).and_then(|()| fs::write(lab.path("go.sql"), "")).expect("files");
    // What it prints would stay in its buffer; stdbuf is a library that is preloaded as well.
    let command = ["stdbuf", "-oL", "sqlite3", "any.db", ".read any.sql"];
    // By its whole path, so that a journal that comes in the last moment is found as well.
    let settings = [("SELFDUMP_COPY_FILES", format!("{}*", lab.path("any.db").display()))];
    let end = "SELECT 'sum ' || step || ' ' || sum FROM sums ORDER BY step DESC LIMIT 1;\n.exit 7\n";
    let case = Case::new("sqlite3's shell", &command);
    Case { settings: &settings, go: ("go.sql", end), status: 7, ..case }.comes_back(&lab);
    let rows = "SELECT count(*) = max(step) + 1 FROM sums";
    assert_eq!(succeeds(Command::new("sqlite3").arg(lab.path("any.db")).arg(rows)), "1\n");
}

const JAVA: &str = r#"
public class Any {
    public static void main(String[] none) throws Exception {
        long sum = 0, step = 0;
        while (!new java.io.File("go").exists()) {
            step++;
            sum = (sum * 31 + step) % 1000003;
            System.out.println("step " + step);
            Thread.sleep(10);
        }
        System.out.println("sum " + step + " " + sum);
    }
}
"#;

/// `java -cp . Any` runs it in the lab's folder.
pub fn compile_java(lab: &Lab) {
    fs::write(lab.path("Any.java"), JAVA).expect("a file");
    succeeds(Command::new("javac").arg("Any.java").current_dir(lab.path("")));
}

#[test]
fn java_by_another_signal() {
    let lab = Lab::new();
    compile_java(&lab);
    let signal = [("SELFDUMP_SIGNAL", "RTMIN+3".to_owned())];
    let case = Case::new("java", &["java", "-cp", ".", "Any"]);
    Case { settings: &signal, signal: libc::SIGRTMIN() + 3, ..case }.comes_back(&lab);
}

#[test]
fn java_by_the_signal_that_it_has_for_itself() {
    let lab = Lab::new();
    compile_java(&lab);
    let case = Case::new("java, by SIGUSR2", &["java", "-cp", ".", "Any"]);
    let run = case.start(&lab);
    run.runner.wait_for("step 20");
    send(run.pid(), USR2);
    let end = run.wait_for("ended", 1)["life"]["end"]["signaled"].clone();
    assert!([libc::SIGABRT, SEGV].iter().any(|signal| end == *signal), "{end}");
    assert!(lab.checkpoints().is_empty());
    case.seen(&lab, "dies: it has that signal for itself");
}

#[test]
fn redis_with_the_data_that_was_written_while_it_ran() {
    let lab = Lab::new();
    let (redis, folder) = (Redis::new(), lab.path(""));
    let command = redis.command(folder.to_str().expect("a path in UTF-8"));
    let case = Case::new("redis-server", &command);
    let mut run = case.start(&lab);
    let client = |arguments: &[&str]| redis.client(arguments);
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
    // It has a handler of its own for SIGTERM, and leaves with a checkpoint all the same.
    run.runner.signal(TERM);
    assert_eq!(run.runner.wait().code(), Some(75), "{}", run.runner.output());
    let mut run = case.start(&lab);
    run.wait_for("restored", 1);
    assert_eq!(client(&["dbsize"]), "51");
    client(&["shutdown", "nosave"]);
    assert_eq!(run.runner.wait().code(), Some(0), "{}", run.runner.output());
    case.seen(&lab, "comes back");
}
