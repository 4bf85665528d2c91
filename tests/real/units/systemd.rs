//! The service under a real systemd, in a machine of its own: a container that systemd-nspawn boots.

use std::fs::File;
use std::process::{Child, Output, Stdio};

use super::*;
use crate::harness::{KILL, criu, send, target};

const UNIT: &str = "selfdump@errand.service";

/// Starts systemd-nspawn of the machine's own (by its own loader, so that nothing has to be installed), without a
/// systemd around it: with a /run and a cgroup of its own, below which it makes those of the machine. Both are seen by
/// it alone, as is that there is only the unified hierarchy.
const BOOT: &str = r#"
set -e
root=$1 cgroup=/sys/fs/cgroup/$2 criu=$3 libraries=$1/usr/lib/x86_64-linux-gnu
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$cgroup"
echo $$ > "$cgroup/cgroup.procs"
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$libraries:$libraries/systemd" \
    "$root/usr/bin/systemd-nspawn" --directory="$root" --bind-ro="$criu" --machine=lab --boot --console=pipe \
    --register=no --keep-unit --capability=all
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

/// What systemd-nspawn ends with when its container wants to boot anew, and that is somebody else's business.
const REBOOT: i32 = 133;

/// It is switched off when it is dropped.
struct Machine {
    said: PathBuf,
    cgroup: String,
    nspawn: Child,
}

impl Machine {
    /// Boots a machine from its files.
    fn boot(lab: &Lab, root: &Path) -> Machine {
        let (said, cgroup) = (lab.path("machine.out"), format!("selfdump-lab-{}", std::process::id()));
        let output = File::create(&said).expect("a file for what it says");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", BOOT, "sh"]);
        unshare.args([root.as_os_str(), cgroup.as_ref(), prefix().as_os_str()]);
        // Without its own filters of system calls, which would be CRIU's as well.
        unshare.env("SYSTEMD_SECCOMP", "0").stdin(Stdio::null());
        unshare.stdout(output.try_clone().expect("a duplicate")).stderr(output);
        let nspawn = unshare.spawn().expect("unshare, of util-linux");
        let mut machine = Machine { said, cgroup, nspawn };
        machine.wait_for_boot();
        machine
    }

