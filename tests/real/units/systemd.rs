//! The service under a real systemd, in a machine of its own: a container that systemd-nspawn boots.

use std::process::{Output, Stdio};

use super::machine::{Host, criu_prefix, files, install};
use super::*;
use crate::harness::{KILL, send};

const UNIT: &str = "selfdump@errand.service";

/// What systemd-nspawn ends with when its container wants to boot anew, and that is somebody else's business.
const REBOOT: i32 = 133;

/// It is switched off when it is dropped.
struct Machine(Host);

impl Machine {
    /// Boots a machine from its files.
    fn boot(lab: &Lab, root: &Path) -> Machine {
        let mut machine = Machine(Host::start(lab, &nspawn(root)));
        machine.wait_for_boot();
        machine
    }

    /// Until systemd answers. Some units of its own may have failed: there is no module to load here, say.
    fn wait_for_boot(&mut self) {
        eventually("systemd, booted", || {
            assert!(!self.0.has_ended(), "systemd-nspawn can't boot a container here: {}", self.0.said());
            self.0.find("systemd")?;
            ["running", "degraded"].contains(&self.systemctl(&["is-system-running"]).trim()).then_some(())
        });
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg("--target").arg(self.0.process("systemd").to_string());
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

    /// Waits until the service has come back so many times since this boot, and has gone further than that: what it
    /// wrote after its checkpoint it writes again.
    fn wait_for_return(&self, times: usize, file: &Path, before: usize) {
        eventually("its return", || {
            (self.journal().matches("restored errand/").count() >= times).then_some(())
        });
        eventually("its next lines", || (lines(file) > before + 10).then_some(()));
        unbroken(file);
    }

    /// Shuts it down as for a reboot.
    fn shut_down(mut self) {
        self.systemctl(&["reboot"]);
        assert_eq!(self.0.status(), Some(REBOOT), "{}", self.0.said());
    }
}

/// The machine's own systemd-nspawn, by the machine's loader and libraries, so that nothing has to be installed.
fn nspawn(root: &Path) -> Command {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut nspawn = Command::new("env");
    // Without its filter of system calls, which would be CRIU's as well.
    nspawn.arg("SYSTEMD_SECCOMP=0").arg(root.join("lib64/ld-linux-x86-64.so.2"));
    nspawn.arg("--library-path").arg(format!("{0}:{0}/systemd", libraries.display()));
    nspawn.arg(root.join("usr/bin/systemd-nspawn")).arg("--directory").arg(root);
    nspawn.arg(format!("--bind-ro={}", criu_prefix().display()));
    // Without a systemd around it.
    nspawn.args(["--register=no", "--keep-unit"]);
    nspawn.args(["--machine=lab", "--boot", "--console=pipe", "--capability=all"]);
    nspawn
}

/// The files of a machine, with what docs/units.md tells to install.
fn installed(lab: &Lab) -> PathBuf {
    let root = files(lab);
    install(&ready_made("systemd/selfdump@.service"), &root.join("etc/systemd/system/selfdump@.service"));
    fs::create_dir(root.join("etc/selfdump")).expect("a folder");
    let settings = [
        "COMMAND=/usr/bin/errand /var/lib/errand.txt /var/lib/order".to_owned(),
        format!("SELFDUMP_CRIU={}", lab.criu.display()),
        "SELFDUMP_EVERY=1h".to_owned(),
    ];
    fs::write(root.join("etc/selfdump/errand"), settings.join("\n")).expect("the settings");
    root
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
    machine.wait_for_return(1, &file, at_the_stop);

    // SIGUSR2 to the service is a checkpoint; with that it goes on after a crash.
    let newest = || lab.checkpoints().pop();
    let before = newest();
    machine.service(&["kill", "--kill-whom=main", "--signal=USR2"]);
    eventually("a checkpoint", || (newest() > before).then_some(()));
    send(machine.0.process("errand"), KILL);
    machine.wait_for_return(2, &file, lines(&file));
    assert_eq!(machine.property("NRestarts"), "0", "that was the runner's business");

    send(machine.0.process("selfdump"), KILL);
    machine.wait_for_return(3, &file, lines(&file));
    assert_eq!(machine.property("NRestarts"), "1", "systemd's");

    // A shutdown is a stop as well, and a boot is a start.
    machine.shut_down();
    let at_the_shutdown = unbroken(&file);
    let machine = Machine::boot(&lab, &root);
    machine.wait_for_return(1, &file, at_the_shutdown);

    order(&root.join("var/lib/order"), "exit 0");
    eventually("its end", || (machine.property("ActiveState") == "inactive").then_some(()));
    assert_eq!(machine.property("Result"), "success");
    unbroken(&file);
}
