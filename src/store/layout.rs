//! Every path and file name of the store. Nothing else spells them.
//!
//! ```text
//! DIR/NAME/                       all runs of a program
//!   PID-STARTTIME/                one instance: a process and all its restored lives
//!     000007/                     a checkpoint
//!       manifest.json
//!       images/                   CRIU's files and its dump.log; seal.json where the service has made them
//!       ahead/1/, ahead/2/, …     what was written of its memory ahead, where a pause was to be short; the link `parent`
//!                                 leads from images/ to the last of them, and from each to the one before
//!       files/                    copies of files, where there are some
//!       chain/                    what is unchanged since earlier checkpoints, where there is something
//!         1/ 2/ …                 of each of them CRIU's files with pages, and the link parent -> ../1
//!         used                    which pages of it are this checkpoint's, with checksums
//!       cause.json.age            what the program said as it went wrong, where all is encrypted
//!     000008.partial/             a draft
//!       owner.json                whose it is
//!       link -> images            the path that CRIU is given
//!       worker.log                what a worker said before it had opened dump.log
//!       moment.json               what the program was when a copy of it was made, until it has been read
//!       criu.conf, copy.sh        what has CRIU copy files
//!       copied, copy.failed       what came of that
//!       plain/                    what is yet to be encrypted, if there is no room for it in memory
//!     000007.cut-1/               what a restore has cut off files
//!       cut.json
//!     latest -> 000007
//!     status.json                 what came of the last attempt
//!     failed.log                  CRIU's log of the last attempt that failed
//!   runner.lock                   held by the runner of this name, and says who that is
//!   run.json                      when its run began that goes on, or when the last one was done
//! ```

use std::path::{Path, PathBuf};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const IMAGES: &str = "images";
/// Copies of files, and before each the folder's name in a path below the checkpoint's.
pub(crate) const FILES: &str = "files";
/// What was written of the memory ahead of the images, which build on it: a folder for each level, by its number.
pub(crate) const AHEAD: &str = "ahead";
pub(crate) const DUMP_LOG: &str = "dump.log";
/// What is unchanged since earlier checkpoints, a folder for each level of it, by number from 1 on.
pub(crate) const CHAIN: &str = "chain";
/// Which pages of it are used, in its folder.
const USED: &str = "used";
/// The link in a folder of images to those that they build on, which is CRIU's name for it.
const PARENT: &str = "parent";
/// That the images were made by the service: among them.
pub(crate) const SEAL: &str = "seal.json";
/// What stands behind the names of files that are encrypted.
const ENCRYPTED: &str = ".age";
/// The cause with the program's own words, which the manifest of an encrypted checkpoint leaves out.
pub(crate) const CAUSE: &str = "cause.json";
/// In a draft, what is yet to be encrypted, where there is no room for it in memory.
pub(crate) const PLAIN: &str = "plain";
pub(crate) const OWNER: &str = "owner.json";
pub(crate) const LINK: &str = "link";
/// What the program was when a copy of it was made, until it has been read.
pub(crate) const MOMENT: &str = "moment.json";
pub(crate) const WORKER_LOG: &str = "worker.log";
pub(crate) const CRIU_CONFIG: &str = "criu.conf";
pub(crate) const COPY_SCRIPT: &str = "copy.sh";
/// The paths of the files that were copied, in the order of their numbers, each with a zero byte behind it.
pub(crate) const COPIED: &str = "copied";
/// The path of the file that could not be copied, a zero byte, and why.
pub(crate) const COPY_FAILED: &str = "copy.failed";
pub(crate) const LATEST: &str = "latest";
pub(crate) const STATUS: &str = "status.json";
pub(crate) const FAILED_LOG: &str = "failed.log";
/// Held by a runner, in a program's folder.
pub(crate) const RUNNER_LOCK: &str = "runner.lock";
/// Since when checkpoints are those of a run that isn't done, in a program's folder.
pub(crate) const RUN: &str = "run.json";
/// What was cut off which files, in the folder that holds it.
pub(crate) const CUT_NOTE: &str = "cut.json";
const PARTIAL: &str = ".partial";
const CUT: &str = ".cut-";