    /// Until systemd answers. Some units of its own may have failed: there is no module to load here, say.
    fn wait_for_boot(&mut self) {
        eventually("systemd, booted", || {
            let ended = self.nspawn.try_wait().expect("a child");
            assert!(ended.is_none(), "systemd-nspawn can't boot a container here: {}", self.said());
            let booting = self.processes().iter().any(|(_, name)| name == "systemd");
            let state = if booting { self.systemctl(&["is-system-running"]) } else { String::new() };
            ["running", "degraded"].contains(&state.trim()).then_some(())
        });
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// All processes in it, as they are seen from outside, with their names; each after its parent.
    fn processes(&self) -> Vec<(i32, String)> {
        let mut found = vec![(self.nspawn.id() as i32, String::new())];
        let mut next = 0;
        while let Some(&(pid, _)) = found.get(next) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| {
                let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
                Some((child.parse().ok()?, name.trim().to_owned()))
            }));
            next += 1;
        }
        found
    }

    fn process(&self, name: &str) -> i32 {
        eventually(name, || self.processes().into_iter().find(|process| process.1 == name)).0
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg("--target").arg(self.process("systemd").to_string());
        nsenter.args(["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd"]);
        nsenter.arg(program).args(arguments).stdin(Stdio::null());
        nsenter.output().expect("nsenter, of util-linux")
    }

    /// What systemctl prints; not everything that it is asked for is a success.
    fn systemctl(&self, arguments: &[&str]) -> String {
        let output = self.run("systemctl", arguments);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has systemd do something with the service.
    fn service(&self, what: &[&str]) {
        let output = self.run("systemctl", &[what, &[UNIT]].concat());
        assert!(output.status.success(), "{what:?}: {output:?}\n{}", self.journal());
    }

    /// A property of the service.
    fn property(&self, name: &str) -> String {
        self.systemctl(&["show", "--value", "--property", name, UNIT]).trim().to_owned()
    }

    /// What the service has said since this boot.
    fn journal(&self) -> String {
        let output = self.run("journalctl", &["--boot", "--unit", UNIT, "--output", "cat"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the service has come back so many times since this boot, and has gone on from there.
    fn wait_for_return(&self, times: usize, file: &Path) {
        eventually("its return", || {
            (self.journal().matches("restored errand/").count() >= times).then_some(())
        });
        let lines_then = lines(file);
        eventually("its next lines", || (lines(file) > lines_then + 10).then_some(()));
    }

    /// Shuts it down as for a reboot.
    fn shut_down(mut self) {
        self.systemctl(&["reboot"]);
        let status = eventually("its end", || self.nspawn.try_wait().expect("a child"));
        assert_eq!(status.code(), Some(REBOOT), "{}", self.said());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        // Everything in its pid namespace goes with it.
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
        let clean = Command::new("unshare").args(["--mount", "sh", "-c", CLEAN, "sh", &self.cgroup]).status();
        assert!(
            std::thread::panicking() || clean.is_ok_and(|status| status.success()),
            "its cgroups are left"
        );
    }
}

/// The files of a machine, with what docs/units.md tells to install.
fn installed(lab: &Lab) -> PathBuf {
    let (made, root) = (target().join("machine"), lab.path("machine"));
    assert!(made.is_dir(), "no machine at {}: run `cargo xtask setup`, which makes one", made.display());
    let copied = Command::new("cp").args(["--archive", "--reflink=auto"]).args([&made, &root]).status();
    assert!(copied.expect("cp").success());
    let copy = |from: &Path, to: &str| fs::copy(from, root.join(to)).expect("a copy");
    copy(Path::new(selfdump().get_program()), "usr/bin/selfdump");
    copy(&program("errand"), "usr/bin/errand");
    copy(&ready_made("systemd/selfdump@.service"), "etc/systemd/system/selfdump@.service");
    fs::create_dir(root.join("etc/selfdump")).expect("a folder");
    let settings = [
        "COMMAND=/usr/bin/errand /var/lib/errand.txt /var/lib/order".to_owned(),
        format!("SELFDUMP_CRIU={}", lab.criu.display()),
        "SELFDUMP_EVERY=1h".to_owned(),
    ];
    fs::write(root.join("etc/selfdump/errand"), settings.join("\n")).expect("the settings");
    std::os::unix::fs::symlink(root.join("var/lib/selfdump"), lab.store()).expect("a link");
    root
}

/// The folder of a CRIU that needs nothing outside of it.
fn prefix() -> PathBuf {
    let criu = fs::canonicalize(criu()).expect("its path");
    let prefix = criu.ancestors().nth(2).expect("PREFIX/bin/criu").to_owned();
    let private = prefix.join("release").is_file();
    assert!(private, "{} is no copy that `cargo xtask setup` makes", prefix.display());
    prefix
}

#[test]
fn the_service_goes_on_after_a_stop_a_crash_the_end_of_its_runner_and_a_reboot() {
    let lab = Lab::new();
    let root = installed(&lab);
    let file = root.join("var/lib/errand.txt");
    let machine = Machine::boot(&lab, &root);
    machine.service(&["enable", "--now"]);
    eventually("its first lines", || (lines(&file) > 10).then_some(()));

    // A stop is a checkpoint, and no failure.
    machine.service(&["stop"]);
    let at_the_stop = unbroken(&file);
    let end = ["ActiveState", "Result", "ExecMainStatus"].map(|name| machine.property(name));
    assert_eq!(end, ["inactive", "success", "75"], "{}", machine.journal());
    machine.service(&["start"]);
    machine.wait_for_return(1, &file);
    assert!(unbroken(&file) > at_the_stop);

    // SIGUSR2 to the service is a checkpoint; with that it goes on after a crash.
    let newest = || lab.checkpoints().pop();
    let before = newest();
    machine.service(&["kill", "--kill-whom=main", "--signal=USR2"]);
    eventually("a checkpoint", || (newest() > before).then_some(()));
    send(machine.process("errand"), KILL);
    machine.wait_for_return(2, &file);
    assert_eq!(machine.property("NRestarts"), "0", "that was the runner's business");
    unbroken(&file);

    send(machine.process("selfdump"), KILL);
    machine.wait_for_return(3, &file);
    assert_eq!(machine.property("NRestarts"), "1", "systemd's");
    unbroken(&file);

    // A shutdown is a stop as well, and a boot is a start.
    machine.shut_down();
    let at_the_shutdown = unbroken(&file);
    let machine = Machine::boot(&lab, &root);
    machine.wait_for_return(1, &file);
    assert!(unbroken(&file) > at_the_shutdown);

    order(&root.join("var/lib/order"), "exit 0");
    eventually("its end", || (machine.property("ActiveState") == "inactive").then_some(()));
    assert_eq!(machine.property("Result"), "success");
    unbroken(&file);
}
