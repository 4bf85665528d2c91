//! What a CRIU with capabilities by its file gives to who may run it: with those that the setup gives, nothing that
//! leads to other users' processes; with CAP_SYS_PTRACE as well, everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::{Installed, USER, as_user};
use crate::harness::{KILL, Lab, copy_program, eventually, selfdump, send, succeeds};
use crate::trust::{STRANGER, give_away, set_mode};

const SYS_PTRACE: u64 = 1 << 19;
const CHECKPOINT_RESTORE: u64 = 1 << 40;
const SETPCAP: u64 = 1 << 8;

/// A process that only sleeps, ended by its id when it is dropped, also where it was killed and restored.
struct Sleeper(Child);

impl Sleeper {
    fn start(user: u32) -> Sleeper {
        let mut sleep = Command::new("setsid");
        sleep.args(["setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        sleep.args(["sleep", "600"]).current_dir("/");
        let streams = [Stdio::null(), Stdio::null(), Stdio::null()];
        let [stdin, stdout, stderr] = streams;
        let child = sleep.stdin(stdin).stdout(stdout).stderr(stderr).spawn().expect("it starts");
        let sleeper = Sleeper(child);
        let name = format!("/proc/{}/comm", sleeper.pid());
        eventually("it sleeps", || fs::read_to_string(&name).ok().filter(|name| name == "sleep\n"));
        sleeper
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        send(self.pid(), KILL);
        let _ = self.0.wait();
    }
}

/// A folder of the user's in a lab.
fn folder(lab: &Lab, name: &str) -> PathBuf {
    let folder = lab.path(name);
    fs::create_dir(&folder).expect("a folder");
    give_away(&folder, USER);
    folder
}

/// CRIU itself, without selfdump, as whoever wants to do harm would run it.
fn run_criu(criu: &Path, operation: &str, images: &Path, options: &[&str]) -> Output {
    let mut command = as_user(USER, criu);
    command.args([operation, "--unprivileged", "-v4", "-o", "criu.log", "-D"]).arg(images).args(options);
    command.stdin(Stdio::null()).output().expect("criu runs")
}

#[test]
fn an_ordinary_user_can_dump_no_process_of_root_or_of_another_user() {
    let installed = Installed::with(&[], &[]);
    let lab = installed.lab(&[]);
    for (user, name) in [(0, "roots"), (STRANGER, "strangers")] {
        let victim = Sleeper::start(user);
        let images = folder(&lab, name);
        let pid = victim.pid().to_string();
        let said = run_criu(&installed.criu(), "dump", &images, &["--leave-running", "-t", &pid]);
        assert!(!said.status.success(), "{name}");
        let left = fs::read_dir(&images).expect("the folder").flatten();
        let memory = left.filter(|file| file.file_name().to_string_lossy().starts_with("pages-"));
        assert_eq!(memory.count(), 0, "none of its memory was written");
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
        assert!(state.contains(") S "), "it sleeps on: {state}");
    }
}

/// The capabilities that a process gets whose image was forged to have all of some.
fn forged(installed: &Installed, criu: &Path) -> u64 {
    let lab = installed.lab(&[]);
    let images = folder(&lab, "images");
    let victim = Sleeper::start(USER);
    let pid = victim.pid();
    let dumped = run_criu(criu, "dump", &images, &["--leave-running", "-t", &pid.to_string()]);
    assert!(dumped.status.success(), "{}", fs::read_to_string(images.join("criu.log")).unwrap_or_default());
    drop(victim);
    let script = "import sys, pycriu, pathlib
path = pathlib.Path(sys.argv[1])
core = pycriu.images.load(path.open('rb'))
wanted = int(sys.argv[2])
for name in ('cap_prm', 'cap_eff'):
    core['entries'][0]['thread_core']['creds'][name] = [wanted & 0xffffffff, wanted >> 32]
pycriu.images.dump(core, path.open('r+b'))";
    let wanted = SYS_PTRACE | CHECKPOINT_RESTORE | SETPCAP;
    let mut forge = Command::new("/usr/bin/python3");
    forge.env("PYTHONPATH", crate::agreement::crit()).args(["-c", script]);
    succeeds(forge.arg(images.join(format!("core-{pid}.img"))).arg(wanted.to_string()));
    run_criu(criu, "restore", &images, &["--restore-detached"]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    send(pid, KILL);
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    line.map_or(0, |set| u64::from_str_radix(set, 16).expect("a set"))
}

#[test]
fn a_forged_image_gets_no_more_than_criu_has() {
    let installed = Installed::with(&[], &[]);
    let got = forged(&installed, &installed.criu());
    assert_eq!(got & SYS_PTRACE, 0, "{got:x}");
    assert_eq!(got & !(CHECKPOINT_RESTORE | SETPCAP), 0, "{got:x}");
}

#[test]
fn who_may_run_a_criu_with_cap_sys_ptrace_can_trace_root_s_processes() {
    let installed = Installed::with(&[], &[]);
    let mut setcap = Command::new("/usr/sbin/setcap");
    setcap.arg("cap_checkpoint_restore,cap_setpcap,cap_sys_ptrace+eip");
    succeeds(setcap.arg(installed.criu()));
    assert_eq!(forged(&installed, &installed.criu()) & SYS_PTRACE, SYS_PTRACE, "docs/rootless.md says so");
}

#[test]
fn only_a_group_may_run_one_that_is_made_for_it() {
    // There is no other group that is there on every machine and has no members.
    let installed = Installed::with(&["--group", "nogroup"], &[]);
    // Through a shell: setpriv itself has root's rights until it is another program.
    let mut command = as_user(USER, "/bin/sh");
    let denied = command.args(["-c", "\"$0\" --version"]).arg(installed.criu()).output().expect("sh runs");
    assert!(String::from_utf8_lossy(&denied.stderr).contains("Permission denied"), "{denied:?}");
    let mut member = Command::new("setpriv");
    member.args([&format!("--reuid={USER}"), "--regid=65534", "--clear-groups"]);
    member.args(["/bin/sh", "-c", "\"$0\" check --unprivileged"]).arg(installed.criu());
    succeeds(&mut member);
}

#[test]
fn the_setup_refuses_what_others_can_write_to_and_cap_sys_ptrace_for_all() {
    let lab = Lab::new();
    let setup = |arguments: &[&str]| {
        let mut setup = selfdump();
        setup.args(["setup", "--rootless"]).args(arguments).env("SELFDUMP_CRIU", &lab.criu);
        let output = setup.output().expect("selfdump runs");
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let criu = lab.path("criu");
    copy_program(&lab.criu, &criu);
    set_mode(&lab.path(""), 0o777);
    let path = criu.to_str().expect("a path");
    let said = setup(&["--criu", path]);
    assert!(said.contains("(mode 0777)") && said.contains("chmod go-w"), "{said}");
    set_mode(&lab.path(""), 0o700);
    let said = setup(&["--criu", path]);
    assert!(said.contains("able to pass the folders above it"), "{said}");
    let said = setup(&["--ptrace"]);
    assert!(said.contains("--group"), "{said}");
    let said = setup(&["--group", "no-such-group"]);
    assert!(said.contains("groupadd no-such-group"), "{said}");
}

#[test]
fn an_ordinary_user_is_told_what_root_has_to_run() {
    let installed = Installed::with(&[], &[]);
    let told = installed.run("selfdump", &["setup", "--rootless"]).output().expect("it runs");
    assert!(!told.status.success());
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(said.contains("sudo selfdump setup --rootless"), "{said}");
}