/// The folder of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) store: PathBuf,
    pub(crate) name: String,
    pub(crate) instance: String,
}

impl Instance {
    pub(crate) fn new(store: &Path, name: &str, instance: String) -> Instance {
        Instance { store: store.to_owned(), name: name.to_owned(), instance }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.store.join(&self.name).join(&self.instance)
    }

    pub(crate) fn checkpoint(&self, number: u64) -> PathBuf {
        self.folder().join(checkpoint_name(number))
    }

    pub(crate) fn draft(&self, number: u64) -> PathBuf {
        aside(&self.checkpoint(number))
    }

    /// NAME/INSTANCE/NUMBER, the checkpoint's path in any copy of the store.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}/{}/{}", self.name, self.instance, checkpoint_name(number))
    }
}

pub(crate) fn checkpoint_name(number: u64) -> String {
    format!("{number:06}")
}

/// The folder of a level of the chain, in a checkpoint's.
pub(crate) fn level(number: usize) -> PathBuf {
    Path::new(CHAIN).join(number.to_string())
}

/// The file that says which pages of a chain are used, in a checkpoint's folder.
pub(crate) fn used() -> PathBuf {
    Path::new(CHAIN).join(USED)
}

/// The links of a checkpoint with so many levels below its images, and where each leads to: from those to the last level,
/// and from each level to the one before it.
pub(crate) fn links(levels: usize) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let beside = Path::new("..");
    let between = (1..levels).map(move |number| (level(number + 1), beside.join(number.to_string())));
    let last = (levels > 0).then(|| (PathBuf::from(IMAGES), beside.join(level(levels))));
    between.chain(last).map(|(folder, target)| (folder.join(PARENT), target))
}

