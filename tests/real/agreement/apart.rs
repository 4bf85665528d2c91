//! Of programs that are apart from CRIU, in namespaces of their own: of those it makes images as well.
//!
//! The library's CRIU is in the program's own namespaces, so here CRIU is asked from outside, without any library, and
//! the program is over with the dump.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use selfdump::inspect::messages_in;
use serde_json::{Value, json};

use super::back::written_back;
use super::crit::compare_all;
use super::programs::{DEVICES, IPC, LEAVE_MOUNTS, MOUNTED};
use crate::harness::{KILL, Lab, eventually, oldest_criu, send};

/// Has nothing open that comes from outside, and waits.
const PYTHON: &str = r#"
import ctypes, os, sys, time, socket, subprocess, fcntl, struct
libc = ctypes.CDLL(None, use_errno=True)
folder = sys.argv[1]
out = os.open(folder + "/out", os.O_RDWR | os.O_CREAT | os.O_APPEND)
for fd in range(3): os.dup2(out, fd)
os.closerange(3, 1000)
exec(sys.argv[2])
print("ready", flush=True)
while True: time.sleep(0.05)
"#;

/// Leaves the mounts that it can do without, and becomes another program.
const LEAVING: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
folder = sys.argv[1]
exec(sys.argv[2])
os.execvp(sys.argv[3], sys.argv[3:])
"#;

/// A program in namespaces of its own. It and `unshare` are over when this is dropped.
struct Apart {
    lab: Lab,
    unshare: Child,
    pid: i32,
}

impl Apart {
    /// In the namespaces that unshare's options say.
    fn start(options: &[&str], body: &str) -> Apart {
        Apart::start_in(Lab::new(), options, body)
    }

    fn start_in(lab: Lab, options: &[&str], body: &str) -> Apart {
        Apart::after(Command::new("unshare"), lab, options, body)
    }

    /// The same, as a user who is root only there, for whom the machine's mounts would be locked.
    fn start_as_another_user(options: &[&str], body: &str) -> Apart {
        let lab = Lab::new();
        let mut leaving = Command::new("unshare");
        leaving.args(["--mount", "python3", "-c", LEAVING]).arg(lab.path("folder")).arg(LEAVE_MOUNTS);
        leaving.args(["unshare", "--user", "--map-root-user"]);
        Apart::after(leaving, lab, options, body)
    }

    fn after(mut unshare: Command, lab: Lab, options: &[&str], body: &str) -> Apart {
        let folder = lab.path("folder");
        fs::create_dir(&folder).expect("a folder");
        // A session whose leader is outside of the pid namespace is one that CRIU doesn't dump.
        unshare.args(["--pid", "--fork", "--kill-child"]).args(options).args(["setsid", "python3", "-c"]);
        unshare.arg(PYTHON).arg(&folder).arg(body);
        let unshare =
            unshare.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("unshare, of util-linux");
        let said = || fs::read_to_string(folder.join("out")).unwrap_or_default();
        let mut apart = Apart { lab, unshare, pid: 0 };
        eventually("the program in its namespaces", || {
            assert!(!said().contains("Error"), "{}", said());
            let ended = apart.unshare.try_wait().expect("a child");
            assert!(ended.is_none(), "unshare: {ended:?}");
            said().contains("ready").then_some(())
        });
        let unshare = apart.unshare.id();
        let children =
            fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("a list");
        apart.pid = children.trim().parse().expect("one child");
        apart
    }

    /// Its pid namespace, as CRIU has it named.
    fn pid_namespace(&self) -> String {
        let namespace = fs::metadata(format!("/proc/{}/ns/pid", self.pid)).expect("a namespace");
        format!("pid[{}]:ours", namespace.ino())
    }

