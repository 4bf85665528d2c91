//! `selfdump service`: ordinary users' programs, dumped by it with the real CRIU, and everything that it has to refuse.
//!
//! The users are made for that. Their programs lie in the lab, since the target folder may be where only its owner gets to.

mod ends;
mod faults;
mod forged;
mod hostile;
mod people;
mod restores;
mod runs;
mod users;
mod words;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Lab, Launch, Subject, copy_program, criu, eventually, program, read_json, selfdump};
use people::People;

const ONE: u32 = 4_200_001;
const OTHER: u32 = 4_200_002;

const TERM: i32 = 15;

/// A service of its own in a lab, and users beside it.
struct Served {
    service: Subject,
    lab: Lab,
    _people: People,
}

impl Served {
    fn new(options: &[&str]) -> Served {
        Served::by(&criu(), options)
    }

    /// With a certain CRIU.
    fn by(criu: &Path, options: &[&str]) -> Served {
        let (_people, lab) = (People::come(), Lab::new());
        // Others have to get to their programs and folders in it.
        fs::set_permissions(lab.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["chain", "family", "speaker"] {
            copy_program(program(name), &lab.path(name));
        }
        for user in [ONE, OTHER] {
            folder_of(&lab.path(&format!("store-{user}")), user, 0o700);
            folder_of(&lab.path(&format!("run-{user}")), user, 0o700);
        }
        let service = start(&lab, criu, options);
        Served { service, lab, _people }
    }

    fn socket(&self) -> PathBuf {
        socket(&self.lab)
    }

    /// A program in the lab, as a user's, that knows of the service.
    fn launch(&self, user: u32, name: &str) -> Launch {
        self.lab
            .launch(Command::new(self.lab.path(name)), &format!("{name}-{user}"))
            .env("SELFDUMP_DIR", self.store(user))
            .env("SELFDUMP_SERVICE", self.socket())
            .env("XDG_RUNTIME_DIR", self.lab.path(&format!("run-{user}")))
            .env("HOME", people::home(user))
            .env("SELFDUMP_NAME", name)
            .env("SELFDUMP_LOG", "debug")
            .env_remove("SELFDUMP_CRIU")
            .user(user)
    }

    fn store(&self, user: u32) -> PathBuf {
        self.lab.path(&format!("store-{user}"))
    }

    /// What a user's `speaker` hears.
    fn speak(&self, user: u32, operations: &[String]) -> String {
        let mut speaker = Command::new(self.lab.path("speaker"));
        speaker.arg(self.socket()).args(operations).stdin(Stdio::null()).current_dir("/");
        use std::os::unix::process::CommandExt;
        let said = speaker.uid(user).gid(user).output().expect("the speaker");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// A new folder of a user's, for images.
    fn images(&self, user: u32, name: &str) -> PathBuf {
        let folder = self.store(user).join(name);
        folder_of(&folder, user, 0o700);
        folder
    }

    /// The newest checkpoint of a user's program.
    fn checkpoints(&self, user: u32, name: &str) -> Vec<PathBuf> {
        let instances = fs::read_dir(self.store(user).join(name)).into_iter().flatten().flatten();
        let all =
            instances.flat_map(|instance| fs::read_dir(instance.path()).into_iter().flatten().flatten());
        let is_one = |path: &PathBuf| {
            path.file_name().unwrap().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
        };
        all.map(|entry| entry.path()).filter(is_one).collect()
    }

    /// The last attempt of a user's program, once it is over: it has `saved` a checkpoint, or not.
    fn attempt(&self, user: u32, name: &str, saved: bool) -> serde_json::Value {
        let attempt = eventually("the end of the attempt", || {
            let instances = fs::read_dir(self.store(user).join(name)).into_iter().flatten().flatten();
            let status = |instance: fs::DirEntry| read_json(&instance.path().join("status.json"));
            instances.filter_map(status).map(|status| status["last"].clone()).find(|last| !last.is_null())
        });
        assert_eq!(attempt["saved"], saved, "{attempt}");
        attempt
    }

    /// The worker that runs as a user for the service, or the program that it has brought back.
    fn worker(&self) -> Option<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.service.pid())).ok()?.flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .find_map(|children| children.split_whitespace().next()?.parse().ok())
    }

    /// Whether nothing is under way.
    fn is_idle(&self) -> bool {
        let locked = fs::read_dir(self.lab.path("state/locked")).into_iter().flatten().count();
        self.worker().is_none() && locked == 0
    }
}

fn socket(lab: &Lab) -> PathBuf {
    lab.path("socket/selfdump.sock")
}

fn start(lab: &Lab, criu: &Path, options: &[&str]) -> Subject {
    let mut command = selfdump();
    command.arg("service").arg("--socket").arg(socket(lab)).arg("--criu").arg(criu);
    command.arg("--state").arg(lab.path("state")).args(options);
    let listened =
        || fs::read_to_string(lab.path("service.out")).unwrap_or_default().matches("listens at").count();
    let before = listened();
    let service = lab.launch(command, "service").start();
    eventually("a service that listens", || (listened() > before).then_some(()));
    service
}

/// By another process: one that is started just then by another test would have the copy open to be written to, and nobody
/// can start a program that somebody has.
fn folder_of(path: &Path, user: u32, mode: u32) {
    fs::create_dir(path).unwrap();
    chown(path, Some(user), Some(user)).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Whose something is, and its mode.
fn looks(path: &Path) -> (u32, u32, u32) {
    let about = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (about.uid(), about.gid(), about.mode() & 0o7777)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