/// The folder of the draft that becomes a checkpoint, or that one which is being deleted is.
pub(crate) fn aside(checkpoint: &Path) -> PathBuf {
    let mut name = checkpoint.as_os_str().to_owned();
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// The number in the name of a checkpoint's folder.
pub(crate) fn checkpoint_number(name: &str) -> Option<u64> {
    let number = name.parse().ok()?;
    (checkpoint_name(number) == name).then_some(number)
}

/// The number in the name of a draft's folder.
pub(crate) fn draft_number(name: &str) -> Option<u64> {
    checkpoint_number(name.strip_suffix(PARTIAL)?)
}

/// Where what a restore cuts off files is kept: beside the checkpoint, the `number`th time.
pub(crate) fn cut(checkpoint: &Path, number: u64) -> PathBuf {
    let mut name = checkpoint.as_os_str().to_owned();
    name.push(format!("{CUT}{number}"));
    PathBuf::from(name)
}

/// Whether a folder's name is that of a checkpoint, of a draft, or of what a restore has taken from files.
pub(crate) fn is_of_a_checkpoint(name: &str) -> bool {
    let number = checkpoint_number(name).or_else(|| draft_number(name));
    number.or_else(|| checkpoint_number(name.split_once(CUT)?.0)).is_some()
}

/// Whether a file in a draft tells whose it is, or will when it has been written.
pub(crate) fn is_of_the_owner(name: &str) -> bool {
    name.split_once('.')
        .is_some_and(|(stem, _)| OWNER.split_once('.').is_some_and(|(owner, _)| stem == owner))
}

/// Whether a folder's name is that of an instance.
pub(crate) fn is_instance(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('-').is_some_and(|(pid, ticks)| number(pid) && number(ticks))
}

/// Whether a path leads into the folder of an instance, in whichever store.
pub(crate) fn is_in_an_instance(path: &Path) -> bool {
    path.iter().any(|part| part.to_str().is_some_and(is_instance))
}

/// What stands in the paths, each with a zero behind it, of what the agent of an instance has open, and of no other.
pub(crate) fn names_of_ours(instance: &Instance, runtime: &Path) -> Vec<String> {
    let (store, runtime) = (instance.store.display(), runtime.display());
    vec![
        format!("/{}", instance.instance),
        format!("/{PLAIN_FOLDER}"),
        format!("{store}\0"),
        format!("{store}/{}\0", instance.name),
        format!("{runtime}\0"),
        format!("{runtime}/"),
        // A file system that is being made (fsopen(2)).
        "anon_inode:[fscontext]".to_owned(),
    ]
}

/// The folder for what concerns processes that run now: /run/selfdump as root, else below
/// `$XDG_RUNTIME_DIR`, else one of this user's in /tmp.
pub(crate) fn runtime_folder(root: bool, runtime_dir: Option<PathBuf>, user: u32) -> PathBuf {
    match runtime_dir.filter(|folder| folder.is_absolute()) {
        _ if root => PathBuf::from("/run/selfdump"),
        Some(folder) => folder.join("selfdump"),
        None => PathBuf::from(format!("/tmp/selfdump-{user}")),
    }
}

/// The file about a running process in the runtime folder. Pid namespaces may share that folder, and a
/// copy that was restored in another one has its original's process id.
pub(crate) fn running(folder: &Path, pid_namespace: u64, pid: i32) -> PathBuf {
    folder.join(format!("{pid_namespace}-{pid}.json"))
}

/// What goes by way of memory, and what can be read of an encrypted checkpoint while it is made or brought back, lies in a
/// folder of its own with this at the beginning of its name.
const PLAIN_FOLDER: &str = "selfdump-plain-";

/// Where such folders are made in memory: in the first that has room for one.
pub(crate) fn folders_in_memory(runtime: PathBuf) -> [PathBuf; 2] {
    [runtime, PathBuf::from("/dev/shm")]
}

/// A name for one of them; `id` is nobody else's.
pub(crate) fn plain_folder(id: &str) -> String {
    format!("{PLAIN_FOLDER}{id}")
}

/// In one of them, until the program stands still: the file that has the memory which is about to be used there.
pub(crate) const ROOM: &str = "room";

/// Whether it is the name of one.
pub(crate) fn is_plain_folder(name: &str) -> bool {
    name.starts_with(PLAIN_FOLDER)
}

/// The path of a file once it is encrypted.
pub(crate) fn encrypted(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ENCRYPTED);
    PathBuf::from(name)
}

/// The path that an encrypted file had before; none where it isn't encrypted.
pub(crate) fn decrypted(file: &Path) -> Option<PathBuf> {
    file.to_str()?.strip_suffix(ENCRYPTED).map(PathBuf::from)
}

/// The file in the runtime folder with what a restorer has for the process that it brings back.
pub(crate) fn handover(folder: &Path, pid_namespace: u64, pid: i32) -> PathBuf {
    folder.join(format!("{pid_namespace}-{pid}.restore"))
}

/// The file in the runtime folder that is locked while the memory of a process that came back is filled.
pub(crate) fn filling(folder: &Path, pid_namespace: u64, pid: i32) -> PathBuf {
    folder.join(format!("{pid_namespace}-{pid}.filling"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for number in [1, 7, 999_999, 1_000_000, 12_345_678] {
            assert_eq!(checkpoint_number(&checkpoint_name(number)), Some(number));
            assert_eq!(draft_number(&format!("{}.partial", checkpoint_name(number))), Some(number));
            let cut = cut(&PathBuf::from(checkpoint_name(number)), 1);
            assert!(is_of_a_checkpoint(&cut.display().to_string()));
        }
    }

    #[test]
    fn other_names_are_none_of_ours() {
        for name in ["7", "0000007", "00000x", "latest", "000007.partial", "", "+00007"] {
            assert_eq!(checkpoint_number(name), None, "{name}");
        }
        assert!(is_instance("4711-8839201"));
        for name in ["4711", "4711-", "-1", "a-1", "000007"] {
            assert!(!is_instance(name), "{name}");
        }
    }
}
