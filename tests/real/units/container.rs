//! The entry point as the first process of a pid and a mount namespace, as a container's runtime starts it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use super::*;
use crate::harness::send;

/// It ends when it is dropped, and all that runs in it.
struct Container(Child);

impl Container {
    fn start(lab: &Lab) -> Container {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]);
        // What CRIU is to dump has to be open in the namespaces that it is dumped in.
        unshare.args([r#"exec setsid "$@" < /dev/null >> "$0" 2>&1"#]).arg(lab.path("container.out"));
        unshare.arg(ready_made("container/entrypoint.sh"));
        unshare.arg(program("errand")).arg(lab.path("errand.txt")).arg(lab.path("order"));
        unshare.envs(lab.environment()).env("SELFDUMP_EVERY", "1h").env("PATH", path());
        unshare.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: it makes one system call, which allocates nothing.
        unsafe { unshare.pre_exec(close_what_is_inherited) };
        Container(unshare.spawn().expect("unshare, of util-linux"))
    }

    /// As `podman stop` does.
    fn stop(&self) {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        let first = eventually("its first process", || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            children.split_whitespace().next().and_then(|pid| pid.parse().ok())
        });
        send(first, libc::SIGTERM);
    }

    fn status(mut self) -> Option<i32> {
        eventually("its end", || self.0.try_wait().expect("a child")).code()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What somebody above us has left open would be open in the program, in a mount namespace that CRIU doesn't see.
fn close_what_is_inherited() -> std::io::Result<()> {
    // SAFETY: plain numbers; it only marks descriptors.
    let marked = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if marked == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn the_entry_point_leaves_when_it_is_stopped_and_goes_on_in_the_next_container() {
    let lab = Lab::new();
    let file = lab.path("errand.txt");
    let first = Container::start(&lab);
    eventually("its first lines", || (lines(&file) > 10).then_some(()));
    first.stop();
    assert_eq!(first.status(), Some(75));
    let before = unbroken(&file);

    let next = Container::start(&lab);
    eventually("its next lines", || (lines(&file) > before).then_some(()));
    order(&lab.path("order"), "exit 3");
    assert_eq!(next.status(), Some(3));
    unbroken(&file);
    let said = fs::read_to_string(lab.path("container.out")).expect("what it says");
    assert!(said.contains("restored errand/"), "{said}");
}
