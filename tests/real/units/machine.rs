//! A small machine: its files, which `cargo xtask setup` has made, and the place in which a container of them is run.

use std::ffi::OsStr;
use std::fs::File;
use std::process::{Child, Stdio};

use super::*;
use crate::harness::{copy_program, criu, target};

/// The files of a machine in which the command and `errand` are installed; the lab's store is the one in it.
pub fn files(lab: &Lab) -> PathBuf {
    let (made, root) = (target().join("machine"), lab.path("machine"));
    assert!(made.is_dir(), "no machine at {}: run `cargo xtask setup`, which makes one", made.display());
    let copied = Command::new("cp").args(["--archive", "--reflink=auto"]).args([&made, &root]).status();
    assert!(copied.expect("cp").success());
    install(Path::new(selfdump().get_program()), &root.join("usr/bin/selfdump"));
    install(&program("errand"), &root.join("usr/bin/errand"));
    std::os::unix::fs::symlink(root.join("var/lib/selfdump"), lab.store()).expect("a link");
    root
}

pub fn install(file: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("its folder")).expect("a folder");
    copy_program(file, to);
}

/// The folder of CRIU, which needs nothing outside of it, and nothing but to be found at the same path.
pub fn criu_prefix() -> PathBuf {
    let criu = fs::canonicalize(criu()).expect("its path");
    let prefix = criu.ancestors().nth(2).expect("PREFIX/bin/criu").to_owned();
    let private = prefix.join("release").is_file();
    assert!(private, "{} is no copy that `cargo xtask setup` makes", prefix.display());
    prefix
}

/// Runs a program that makes containers as if no other were there: with process ids, a /run and cgroups of its own. It
/// sees only the unified hierarchy of cgroups, whatever the machine uses, and in that may have those below `$1`.
const ENTER: &str = r#"
set -e
cgroup=/sys/fs/cgroup/$1
shift
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$cgroup" "$cgroup/outside"
echo $$ > "$cgroup/outside/cgroup.procs"
exec "$@"
"#;

/// Removes the cgroups that are left of it, once the last process of it is gone.
const CLEAN: &str = r#"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup/$1 attempts=0
while [ -d "$cgroup" ] && [ "$attempts" -lt 100 ]; do
    find "$cgroup" -depth -type d -exec rmdir {} + 2> /dev/null || sleep 0.1
    attempts=$((attempts + 1))
done
[ ! -d "$cgroup" ]
"#;

/// A program that makes containers. It ends when it is dropped, with all that runs in them.
pub struct Host {
    program: Child,
    cgroup: String,
    said: PathBuf,
}

impl Host {
    pub fn start(lab: &Lab, command: &Command) -> Host {
        let (said, cgroup) = (lab.path("host.out"), cgroup(lab));
        let output = File::options().create(true).append(true).open(&said).expect("a file for what it says");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", ENTER, "sh"]);
        unshare.arg(&cgroup).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        unshare.stdout(output.try_clone().expect("a duplicate")).stderr(output);
        Host { program: unshare.spawn().expect("unshare, of util-linux"), cgroup, said }
    }

    /// What it says, and what is said in its containers where that leads to it.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> bool {
        self.program.try_wait().expect("a child").is_some()
    }

    /// Waits for its end.
    pub fn status(&mut self) -> Option<i32> {
        eventually("its end", || self.program.try_wait().expect("a child")).code()
    }

    /// The first process of this name below it, as it is seen from outside.
    pub fn find(&self, name: &str) -> Option<i32> {
        let mut known = vec![self.program.id() as i32];
        let mut next = 0;
        while let Some(&pid) = known.get(next) {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if comm.trim() == name {
                return Some(pid);
            }
            known.extend(children(pid));
            next += 1;
        }
        None
    }

    /// The same, as soon as there is one.
    pub fn process(&self, name: &str) -> i32 {
        eventually(name, || self.find(name))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        let _ = self.program.kill();
        let _ = self.program.wait();
        let clean = Command::new("unshare").args(["--mount", "sh", "-c", CLEAN, "sh", &self.cgroup]).status();
        let is_clean = clean.is_ok_and(|status| status.success());
        assert!(is_clean || std::thread::panicking(), "the cgroup {} is left", self.cgroup);
    }
}

/// The children of all threads of a process.
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().map_while(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A name that no other test has, of any run.
pub fn cgroup(lab: &Lab) -> String {
    let folder = lab.path("");
    format!("selfdump-lab-{}", folder.file_name().map(OsStr::to_string_lossy).unwrap_or_default())
}
