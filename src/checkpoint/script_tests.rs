use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output};

use super::*;

/// A folder with files in it, and a draft's folder.
struct Scene {
    lab: tempfile::TempDir,
    data: PathBuf,
    draft: PathBuf,
}

impl Scene {
    fn new(files: &[&OsStr]) -> Scene {
        let lab = tempfile::tempdir().unwrap();
        let (data, draft) = (lab.path().join("da ta"), lab.path().join("it's a draft"));
        fs::create_dir_all(draft.join("files")).unwrap();
        for file in files.iter().map(|file| data.join(file)) {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, bytes(&file)).unwrap();
        }
        Scene { lab, data, draft }
    }

    /// Runs the script as CRIU does, in the folder of the images, with one shell.
    fn run(&self, shell: &str, open: &[&OsStr], patterns: &[&str], stage: &str) -> Output {
        self.run_with_spares(shell, open, patterns, &[], stage)
    }

    fn run_with_spares(
        &self,
        shell: &str,
        open: &[&OsStr],
        patterns: &[&str],
        spares: &[&str],
        stage: &str,
    ) -> Output {
        let open: Vec<PathBuf> = open.iter().map(|file| self.data.join(file)).collect();
        let spares: Vec<PathBuf> = spares.iter().map(|file| self.data.join(file)).collect();
        let patterns: Vec<FilePattern> = patterns
            .iter()
            .map(|pattern| format!("{}/{pattern}", self.data.display()).parse().unwrap())
            .collect();
        let path = self.draft.join("copy.sh");
        let store = self.data.join("store");
        let files = Files { store: &store, open: &open, patterns: &patterns, spares: &spares };
        fs::write(&path, script(&self.draft, &files)).unwrap();
        let mut command = Command::new(shell);
        command.arg(&path).current_dir(&self.lab).env("CRTOOLS_SCRIPT_ACTION", stage).output().unwrap()
    }

    /// What was copied, by its path below the data, in order; each copy is that of its file.
    fn copied(&self) -> Vec<Vec<u8>> {
        let list = fs::read(self.draft.join("copied")).unwrap();
        let paths: Vec<&[u8]> = list.strip_suffix(b"\0").unwrap_or(&list).split(|&byte| byte == 0).collect();
        let paths = paths.into_iter().filter(|path| !path.is_empty());
        let mut names: Vec<Vec<u8>> = paths
            .enumerate()
            .map(|(at, path)| {
                assert_eq!(fs::read(self.draft.join(format!("files/{}", at + 1))).unwrap(), path);
                path[bytes(&self.data).len() + 1..].to_vec()
            })
            .collect();
        names.sort();
        names
    }
}

fn shells() -> impl Iterator<Item = &'static str> {
    // Dash is `sh` on Debian, bash elsewhere.
    ["sh", "dash", "bash"].into_iter().filter(|shell| Command::new(shell).args(["-c", ":"]).status().is_ok())
}

fn names(names: &[&'static str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

const ODD: [&[u8]; 7] = [
    b"a b",
    b"it's \"$x\" `y` \\",
    b"line\nbreak\n",
    b"-rf",
    b"\xff\x81\x88\xc3",
    b"{a,b}*?[c]",
    b"~#&;|<>()",
];

#[test]
fn any_name_is_copied_as_it_is() {
    for shell in shells() {
        let odd: Vec<&OsStr> = ODD.iter().map(|name| OsStr::from_bytes(name)).collect();
        let scene = Scene::new(&odd);
        assert!(scene.run(shell, &odd, &[], "post-dump").status.success(), "{shell}");
        let mut expected: Vec<Vec<u8>> = ODD.iter().map(|name| name.to_vec()).collect();
        expected.sort();
        assert_eq!(scene.copied(), expected, "{shell}: by its path");

        let scene = Scene::new(&odd);
        assert!(scene.run(shell, &odd[..3], &["*"], "post-dump").status.success());
        assert_eq!(scene.copied(), expected, "{shell}: by a pattern, and what is open once");
    }
}

#[test]
fn patterns_find_what_they_are_for() {
    let files =
        ["app.db", "app.db-wal", "other.db", ".hidden.db", "deep/app.db", "deep/er/b.db", "deep/.x/c.db"];
    let files: Vec<&OsStr> = files.iter().map(OsStr::new).chain([OsStr::new("store/x/app.db")]).collect();
    for (pattern, expected) in [
        ("app.db*", &["app.db", "app.db-wal"][..]),
        ("app.db?wal", &["app.db-wal"]),
        ("[!b-z]pp.db", &["app.db"]),
        ("app[.]db", &["app.db"]),
        ("*/*.db", &["deep/app.db"]),
        ("**/*.db", &["app.db", "deep/app.db", "deep/er/b.db", "other.db"]),
        ("**/er/**/*.db", &["deep/er/b.db"]),
        ("deep/**", &["deep/app.db", "deep/er/b.db"]),
        ("**/**/b.db", &["deep/er/b.db"]),
        (".*.db", &[".hidden.db"]),
        ("nothing*", &[]),
    ] {
        for shell in shells() {
            let scene = Scene::new(&files);
            let output = scene.run(shell, &[], &[pattern], "post-dump");
            assert!(output.status.success(), "{output:?}");
            assert_eq!(scene.copied(), names(expected), "{pattern} by {shell}");
        }
    }
}

#[test]
fn it_copies_once_however_often_it_is_run_and_only_after_the_dump() {
    let scene = Scene::new(&[OsStr::new("a")]);
    assert!(scene.run("sh", &[], &["*"], "pre-dump").status.success());
    assert!(!scene.draft.join("copied").exists());
    assert!(scene.run("sh", &[], &["*"], "post-dump").status.success());
    fs::write(scene.data.join("b"), "new").unwrap();
    assert!(scene.run("sh", &[], &["*"], "post-dump").status.success());
    assert_eq!(scene.copied(), names(&["a"]));
}

#[test]
fn a_copy_that_fails_is_told_with_its_reason_both_times() {
    let scene = Scene::new(&[OsStr::new("a b")]);
    fs::create_dir(scene.draft.join("files/1")).unwrap();
    fs::create_dir(scene.draft.join("files/1/a b")).unwrap();
    for _ in 0..2 {
        assert!(!scene.run("sh", &[], &["*"], "post-dump").status.success());
        let told = fs::read(scene.draft.join("copy.failed")).unwrap();
        let (path, why) = told.split_at(told.iter().position(|&byte| byte == 0).unwrap());
        assert_eq!(path, bytes(&scene.data.join("a b")));
        assert!(String::from_utf8_lossy(why).contains("cp: "), "{told:?}");
    }
    assert!(!scene.draft.join("copied").exists());
}

#[test]
fn quotes_stand_outside_of_quotes() {
    assert_eq!(quoted(b"it's"), b"'it'\\''s'");
    assert_eq!(quoted(b""), b"''");
    assert_eq!(word("a b*[!c-e]?[[][*]"), "'a b'*[!c-e]?'[*'");
    assert_eq!(word("[\u{e9}\u{e8}]x"), "*'x'");
}
