//! Programs that crash, and come back.

use super::*;
use crate::harness::write_script;

const ROUNDS: usize = 50;

/// Random moments; the seed is printed, and can be given.
struct Moments(u64);

impl Moments {
    fn new() -> Moments {
        let given = std::env::var("SELFDUMP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
        let seed = given.unwrap_or(now.as_nanos() as u64);
        println!("SELFDUMP_TEST_SEED={seed}");
        Moments(seed | 1)
    }

    fn within(&mut self, span: Duration) -> Duration {
        // xorshift64 (Marsaglia, 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        span.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[test]
fn fifty_kills_at_random_moments_lose_and_double_no_line() {
    let lab = Lab::new();
    let options = ["--every", "150ms", "--restarts", "unlimited", "--backoff", "0"];
    let mut run = Runner::start(&lab, errand(&lab, &options));
    let mut moments = Moments::new();
    lab.wait_for_checkpoint(1);
    let pid = run.pid();
    for round in 1..=ROUNDS {
        std::thread::sleep(moments.within(Duration::from_millis(400)));
        send(pid, KILL);
        let ended = run.wait_for("ended", round);
        assert_eq!((&ended["crashed"], &ended["life"]["end"]["signaled"]), (&true.into(), &KILL.into()));
        assert_eq!(run.wait_for("restored", round)["pid"], pid, "{ended}");
    }
    goes_on(&lab);
    // What CRIU needs for a checkpoint comes to the runner as an orphan, and is gone again.
    eventually("no child but the program", || (children(run.runner.pid()) == [pid]).then_some(()));
    order(&lab, "exit 0");
    assert_eq!(run.runner.wait().code(), Some(0));
    assert_unbroken(&lab);
    assert!(!is_there(pid));
}

#[test]
fn a_crash_that_comes_again_goes_back_to_an_older_checkpoint_and_then_is_given_up() {
    let lab = Lab::new();
    order(&lab, "segv 700");
    let options = ["--every", "150ms", "--keep", "4", "--restarts", "unlimited", "--backoff", "10ms"];
    let mut run = Runner::start(&lab, errand(&lab, &options));
    assert!(died_of(run.runner.wait(), SEGV), "{}", run.runner.output());
    let from: Vec<String> =
        run.all("restored").iter().map(|event| event["checkpoint"].as_str().unwrap().to_owned()).collect();
    assert!(from.iter().zip(&from[1..]).any(|(one, next)| next < one), "an older one: {from:?}");
    let gave_up = run.wait_for("gave-up", 1);
    assert_eq!(gave_up["reason"], "same-place", "{gave_up}");
    let lives = gave_up["lives"].as_array().unwrap();
    assert_eq!(lives.len(), from.len() + 1, "{gave_up}");
    assert_eq!((&lives[0]["start"], &lives[0]["end"]["signaled"]), (&"command".into(), &SEGV.into()));
    let said = run.runner.output();
    assert!(said.contains("gave up: it crashes at the same place, whichever checkpoint"), "{said}");
    assert!(
        said.contains("1. started, died of SIGSEGV after ") && said.contains(" 2. from errand/"),
        "{said}"
    );
    assert_unbroken(&lab);
}

#[test]
fn where_there_is_no_checkpoint_it_is_started_anew_as_often_as_it_may_be() {
    let lab = Lab::new();
    order(&lab, "segv");
    let mut run = Runner::start(&lab, errand(&lab, &["--restarts", "2", "--backoff", "10ms"]));
    assert!(died_of(run.runner.wait(), SEGV));
    let anew: Vec<Value> = run.all("started").iter().map(|event| event["anew"].clone()).collect();
    assert_eq!(anew, [false, true, true]);
    assert_eq!(run.wait_for("gave-up", 1)["reason"], "restarts");
    let waits: Vec<Value> =
        run.all("waiting").iter().map(|event| event["crashes_in_a_row"].clone()).collect();
    assert_eq!(waits, [1, 2]);
}

#[test]
fn a_failure_brings_it_back_where_that_is_wanted() {
    let lab = Lab::new();
    let options = ["--every", "200ms", "--restart-on-failure", "--restarts", "1", "--backoff", "10ms"];
    let mut run = Runner::start(&lab, errand(&lab, &options));
    lab.wait_for_checkpoint(1);
    order(&lab, "exit 3");
    assert_eq!(run.runner.wait().code(), Some(3), "{}", run.runner.output());
    assert_eq!(run.all("restored").len(), 1);
    assert_eq!(run.wait_for("gave-up", 1)["reason"], "restarts");
}

#[test]
fn a_checkpoint_that_does_not_come_back_is_passed_over() {
    let lab = Lab::new();
    let mut run = Runner::start(&lab, errand(&lab, &[]));
    eventually("its first lines", || (lines(&lab) > 10).then_some(()));
    run.runner.signal(USR2);
    lab.wait_for_checkpoint(1);
    run.wait_for("saved", 1);
    run.runner.signal(TERM);
    run.runner.wait();
    drop(run);
    let [older, newer]: [PathBuf; 2] = lab.checkpoints().try_into().expect("two");
    fs::remove_file(newer.join("images/inventory.img")).unwrap();

    let mut run = Runner::start(&lab, errand(&lab, &["--resume"]));
    let passed_over = run.wait_for("not-restored", 1);
    assert!(newer.ends_with(passed_over["checkpoint"].as_str().unwrap()), "{passed_over}");
    assert_eq!(passed_over["error"]["kind"], "damaged");
    let restored = run.wait_for("restored", 1);
    assert!(older.ends_with(restored["checkpoint"].as_str().unwrap()), "{restored}");
    order(&lab, "exit 0");
    assert_eq!(run.runner.wait().code(), Some(0));
    assert_unbroken(&lab);
    assert!(run.runner.output().contains("selfdump: can't restore errand/"), "{}", run.runner.output());
}

#[test]
fn a_criu_that_is_killed_while_it_brings_the_program_back_is_asked_once_more() {
    let mut lab = Lab::new();
    let (criu, killed) = (lab.path("criu-that-may-be-killed"), lab.path("is-killed"));
    let script = "#!/bin/sh\nrm IS_KILLED 2>/dev/null && kill -KILL $$\nexec CRIU \"$@\"\n";
    let script = script.replace("IS_KILLED", killed.to_str().unwrap());
    write_script(&criu, script.replace("CRIU", lab.criu.to_str().unwrap()));
    lab.criu = criu;
    let mut run = Runner::start(&lab, errand(&lab, &["--backoff", "10ms"]));
    let pid = run.pid();
    for number in 1..=2 {
        eventually("its next lines", || (lines(&lab) > 10 * number).then_some(()));
        send(pid, USR2);
        lab.wait_for_checkpoint(number as u64);
    }
    run.wait_for("saved", 1);
    fs::write(&killed, "").unwrap();
    send(pid, KILL);
    let restored = run.wait_for("restored", 1);
    let failed = run.all("not-restored");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let newest = lab.checkpoints().pop().unwrap();
    for event in [&failed[0], &restored] {
        assert!(newest.ends_with(event["checkpoint"].as_str().unwrap()), "the newest: {event}");
    }
    order(&lab, "exit 0");
    assert_eq!(run.runner.wait().code(), Some(0));
    assert_unbroken(&lab);
}

#[test]
fn the_children_that_a_crash_leaves_end_and_come_back_with_their_parent() {
    let lab = Lab::new();
    let mut command = runner(&lab, &["--backoff", "10ms"]);
    command.arg(program("family")).args(["1", "fork"]);
    let run = Runner::start(&lab, command);
    let pid = run.pid();
    run.runner.wait_for(" asked and got ");
    send(pid, USR2);
    lab.wait_for_checkpoint(1);
    run.wait_for("saved", 1);
    let child = children(pid);
    assert_eq!(child.len(), 1);
    send(pid, KILL);
    run.wait_for("restored", 1);
    assert_eq!(children(pid), child);
    drop(run);
    eventually("its end", || (!is_there(pid)).then_some(()));
    send(child[0], KILL);
}
