//! Folders are 0700 and files 0600, whatever the umask is and whatever CRIU does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::failures::Service;
use crate::harness::{Lab, USR2, program};

/// Everything below a folder that isn't closed to others, with its mode; links are open to everybody and tell nothing.
fn open_to_others(folder: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let found = entry.metadata().expect("what it is");
        let (path, mode) = (entry.path(), found.permissions().mode() & 0o7777);
        if found.is_dir() {
            wrong.extend(open_to_others(&path));
        }
        let expected = if found.is_dir() { 0o700 } else { 0o600 };
        if !found.is_symlink() && mode != expected {
            wrong.push(format!("{} {mode:04o}", path.display()));
        }
    }
    wrong
}

/// A program makes two checkpoints with a copied file in each, under an umask.
fn leaves_nothing_open(lab: &Lab, umask: &str, settings: &[(&str, &Path)]) {
    let data = lab.path("data");
    fs::write(&data, "something to copy").expect("a file");
    let mut command = Command::new("sh");
    command.args(["-c", "umask $0; exec \"$@\"", umask]).arg(program("chain")).arg("1");
    let launch = lab.launch(command, "chain").env("SELFDUMP_COPY_FILES", &data);
    let started = settings.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).start();
    started.wait_for("ready");
    for number in 1..=2 {
        started.signal(USR2);
        lab.wait_for_checkpoint(number);
    }
    lab.status_when("two", |status| {
        status["last"]["checkpoint"].as_str().is_some_and(|id| id.ends_with("/000002"))
    });
    let running = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().ends_with(&format!("-{}.json", started.pid()))
    };
    let mut runtime = fs::read_dir("/run/selfdump").expect("root's runtime folder").flatten();
    let word = runtime.find(running).expect("a word about the program");
    assert_eq!(word.metadata().expect("a file").permissions().mode() & 0o7777, 0o600, "{word:?}");
    let store = lab.store();
    assert_eq!(fs::metadata(&store).expect("the store").permissions().mode() & 0o7777, 0o700);
    assert_eq!(open_to_others(&store), Vec::<String>::new(), "umask {umask}");
    let has_a_copy =
        |checkpoint: &PathBuf| fs::read_dir(checkpoint.join("files")).is_ok_and(|files| files.count() == 1);
    assert!(lab.checkpoints().iter().all(has_a_copy));
}

#[test]
fn stores_are_0700_and_files_0600_whatever_the_umask_is() {
    for umask in ["0", "022", "0777"] {
        leaves_nothing_open(&Lab::new(), umask, &[]);
    }
}

#[test]
fn what_a_service_writes_is_closed_as_well() {
    let lab = Lab::new();
    let socket = lab.path("criu.socket");
    let _service = Service::start(&lab, &socket);
    leaves_nothing_open(&lab, "0", &[("SELFDUMP_SERVICE", &socket)]);
}
