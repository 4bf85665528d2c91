//! The real CRIU, as a service of the test and as a worker that is found from outside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::fake;
use crate::harness::{Lab, eventually, send};

pub const STOP: i32 = 19;
pub const CONTINUE: i32 = 18;

/// A `criu service` of the test's own. Its socket and it are gone when it is dropped.
pub struct Service {
    child: Child,
    socket: PathBuf,
}

impl Service {
    pub fn start(lab: &Lab, socket: &Path) -> Service {
        let _ = fs::remove_file(socket);
        let folder = lab.path("service");
        fs::create_dir_all(&folder).expect("a folder for the service");
        let said = File::create(folder.join("output")).expect("a file");
        let mut command = Command::new(&lab.criu);
        command.args(["service", "-v2", "-o", "service.log", "--address"]).arg(socket).arg("-W").arg(&folder);
        let errors = said.try_clone().expect("a duplicate");
        let child = command.stdin(Stdio::null()).stdout(said).stderr(errors).spawn().expect("criu starts");
        eventually("the service", || fake::connect(socket).ok());
        Service { child, socket: socket.to_owned() }
    }

    /// It takes no more part, but its socket stays and takes connections.
    pub fn hangs(&self) {
        send(self.child.id() as i32, STOP);
    }

    pub fn goes_on(&self) {
        send(self.child.id() as i32, CONTINUE);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// The worker of a program of this lab: nobody's child, but what it says goes to a file in the store.
pub fn worker(lab: &Lab) -> Option<i32> {
    let store = lab.store();
    processes()
        .find(|pid| fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|output| output.starts_with(&store)))
}

/// The children of a process, those included that have ended and were not waited for.
pub fn children(parent: i32) -> Vec<i32> {
    let parent_of = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat[stat.rfind(')')? + 1..].split_ascii_whitespace().nth(1)?.parse().ok()
    };
    processes().filter(|&pid| parent_of(pid) == Some(parent)).collect()
}

/// The descriptors of a process, and how many threads it has.
pub fn held_by(pid: i32) -> (BTreeMap<String, String>, usize) {
    let list = |of: &str| fs::read_dir(format!("/proc/{pid}/{of}")).expect("a process").flatten();
    let target = |path: &Path| fs::read_link(path).unwrap_or_default().display().to_string();
    let open = list("fd").map(|fd| (fd.file_name().to_string_lossy().into_owned(), target(&fd.path())));
    (open.collect(), list("task").count())
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
