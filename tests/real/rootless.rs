//! Without root and without a service: ordinary users, with a CRIU that `selfdump setup --rootless` has made for them.

mod carries;
mod rights;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::{Lab, built, copy_program, criu, library, program, selfdump, succeeds};
use crate::trust::{give_away, set_mode};

/// An ordinary user, with no groups and no name.
pub const USER: u32 = 54323;

/// What root has installed for all: a CRIU for ordinary users, the command, the library and some programs. It goes when
/// it is dropped.
pub struct Installed(PathBuf);

impl Installed {
    /// With further options for the setup.
    pub fn with(options: &[&str], programs: &[&str]) -> Installed {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let installed = Installed(format!("/opt/selfdump-test-{}-{number}", std::process::id()).into());
        fs::create_dir_all(&installed.0).expect("a folder of root's");
        set_mode(&installed.0, 0o755);
        let mut setup = selfdump();
        setup.args(["setup", "--rootless", "--prefix"]).arg(installed.0.join("criu")).args(options);
        succeeds(setup.env("SELFDUMP_CRIU", criu()));
        let programs = programs.iter().map(|name| program(name));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/python/rootless.py");
        for file in [built(Path::new("selfdump")), library(), script].into_iter().chain(programs) {
            let to = installed.file(file.file_name().expect("a name"));
            copy_program(&file, &to);
            set_mode(&to, 0o755);
        }
        installed
    }

    fn file(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.join(Path::new(name.as_ref()))
    }

    fn criu(&self) -> PathBuf {
        self.file("criu/bin/criu")
    }

    /// A lab that is the user's, with files for what its programs say.
    pub fn lab(&self, outputs: &[&str]) -> Lab {
        let mut lab = Lab::new();
        lab.criu = self.criu();
        give_away(&lab.path(""), USER);
        for name in outputs {
            let output = lab.path(&format!("{name}.out"));
            fs::write(&output, "").expect("a file");
            give_away(&output, USER);
        }
        lab
    }

    /// Something that is installed, run by the user.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = as_user(USER, self.file(name));
        command.args(arguments);
        command
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that another user runs, who has neither root's home nor its folders.
fn as_user(user: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]).arg(program);
    command.current_dir("/").env("HOME", "/nonexistent").env_remove("XDG_RUNTIME_DIR");
    command
}