    /// Dumps it, holds all that is in the images against what crit reads and what is written back. Which kinds there are.
    fn agree(self, options: &[&str]) -> BTreeSet<String> {
        let images = self.lab.path("images");
        fs::create_dir(&images).expect("a folder");
        let mut criu = Command::new(&self.lab.criu);
        criu.args(["dump", "-o", "dump.log", "-t"]).arg(self.pid.to_string()).arg("-D").arg(&images);
        let done = criu.args(options).output().expect("criu runs");
        let log = || fs::read_to_string(images.join("dump.log")).unwrap_or_default();
        let errors = || log().lines().filter(|line| line.contains("Error")).collect::<Vec<_>>().join("\n");
        assert!(done.status.success(), "{done:?}\n{}", errors());
        compare(&images);
        written_back(&images)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if self.pid > 0 {
            send(self.pid, KILL);
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

fn compare(images: &Path) -> BTreeMap<String, usize> {
    let files = fs::read_dir(images).expect("a folder").map(|entry| entry.expect("an entry").path());
    compare_all(&files.filter_map(listed).collect::<Vec<_>>(), images)
}

/// What `selfdump images` says of an image.
fn listed(path: PathBuf) -> Option<Value> {
    let name = path.file_name()?.to_str()?.to_owned();
    let messages = messages_in(&name, File::open(&path).expect("an image")).expect("a whole image")?;
    let messages: Vec<_> = messages.map(|message| message.expect("a message")).collect();
    Some(json!({ "name": name, "content": "messages", "messages": messages }))
}

/// Each of these kinds is among those that were compared.
fn assert_has(kinds: &BTreeSet<String>, wanted: &[&str]) {
    let missing: Vec<_> = wanted.iter().filter(|kind| !kinds.contains(**kind)).collect();
    assert!(missing.is_empty(), "no {missing:?} in {kinds:?}");
}

#[test]
fn of_a_program_with_objects_and_names_of_its_own() {
    let apart = Apart::start(&["--ipc", "--uts"], IPC);
    let kinds = apart.agree(&[]);
    assert_has(&kinds, &["ipcns-var", "ipcns-shm", "ipcns-sem", "ipcns-msg", "utsns", "pagemap-shmem"]);
}

#[test]
fn of_a_program_with_a_network_of_its_own() {
    let kinds = Apart::start(&["--net"], DEVICES).agree(&[]);
    assert_has(&kinds, &["netns", "netdev", "ifaddr", "route", "route6", "rule"]);
}

#[test]
fn of_a_program_with_mounts_of_its_own() {
    let body = [LEAVE_MOUNTS, MOUNTED].concat();
    let kinds = Apart::start(&["--mount", "--mount-proc"], &body).agree(&[]);
    assert_has(&kinds, &["mountpoints", "tmpfs-dev"]);
}

#[test]
fn of_a_program_whose_user_is_another_one_outside() {
    let kinds = Apart::start_as_another_user(&["--mount", "--mount-proc"], MOUNTED).agree(&[]);
    assert_has(&kinds, &["userns", "mountpoints"]);
}

#[test]
fn of_a_program_whose_pid_namespace_has_a_name() {
    let apart = Apart::start(&[], "");
    let external = apart.pid_namespace();
    assert_has(&apart.agree(&["--external", &external]), &["pidns"]);
}

#[test]
fn of_a_program_with_clocks_and_control_groups_of_its_own() {
    let kinds = Apart::start(&["--time", "--cgroup"], "").agree(&["--manage-cgroups=soft"]);
    assert_has(&kinds, &["cgroup", "timens"]);
}

#[test]
fn of_a_program_apart_that_the_oldest_criu_dumped() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    let options = ["--ipc", "--uts", "--mount", "--mount-proc", "--net"];
    let kinds = Apart::start_in(lab, &options, &[LEAVE_MOUNTS, MOUNTED, IPC].concat()).agree(&[]);
    assert_has(&kinds, &["ipcns-msg", "ipcns-shm", "utsns", "netdev", "netns", "mountpoints", "tmpfs-dev"]);
}
