//! Programs that know nothing of selfdump, run by `selfdump run` and copied for their checkpoints.

use std::fs;

use super::by_a_copy;
use crate::harness::{KILL, Lab, USR2, eventually, manifest, send};
use crate::redis::Redis;
use crate::run::any::{compile_java, sum};
use crate::run::{Runner, runner};

fn start(lab: &Lab, command: &[&str], settings: &[(&str, &str)]) -> Runner {
    let mut run = runner(lab, &["--name", "any", "--backoff", "10ms", "--resume"]);
    run.args(command)
        .current_dir(lab.path(""))
        .env("SELFDUMP_SNAPSHOT", "cow")
        .envs(settings.iter().copied());
    Runner::start(lab, run)
}

/// Waits for so many checkpoints in all, of which the last is one of a copy.
fn saved(lab: &Lab, run: &Runner, count: usize) {
    run.wait_for("saved", count);
    let newest = lab.checkpoints().pop().expect("a checkpoint");
    assert_eq!(manifest(&newest)["technique"], by_a_copy(), "{}", run.runner.output());
}

/// The lines that tell of steps, without one that is being written.
fn steps(output: &str) -> usize {
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    whole.lines().filter(|line| line.starts_with("step ")).count()
}

fn goes_on(run: &Runner) {
    let then = steps(&run.runner.output());
    eventually("it goes on", || (steps(&run.runner.output()) > then + 20).then_some(()));
}

fn comes_back_twice(lab: &Lab, command: &[&str], settings: &[(&str, &str)], signal: i32) {
    let mut run = start(lab, command, settings);
    run.runner.wait_for("step 20");
    let pid = run.pid();
    for life in 1..=2 {
        send(pid, signal);
        saved(lab, &run, life);
        goes_on(&run);
        send(pid, KILL);
        assert_eq!(run.wait_for("restored", life)["pid"], pid, "{}", run.runner.output());
        goes_on(&run);
    }
    fs::write(lab.path("go"), "").expect("go");
    assert_eq!(run.runner.wait().code(), Some(0), "{}", run.runner.output());
    let output = run.runner.output();
    let result = output.lines().find_map(|line| line.strip_prefix("sum ")).expect("a result");
    let (count, result) = result.split_once(' ').expect("two numbers");
    assert_eq!(result.parse(), Ok(sum(count.parse().expect("a number"))), "{output}");
    assert_eq!(output.lines().filter(|line| *line == "step 1").count(), 1, "not from its start: {output}");
}

#[test]
fn python_with_threads_of_its_own_comes_back() {
    let script = "
import os, threading, time, queue
numbers, sums = queue.Queue(), queue.Queue()
def add():
    total = 0
    while True:
        step = numbers.get()
        total = (total * 31 + step) % 1000003
        sums.put(total)
def spin():
    while True:
        assert sorted(range(2000), reverse=True)[0] == 1999
        time.sleep(0.001)
threading.Thread(target=add, daemon=True).start()
for _ in range(3):
    threading.Thread(target=spin, daemon=True).start()
step = total = 0
while not os.path.exists('go'):
    step += 1
    numbers.put(step)
    total = sums.get()
    print('step', step, flush=True)
    time.sleep(0.01)
print('sum', step, total, flush=True)
";
    comes_back_twice(&Lab::new(), &["/usr/bin/python3", "-c", script], &[], USR2);
}

#[test]
fn java_comes_back() {
    let lab = Lab::new();
    compile_java(&lab);
    let command = ["java", "-Xmx64m", "-XX:-UsePerfData", "-cp", ".", "Any"];
    comes_back_twice(&lab, &command, &[("SELFDUMP_SIGNAL", "RTMIN+3")], libc::SIGRTMIN() + 3);
}

#[test]
fn redis_comes_back_with_what_was_written_up_to_each_copy() {
    let lab = Lab::new();
    let (redis, folder) = (Redis::new(), lab.path(""));
    let mut run = start(&lab, &redis.command(folder.to_str().expect("a path in UTF-8")), &[]);
    let client = |arguments: &[&str]| redis.client(arguments);
    run.runner.wait_for("Ready to accept connections");
    let script = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do \
                  redis.call('set', 'key ' .. i, string.rep('value ' .. i, 50)) end return redis.call('dbsize')";
    // In bursts: no client is connected when it is copied.
    let write = |from: u32, to: u32| client(&["eval", script, "0", &from.to_string(), &to.to_string()]);
    let mut count = 0;
    for life in 1..=3 {
        assert_eq!(write(count, count + 2000), (count + 2000).to_string());
        count += 2000;
        run.runner.signal(USR2);
        saved(&lab, &run, life);
        write(count, count + 100);
        send(run.pid(), KILL);
        run.wait_for("restored", life);
        assert_eq!(client(&["dbsize"]), count.to_string());
        for key in [0, count / 2, count - 1] {
            assert_eq!(client(&["get", &format!("key {key}")]), format!("value {key}").repeat(50));
        }
    }
    client(&["shutdown", "nosave"]);
    assert_eq!(run.runner.wait().code(), Some(0), "{}", run.runner.output());
}

/// What is in its database then has gone on when the program comes back. That is so far right as no transaction is under way
/// at either moment; the program adds to what it finds there.
#[test]
fn a_writer_of_sqlite_without_copies_of_its_files_comes_back_and_its_database_is_whole() {
    let lab = Lab::new();
    let script = "
import os, sqlite3, time
db = sqlite3.connect('any.db', isolation_level=None)
db.execute('CREATE TABLE IF NOT EXISTS rows(id INTEGER PRIMARY KEY, half INTEGER, other INTEGER)')
step = 0
while not os.path.exists('go'):
    step += 1
    db.execute('BEGIN IMMEDIATE')
    db.execute('INSERT INTO rows(half, other) VALUES(?, ?)', (step, -step))
    db.execute('COMMIT')
    print('step', step, flush=True)
    while os.path.exists('hold'):
        print('held', flush=True)
        time.sleep(0.01)
    time.sleep(0.005)
print('bad rows', db.execute('SELECT count(*) FROM rows WHERE half + other <> 0').fetchone()[0], flush=True)
print('check', db.execute('PRAGMA integrity_check').fetchone()[0], flush=True)
";
    // A runner would have it copied, for which all has to stand still.
    let settings = [("SELFDUMP_FILES", "keep:*.db"), ("SELFDUMP_COPY_OPEN", "0")];
    let mut run = start(&lab, &["/usr/bin/python3", "-c", script], &settings);
    run.runner.wait_for("step 20");
    let hold = || {
        let held = || run.runner.output().matches("held").count();
        let before = held();
        fs::write(lab.path("hold"), "").expect("hold");
        eventually("no transaction is under way", || (held() > before + 1).then_some(()));
    };
    hold();
    send(run.pid(), USR2);
    saved(&lab, &run, 1);
    fs::remove_file(lab.path("hold")).expect("go on");
    goes_on(&run);
    hold();
    send(run.pid(), KILL);
    run.wait_for("restored", 1);
    fs::remove_file(lab.path("hold")).expect("go on");
    goes_on(&run);
    fs::write(lab.path("go"), "").expect("go");
    assert_eq!(run.runner.wait().code(), Some(0), "{}", run.runner.output());
    let output = run.runner.output();
    assert!(output.contains("bad rows 0") && output.contains("check ok"), "{output}");
}
