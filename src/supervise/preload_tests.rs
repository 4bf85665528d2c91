use super::*;
use std::os::unix::fs::PermissionsExt;

/// A file that can be executed.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Any library of this machine's kind.
fn library() -> PathBuf {
    elf::loader(Path::new("/proc/self/exe")).unwrap().expect("a loader")
}

#[test]
fn a_script_is_as_its_interpreter_and_what_is_neither_is_the_shell_s() {
    let folder = tempfile::tempdir().unwrap();
    let shell = script(folder.path(), "shell", "#! /bin/sh -e\n");
    let twice = script(folder.path(), "twice", &format!("#!{}\n", shell.display()));
    let plain = script(folder.path(), "plain", "echo\n");
    for file in [shell, twice, plain] {
        assert_eq!(executed(file.clone(), 0), Some(PathBuf::from("/bin/sh")), "{}", file.display());
    }
    let ring = script(folder.path(), "ring", &format!("#!{}\n", folder.path().join("ring").display()));
    assert_eq!(executed(ring, 0), None);
    assert_eq!(executed(folder.path().join("none"), 0), None);
}

#[test]
fn a_command_is_found_as_it_would_be_executed() {
    assert_eq!(file_of(OsStr::new("./here")), Some(PathBuf::from("./here")));
    assert!(file_of(OsStr::new("sh")).unwrap().is_absolute());
    assert_eq!(file_of(OsStr::new("no-such-program-at-all")), None);
}

#[test]
fn what_cannot_be_preloaded_is_told_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let ours = fs::read("/bin/true").unwrap();
    let altered = |name: &str, at: usize, bytes: &[u8]| {
        let mut file = ours.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        let path = folder.path().join(name);
        fs::write(&path, file).unwrap();
        path
    };
    let refused = |path: &Path| fit(path, &library()).unwrap_err();
    // An ARM's.
    let error = refused(&altered("foreign", 18, &[0xb7, 0]));
    assert!(error.to_string().contains("another kind of processor"), "{error}");
    let name = ours.windows(4).position(|four| four == b"ld-l").unwrap();
    let error = refused(&altered("musl", name, b"ld-m"));
    assert!(error.to_string().contains("not glibc's"), "{error}");
    let setuid = altered("setuid", 0, b"\x7f");
    fs::set_permissions(&setuid, PermissionsExt::from_mode(0o4755)).unwrap();
    // To its owner it gives nothing.
    fit(&setuid, &library()).unwrap();
    let fixed = refused(&library());
    assert!(fixed.to_string().contains("statically linked"), "{fixed}");
    assert!(fixed.hint().unwrap().contains("link selfdump"), "{fixed:?}");
    fit(Path::new("/bin/true"), &library()).unwrap();
}

#[test]
fn a_library_whose_path_the_loader_would_cut_is_refused() {
    let folder = tempfile::Builder::new().prefix("with blank ").tempdir().unwrap();
    let path = script(folder.path(), "libselfdump.so", "");
    let error = Preload::Library(path).library().unwrap_err();
    assert!(error.hint().unwrap().contains("SELFDUMP_PRELOAD"), "{error:?}");
    assert_eq!(Preload::Library("/no/such".into()).library().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Preload::Off.library().unwrap(), None);
}
