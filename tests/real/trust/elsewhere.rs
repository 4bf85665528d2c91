//! What lies outside of the store: words about processes that somebody else has laid ready are not believed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{STRANGER, give_away, set_mode};
use crate::harness::{Lab, USR2, built, copy_program, eventually};

/// A folder in /tmp, taken away when it is dropped.
struct Planted(PathBuf);

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_runtime_folder_that_another_user_has_planted_is_not_believed() {
    const VICTIM: u32 = 54322;
    let lab = Lab::new();
    // A true word about a process that runs: root's own.
    let program = lab.program("linked").start();
    program.wait_for("step 5");
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    let word = eventually("a word about it", || {
        let mut words = fs::read_dir("/run/selfdump").ok()?.flatten();
        words.find(|word| word.file_name().to_string_lossy().ends_with(&format!("-{}.json", program.pid())))
    });
    let planted = Planted(Path::new("/tmp").join(format!("selfdump-{VICTIM}")));
    fs::create_dir(&planted.0).expect("nobody has such a folder");
    let copy = planted.0.join(word.file_name());
    fs::copy(word.path(), &copy).expect("a copy");
    // The command has to be where that user can run it.
    let command = Planted(Path::new("/tmp").join(format!("selfdump-command-{}", std::process::id())));
    fs::create_dir(&command.0).expect("a folder");
    copy_program(built(Path::new("selfdump")), &command.0.join("selfdump"));
    set_mode(&command.0, 0o755);
    let asks = || {
        let mut asked = Command::new("setpriv");
        let ids = [&format!("--reuid={VICTIM}"), &format!("--regid={VICTIM}")];
        asked.args(ids).arg("--clear-groups").arg(command.0.join("selfdump"));
        asked.args(["status", "--json", &program.pid().to_string()]);
        asked.env("HOME", "/nonexistent").env_remove("XDG_RUNTIME_DIR").env_remove("SELFDUMP_DIR");
        asked.output().expect("it runs")
    };
    for (owner, mode, believed) in [(VICTIM, 0o700, true), (STRANGER, 0o755, false), (VICTIM, 0o777, false)] {
        give_away(&copy, VICTIM);
        give_away(&planted.0, owner);
        set_mode(&planted.0, mode);
        let output = asks();
        assert_eq!(output.status.success(), believed, "user {owner}, mode {mode:o}: {output:?}");
    }
}
