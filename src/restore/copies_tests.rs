use super::*;
use crate::config::FileRule;
use crate::frozen::{Bytes, FileIdentity};
use crate::restore::FilePlan;
use crate::restore::files::plan;
use crate::restore::rewind::{Rewound, rewind};

const DUMPED: Duration = Duration::from_secs(1000);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn copy(path: &Path) -> CopiedFile {
    CopiedFile {
        path: path.to_owned(),
        copy: "files/1".into(),
        size: Bytes(42),
        mode: 0o640,
        user: process::user().0,
        group: 0,
        modified: 900_000_000_007,
        spare: false,
    }
}

fn now(size: u64) -> Now {
    Now {
        size: Bytes(size),
        identity: FileIdentity { device: 1, inode: 5, made_unix_ns: None },
        modified: at(900) + Duration::from_nanos(7),
    }
}

/// A file of which there is a copy, which nobody had open, and a newcomer beside it.
struct Case<'a> {
    now: Option<Now>,
    rules: &'a [&'a str],
    likeness: Likeness,
    is_over: bool,
    writer: Option<(i32, String)>,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Case { now: Some(now(42)), rules: &[], likeness: Likeness::Same, is_over: true, writer: None }
    }
}

impl Case<'_> {
    fn plan(self) -> (FilePlan, FilePlan) {
        let rules: Vec<FileRule> = self.rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let world = World {
            same_machine: true,
            is_over: self.is_over,
            dumped: SystemTime::UNIX_EPOCH + DUMPED,
            now: &|_| self.now.clone(),
            writer: &|_| self.writer.clone(),
            copies: &[copy("/data/app.db".as_ref())],
            likeness: &|_| self.likeness,
            newcomers: &["/data/app.db-wal".into()],
        };
        let mut plans = plan(&[], &rules, &world).into_iter();
        (plans.next().unwrap(), plans.next().unwrap())
    }
}

#[test]
fn a_copied_file_is_left_alone_only_where_it_is_surely_what_it_was() {
    let recreate = FileAction::Recreate { size: Bytes(42) };
    let later = Now { modified: at(901), ..now(42) };
    for (case, action, why) in [
        (Case::default(), FileAction::Nothing, "byte for byte"),
        (Case { now: None, ..Case::default() }, recreate.clone(), "gone"),
        (Case { now: Some(now(41)), ..Case::default() }, recreate.clone(), "size"),
        (Case { now: Some(now(43)), ..Case::default() }, recreate.clone(), "size"),
        (Case { now: Some(later), ..Case::default() }, recreate.clone(), "written to since"),
        (Case { likeness: Likeness::Other, ..Case::default() }, recreate, "through memory"),
    ] {
        let (plan, _) = case.plan();
        assert!(plan.action == action && plan.why.contains(why), "{plan:?}");
    }
}

#[test]
fn rules_win_over_copies_and_newcomers() {
    let changed = |rules| Case { now: Some(now(50)), rules, ..Case::default() }.plan();
    assert_eq!(changed(&["keep:*"]).0.action, FileAction::Keep { size: Bytes(50) });
    assert_eq!(changed(&["keep:*"]).1.action, FileAction::Nothing);
    let (file, newcomer) = changed(&["fail:*"]);
    assert!(matches!(file.action, FileAction::Refuse { .. }), "{file:?}");
    assert!(matches!(newcomer.action, FileAction::Refuse { .. }), "{newcomer:?}");
    let gone = Case { now: None, rules: &["keep:*"], ..Case::default() }.plan().0;
    assert!(gone.action == FileAction::Nothing && gone.why.contains("stays so"), "{gone:?}");
    assert_eq!(changed(&["rewind:*"]).0.action, FileAction::Recreate { size: Bytes(42) });
}

#[test]
fn a_newcomer_is_moved_aside_unless_another_process_writes_to_it() {
    assert_eq!(Case::default().plan().1.action, FileAction::SetAside);
    let plan = Case { writer: Some((17, "logger".into())), ..Case::default() }.plan().1;
    assert!(plan.action == FileAction::Nothing && plan.why.contains("17 (logger)"), "{plan:?}");
}

#[test]
fn files_of_a_program_that_may_still_run_elsewhere_are_not_touched() {
    let case = |rules| Case { now: Some(now(50)), is_over: false, rules, ..Case::default() }.plan();
    let (file, newcomer) = case(&[]);
    for plan in [file, newcomer] {
        let FileAction::Refuse { remedy } = &plan.action else { panic!("{plan:?}") };
        assert!(
            plan.why.contains("may still run") && remedy.contains("--files keep:/data/app.db"),
            "{plan:?}"
        );
    }
    assert_eq!(case(&["rewind:*"]).0.action, FileAction::Recreate { size: Bytes(42) });
}

#[test]
fn times_before_1970_are_times() {
    let mut early = copy("/x".as_ref());
    early.modified = -1_500_000_000;
    assert_eq!(modified(&early), SystemTime::UNIX_EPOCH - Duration::from_millis(1500));
}

/// A checkpoint with a copy of `out`, which has other contents now, and a newcomer.
struct Scene {
    lab: tempfile::TempDir,
    checkpoint: PathBuf,
    copy: CopiedFile,
}

impl Scene {
    fn new() -> Scene {
        let lab = tempfile::tempdir().unwrap();
        let checkpoint = lab.path().join("000007");
        fs::create_dir_all(checkpoint.join("files")).unwrap();
        fs::write(checkpoint.join("files/1"), "as it was at the checkpoint, 42 bytes long").unwrap();
        fs::write(lab.path().join("out"), "now").unwrap();
        fs::write(lab.path().join("new"), "newer").unwrap();
        let copy = copy(&lab.path().join("out"));
        Scene { lab, checkpoint, copy }
    }

