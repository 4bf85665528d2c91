//! The entry point as the first process of a container, under a real runtime: runc, which podman and Docker use.

use serde_json::{Value, json};

use super::machine::{Host, cgroup, criu_prefix, files, install};
use super::*;
use crate::harness::send;

/// What docs/units.md tells to give to the container, besides what a container has.
const MORE: [&str; 4] = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_TIME", YAMAS];

/// It is only missing where the kernel has Yama.
const YAMAS: &str = "CAP_SYS_PTRACE";

/// What a container has: the same as in podman.
const USUAL: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What containers are started from, one after the other: with the same files, volume and capabilities.
struct Image {
    lab: Lab,
}

impl Image {
    /// With no filter of system calls, or with this one.
    fn new(capabilities: &[&str], filter: Option<Value>) -> Image {
        let lab = Lab::new();
        let root = files(&lab);
        install(&ready_made("container/entrypoint.sh"), &root.join("usr/bin/entrypoint.sh"));
        fs::create_dir(lab.path("volume")).expect("a folder");
        let mut config = configuration(&lab, &root, capabilities);
        config["linux"]["seccomp"] = json!(filter);
        fs::write(lab.path("config.json"), config.to_string()).expect("config.json");
        Image { lab }
    }

    /// Starts a container.
    fn start(&self) -> Host {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.lab.path("runc"));
        runc.args(["run", "--bundle"]).arg(self.lab.path("")).arg("train");
        Host::start(&self.lab, &runc)
    }

    /// Starts one, and waits until the program has written more lines than that.
    fn start_and_wait(&self, before: usize) -> Host {
        let mut host = self.start();
        eventually("its lines", || {
            assert!(!host.has_ended(), "{}", host.said());
            (lines(&self.file()) > before).then_some(())
        });
        host
    }

    /// What its containers have said.
    fn said(&self) -> String {
        fs::read_to_string(self.lab.path("host.out")).expect("what they say")
    }

    fn file(&self) -> PathBuf {
        self.lab.path("volume/errand.txt")
    }
}

/// As `podman stop` does; returns the container's status.
fn stop(mut host: Host) -> Option<i32> {
    send(host.process("selfdump"), libc::SIGTERM);
    host.status()
}

/// runc's own idea of a container, made into what the Containerfile says.
fn configuration(lab: &Lab, root: &Path, capabilities: &[&str]) -> Value {
    let spec = Command::new("runc").arg("spec").current_dir(lab.path("")).status();
    assert!(spec.expect("runc: run `cargo xtask setup`, which gets it").success());
    let file = lab.path("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    config["root"] = json!({ "path": root });
    config["linux"]["cgroupsPath"] = json!(format!("/{}/container", cgroup(lab)));
    let process = &mut config["process"];
    process["terminal"] = json!(false);
    process["args"] = json!(["entrypoint.sh", "/usr/bin/errand", "/volume/errand.txt", "/volume/order"]);
    process["env"] = json!([
        "PATH=/usr/sbin:/usr/bin",
        "SELFDUMP_DIR=/volume/checkpoints",
        "SELFDUMP_EVERY=1h",
        format!("SELFDUMP_CRIU={}", lab.criu.display()),
    ]);
    for set in ["bounding", "effective", "permitted"] {
        process["capabilities"][set] = json!(capabilities);
    }
    let bind = |from: &Path, to: &Path, mode| json!({ "source": from, "destination": to, "options": ["bind", mode] });
    let mounts = config["mounts"].as_array_mut().expect("a list");
    mounts.push(bind(&criu_prefix(), &criu_prefix(), "ro"));
    mounts.push(bind(&lab.path("volume"), Path::new("/volume"), "rw"));
    config
}

#[test]
fn the_entry_point_leaves_when_it_is_stopped_and_goes_on_in_the_next_container() {
    let image = Image::new(&[&USUAL[..], &MORE].concat(), None);
    assert_eq!(stop(image.start_and_wait(10)), Some(75));
    let before = unbroken(&image.file());

    let mut next = image.start_and_wait(before);
    order(&image.lab.path("volume/order"), "exit 3");
    assert_eq!(next.status(), Some(3));
    unbroken(&image.file());
    assert!(next.said().contains("restored errand/"), "{}", next.said());
}

#[test]
fn a_container_that_lacks_a_capability_is_told_which() {
    for missing in MORE.into_iter().filter(|capability| *capability != YAMAS) {
        let rest = MORE.into_iter().filter(|capability| *capability != missing);
        let image = Image::new(&USUAL.into_iter().chain(rest).collect::<Vec<_>>(), None);
        // Where there is a checkpoint, it is the restore that fails.
        let said = match stop(image.start_and_wait(10)) {
            Some(75) => {
                let mut next = image.start();
                assert_eq!(next.status(), Some(125), "{}", next.said());
                image.said()
            }
            _ => image.said(),
        };
        assert!(said.contains(&format!("lacks {missing}")), "{missing}: {said}");
    }
}

#[test]
fn a_container_with_a_filter_of_system_calls_is_told_that_it_keeps_criu_out() {
    // Whatever it filters: CRIU has to suspend it, and nobody may who has one himself.
    let harmless = json!({ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" });
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [harmless] });
    let image = Image::new(&[&USUAL[..], &MORE].concat(), Some(filter));
    assert_eq!(stop(image.start_and_wait(10)), Some(128 + libc::SIGTERM));
    assert!(image.said().contains("seccomp filter that CRIU may not suspend"), "{}", image.said());
}
