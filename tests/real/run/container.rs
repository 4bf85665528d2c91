//! The runner as the first process of a pid namespace, as in a container; and the next container.

use std::os::unix::process::CommandExt;
use std::process::Child;

use super::*;

/// A pid namespace with a mount namespace, in which `selfdump run` is the first process. It ends when it is dropped.
struct Container {
    unshare: Child,
    events: PathBuf,
}

impl Container {
    fn start(lab: &Lab, events: &str, options: &[&str]) -> Container {
        let events = lab.path(events);
        let mut json = std::ffi::OsString::from("--json=");
        json.push(&events);
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]);
        // What CRIU is to dump has to be open in the namespaces that it is dumped in.
        unshare.args([r#"exec setsid "$@" < /dev/null >> "$0" 2>&1"#]).arg(lab.path("runner.out"));
        unshare.arg(selfdump().get_program()).arg("run").arg(json).args(options).arg("--");
        unshare.arg(program("errand")).arg(lab.path("errand.txt")).arg(lab.path("order"));
        unshare.envs(lab.environment()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: it makes one system call, which allocates nothing.
        unsafe { unshare.pre_exec(close_what_is_inherited) };
        Container { unshare: unshare.spawn().expect("unshare, of util-linux"), events }
    }

    /// The runner, as it is seen from outside.
    fn runner(&self) -> i32 {
        eventually("the runner", || children(self.unshare.id() as i32).pop())
    }

    fn wait_for(&self, kind: &str) -> Value {
        let found = || read(&self.events).into_iter().find(|event| event["event"] == kind);
        eventually(&format!("{kind}, in {:?}", self.events), found)
    }

    fn status(mut self) -> Option<i32> {
        eventually("its end", || self.unshare.try_wait().expect("a child")).code()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// What somebody above us has left open would be open in the program, in a mount namespace that CRIU doesn't see.
fn close_what_is_inherited() -> std::io::Result<()> {
    // SAFETY: plain numbers; it only marks descriptors.
    let marked = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if marked == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Ends a first container by a signal to the runner, and returns its status once the next one has gone on to the end.
fn ended_by(signal: i32) -> Option<i32> {
    let lab = Lab::new();
    let options = ["--every", "200ms", "--backoff", "10ms", "--resume"];
    let first = Container::start(&lab, "first", &options);
    lab.wait_for_checkpoint(1);
    send(first.runner(), signal);
    let status = first.status();

    let next = Container::start(&lab, "next", &options);
    next.wait_for("restored");
    goes_on(&lab);
    order(&lab, "exit 3");
    assert_eq!(next.status(), Some(3));
    assert_unbroken(&lab);
    status
}

#[test]
fn a_container_that_is_stopped_leaves_with_a_checkpoint_and_the_next_one_goes_on() {
    assert_eq!(ended_by(TERM), Some(75));
}

#[test]
fn a_container_that_is_killed_has_taken_its_program_with_it_and_the_next_one_goes_on() {
    assert_ne!(ended_by(KILL), Some(0));
}

#[test]
fn the_first_process_of_a_container_passes_a_death_by_a_signal_on_as_a_status() {
    let lab = Lab::new();
    let container = Container::start(&lab, "events", &["--restarts", "0"]);
    eventually("its first lines", || (lines(&lab) > 3).then_some(()));
    order(&lab, "segv");
    assert_eq!(container.status(), Some(128 + SEGV));
}