    fn plans(&self) -> [FilePlan; 2] {
        let plan =
            |name: &str, action| FilePlan { path: self.lab.path().join(name), action, why: String::new() };
        [plan("new", FileAction::SetAside), plan("out", FileAction::Recreate { size: Bytes(42) })]
    }

    fn rewind(&self, plans: &[FilePlan]) -> crate::error::Result<Rewound> {
        rewind(&self.checkpoint, &self.checkpoint, plans, std::slice::from_ref(&self.copy))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.lab.path().join(name)).unwrap_or_default()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.lab).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_file_is_put_back_into_its_inode_with_mode_and_times_and_what_it_was_is_saved() {
    use std::os::unix::fs::MetadataExt;
    let scene = Scene::new();
    let before = fs::metadata(&scene.copy.path).unwrap();
    let rewound = scene.rewind(&scene.plans()).unwrap();
    let after = fs::metadata(&scene.copy.path).unwrap();
    assert_eq!(scene.read("out"), "as it was at the checkpoint, 42 bytes long");
    assert_eq!((after.ino(), after.mode() & 0o777), (before.ino(), 0o640));
    assert_eq!(after.modified().unwrap(), modified(&scene.copy));
    assert_eq!(likeness(&scene.checkpoint, &scene.copy), Likeness::Same);
    let folder = rewound.folder.unwrap();
    assert_eq!(fs::read_to_string(folder.join("1-new")).unwrap(), "newer");
    assert_eq!(fs::read_to_string(folder.join("2-out")).unwrap(), "now");
    let note = fs::read_to_string(folder.join("cut.json")).unwrap();
    assert!(note.contains("\"set-aside\"") && note.contains("\"replaced\""), "{note}");
    assert_eq!(scene.names(), ["000007", "000007.cut-1", "out"]);
}

#[test]
fn a_file_that_is_gone_is_made_anew() {
    let scene = Scene::new();
    fs::remove_file(&scene.copy.path).unwrap();
    scene.rewind(&scene.plans()[1..]).unwrap();
    assert_eq!(likeness(&scene.checkpoint, &scene.copy), Likeness::Same);
    assert_eq!(fs::metadata(&scene.copy.path).unwrap().modified().unwrap(), modified(&scene.copy));
}

#[test]
fn undone_everything_is_as_it_was() {
    for is_there in [true, false] {
        let scene = Scene::new();
        if !is_there {
            fs::remove_file(&scene.copy.path).unwrap();
        }
        let looks = || {
            let file = fs::metadata(&scene.copy.path).ok()?;
            Some((file.permissions(), file.modified().unwrap()))
        };
        let (before, names) = (looks(), scene.names());
        scene.rewind(&scene.plans()).unwrap().undo();
        assert_eq!((looks(), scene.names()), (before, names));
        assert_eq!((scene.read("new").as_str(), scene.read("out") == "now"), ("newer", is_there));
    }
}

#[test]
fn where_one_can_not_be_put_back_nothing_is_changed() {
    let scene = Scene::new();
    // A link in its place leads to a file that nobody has named.
    let aside = scene.lab.path().join("elsewhere");
    fs::rename(&scene.copy.path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &scene.copy.path).unwrap();
    let error = scene.rewind(&scene.plans()).err().unwrap();
    assert!(error.to_string().contains("symbolic link"), "{error:?}");
    assert_eq!(scene.names(), ["000007", "elsewhere", "new", "out"]);
    assert_eq!((scene.read("new").as_str(), scene.read("elsewhere").as_str()), ("newer", "now"));
    assert_eq!(fs::read_link(&scene.copy.path).unwrap(), aside);
}

#[test]
fn who_wrote_after_the_change_has_the_last_word() {
    let scene = Scene::new();
    let rewound = scene.rewind(&scene.plans()).unwrap();
    fs::write(&scene.copy.path, "somebody else's").unwrap();
    rewound.undo();
    assert_eq!(scene.read("out"), "somebody else's");
    assert_eq!(fs::read_to_string(scene.lab.path().join("000007.cut-1/2-out")).unwrap(), "now");
}

#[test]
fn only_what_differs_is_written_and_holes_stay() {
    use std::os::unix::fs::MetadataExt;
    let lab = tempfile::tempdir().unwrap();
    let (from, to) = (lab.path().join("from"), lab.path().join("to"));
    let sparse = File::create(&from).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
    fs::write(&to, vec![7; 3 * BLOCK + 5]).unwrap();
    let target = File::options().read(true).write(true).open(&to).unwrap();
    overwrite(&target, File::open(&from).unwrap()).unwrap();
    assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
    assert!(target.metadata().unwrap().blocks() * 512 < 8 << 20, "it has no holes");
}

#[test]
fn newcomers_are_files_that_were_not_copied_and_belong_to_no_store() {
    let lab = tempfile::tempdir().unwrap();
    let root = lab.path().canonicalize().unwrap();
    let instance = root.join("app/4711-99");
    fs::create_dir_all(&instance).unwrap();
    for file in ["a.db", "b.db", "app/4711-99/c.db"] {
        fs::write(root.join(file), "").unwrap();
    }
    std::os::unix::fs::symlink("b.db", root.join("link.db")).unwrap();
    let pattern = format!("{}/**/*.db", root.display()).parse().unwrap();
    assert_eq!(newcomers(&[pattern], &[copy(&root.join("a.db"))]), [root.join("b.db")]);
}
