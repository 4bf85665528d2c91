//! What the service has to refuse, as a table, and that nothing of it is left behind.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::words::{DUMP, dump, folder, hear, number, options, send, text, version, with};
use super::{ONE, OTHER, Served, folder_of, looks, names};
use crate::harness::{USR2, eventually};

/// Its name, what is said, and what is in the last answer.
type Row = (&'static str, Vec<String>, &'static str);

/// One message and its answer.
fn said(name: &'static str, message: &[u8], answer: &'static str) -> Row {
    (name, vec![send(message), hear()], answer)
}

/// A dump into a good folder, with a field that isn't.
fn optioned(name: &'static str, images: &Path, field: u32, bytes: Vec<u8>, answer: &'static str) -> Row {
    let message = dump(&options(&[(field, bytes)]));
    (name, vec![with(&[images]), hear(), send(&message), hear()], answer)
}

/// A dump that is allowed, into a folder that isn't.
fn into(name: &'static str, folders: &[&Path], answer: &'static str) -> Row {
    let message = dump(&options(&[]));
    (name, vec![with(folders), hear(), send(&message), hear()], answer)
}

fn messages() -> Vec<Row> {
    let good = dump(&options(&[]));
    let is_none = "that are no request";
    let plainly = "not written plainly";
    vec![
        said("an empty message", &[], is_none),
        said("garbage", &[0xff; 40], is_none),
        said("a request that is cut off", &good[..good.len() / 2], is_none),
        said("one that is too long", &dump(&text(37, vec![b'x'; 20_000])), "too long"),
        said("one that is far too long", &[8; 60_000], "too long"),
        said(
            "a restore with a dump's options",
            &[number(1, 2), text(2, options(&[]))].concat(),
            "isn't allowed here",
        ),
        said("a pre-dump", &[number(1, 4), text(2, options(&[]))].concat(), "PRE_DUMP isn't served"),
        said("a single pre-dump", &number(1, 13), "SINGLE_PRE_DUMP isn't served"),
        said("a page server", &number(1, 5), "PAGE_SERVER isn't served"),
        said("a notification", &[number(1, 6), number(3, 1)].concat(), "NOTIFY isn't served"),
        said("a description of the processor", &number(1, 7), "CPUINFO_DUMP isn't served"),
        said("waiting for a process", &[number(1, 11), number(6, 1)].concat(), "WAIT_PID isn't served"),
        said("a kind that nobody knows", &number(1, 99), "isn't served"),
        said("a dump without options", &number(1, DUMP), "without options"),
        said("a dump without a folder", &good, "no folder has come"),
        said("a folder that doesn't come along", &folder(), "0 descriptors came along"),
        said("a field that nobody knows", &[version(), number(99, 1)].concat(), plainly),
        said("a field that is there twice", &[version(), number(4, 1)].concat(), plainly),
        said("a number that is written too long", &[0x08, 0x8a, 0x00], plainly),
        said("a version with a process id", &[number(1, 10), number(6, 1)].concat(), "more than belongs"),
        said("a version with options", &[number(1, 10), text(2, options(&[]))].concat(), "more than belongs"),
        said(
            "a check of somebody's folder",
            &[number(1, 3), text(2, options(&[]))].concat(),
            "other options",
        ),
        (
            "a dump that is queued behind the version",
            vec![send(&version()), send(&dump(&options(&[(22, text(22, "id"))]))), hear(), hear()],
            "option exec_cmd isn't allowed",
        ),
        (
            "more than the one request that was announced",
            vec![send(&number(1, 10)), send(&good), hear(), hear()],
            "end",
        ),
    ]
}

fn forbidden_options(images: &Path) -> Vec<Row> {
    let named =
        |name: &'static str, field: u32, bytes: Vec<u8>, answer| optioned(name, images, field, bytes, answer);
    let mount = [text(1, "/etc"), text(2, "/etc")].concat();
    let inherited = [text(1, "etc/shadow"), number(2, 0)].concat();
    vec![
        named("another process", 2, number(2, 1), "option pid isn't allowed"),
        named(
            "a page server at another machine",
            11,
            text(11, text(1, "1.2.3.4")),
            "option ps isn't allowed",
        ),
        named("notifications", 12, number(12, 1), "option notify_scripts isn't allowed"),
        named("another root", 13, text(13, "/"), "option root isn't allowed"),
        named("images to build on", 14, text(14, "../forged"), "option parent_img isn't allowed"),
        named("a folder for the log", 17, number(17, 3), "option work_dir_fd isn't allowed"),
        named("a network pair", 19, text(19, mount.clone()), "option veths isn't allowed"),
        named("a program to run", 22, text(22, "/bin/sh"), "option exec_cmd isn't allowed"),
        named("an external mount", 23, text(23, mount), "option ext_mnt isn't allowed"),
        named("control groups to restore", 25, text(25, text(2, "/")), "option cg_root isn't allowed"),
        named("a sibling", 26, number(26, 1), "option rst_sibling isn't allowed"),
        named("a descriptor to inherit", 27, text(27, inherited), "option inherit_fd isn't allowed"),
        named("mounts to leave out", 31, text(31, "/proc"), "option skip_mnt isn't allowed"),
        named("file systems to trust", 32, text(32, "fuse"), "option enable_fs isn't allowed"),
        named("paths to search", 36, text(36, "/root"), "option irmap_scan_paths isn't allowed"),
        named(
            "a namespace",
            39,
            text(39, [text(1, "net"), text(2, "1")].concat()),
            "option join_ns isn't allowed",
        ),
        named("a file of properties", 42, text(42, "/etc/shadow"), "option cgroup_props_file isn't allowed"),
        named("a group to freeze", 44, text(44, "/sys/fs/cgroup"), "option freeze_cgroup isn't allowed"),
        named("lazy pages", 48, number(48, 1), "option lazy_pages isn't allowed"),
        named("a descriptor for the state", 49, number(49, 1), "option status_fd isn't allowed"),
        named("a file of settings", 51, text(51, "/tmp/evil.conf"), "option config_file isn't allowed"),
        named("a security profile", 53, text(53, "unconfined"), "option lsm_profile isn't allowed"),
        named("another's log", 71, number(71, 1), "option log_to_stderr isn't allowed"),
        named("an option that nobody knows", 99, number(99, 1), "not written plainly"),
        named("a descriptor for the images", 1, number(1, 3), "images_dir_fd names a descriptor"),
        named("a path for the images", 68, text(68, "/etc"), "images_dir names another folder"),
        named(
            "its own path for the images",
            68,
            text(68, images.to_str().unwrap()),
            "images_dir names another",
        ),
        named("a log elsewhere", 10, text(10, "../../x"), "log_file has another name"),
        named("a log that tells everything", 9, number(9, 4), "log_level isn't one"),
        named("an hour to freeze", 45, number(45, 3600), "timeout is longer"),
        named("an end of the program", 3, number(3, 0), "leave_running"),
        named("a CRIU with all rights", 67, number(67, 0), "without unprivileged"),
        named("names for what has lost its name", 18, number(18, 1), "link_remap"),
        named("control groups of the system", 34, number(34, 4), "manage_cgroups_mode"),
        named("a mount that is left outside", 37, text(37, "mnt[/etc]:x"), "external names something else"),
        named("a file that is left outside", 37, text(37, "file[1:2]"), "external names something else"),
        (
            "a dump after which more is to come",
            vec![
                with(&[images]),
                hear(),
                send(&[number(1, DUMP), text(2, options(&[])), number(4, 1)].concat()),
                hear(),
            ],
            "more than belongs",
        ),
    ]
}

/// Folders that no images may be put into.
fn folders(served: &Served, images: &Path) -> Vec<Row> {
    let made = |name: &str, user: u32, mode: u32| {
        let folder = served.lab.path(name);
        folder_of(&folder, user, mode);
        folder
    };
    let roots = made("roots", 0, 0o755);
    let others = made("others", OTHER, 0o755);
    let open = made("open", ONE, 0o777);
    let full = made("full", ONE, 0o700);
    fs::write(full.join("seal.json"), "{\"format_version\":1,\"user\":4200001,\"seal\":\"00\"}").unwrap();
    let link = served.lab.path("link");
    symlink(&others, &link).unwrap();
    let file = served.lab.path("file");
    fs::write(&file, "").unwrap();
    vec![
        into("a folder of root's", &[&roots], "belongs to user 0"),
        into("a folder of another user's", &[&others], "belongs to user 4200002"),
        into("a link to a folder of another user's", &[&link], "belongs to user 4200002"),
        into("a folder that others can write to", &[&open], "open to others (mode 777)"),
        into("a folder with a forged seal", &[&full], "isn't empty"),
        ("a file", vec![with(&[&file]), hear()], "what came along is no folder"),
        into("the processes", &[Path::new("/proc")], "belongs to user 0"),
        ("two folders", vec![with(&[images, images]), hear()], "2 descriptors came along"),
        (
            "a dump whose program has ended",
            vec!["orphan".to_owned(), with(&[images]), hear(), send(&dump(&options(&[]))), hear()],
            "can't look at the program",
        ),
    ]
}

/// What can be seen of a folder and all that is in it.
fn seen(folder: &Path) -> Vec<(PathBuf, (u32, u32, u32))> {
    let mut found = vec![(folder.to_owned(), looks(folder))];
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in below.map(|entry| entry.path()) {
        match path.symlink_metadata().is_ok_and(|about| about.is_dir()) {
            true => found.extend(seen(&path)),
            false => found.push((path.clone(), looks(&path))),
        }
    }
    found.sort();
    found
}

#[test]
fn everything_hostile_is_refused_and_nothing_is_left_behind() {
    let served = Served::new(&["--requests-each", "100000"]);
    let images = served.images(ONE, "images");
    let table: Vec<Row> =
        messages().into_iter().chain(forbidden_options(&images)).chain(folders(&served, &images)).collect();
    assert!(table.len() >= 30);
    let everything = || {
        let all = seen(&served.lab.path("")).into_iter();
        all.filter(|(path, _)| !path.ends_with("service.out")).collect::<Vec<_>>()
    };
    let before = everything();
    let mut wrong = Vec::new();
    for (name, operations, answer) in &table {
        let heard = served.speak(ONE, operations);
        let last = heard.lines().last().unwrap_or_default();
        if !last.contains(answer) {
            wrong.push(format!("{name}: {heard}"));
        }
        eventually(name, || served.is_idle().then_some(()));
        assert_eq!(everything(), before, "{name}");
        let version = served.speak(OTHER, &[send(&version()), hear()]);
        assert!(version.contains("heard"), "after {name}: {version}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{} hostile requests refused", table.len());
}

#[test]
fn root_is_sent_away() {
    let served = Served::new(&[]);
    let images = served.lab.path("roots");
    folder_of(&images, 0, 0o700);
    let heard = served.speak(0, &[with(&[&images]), hear(), send(&dump(&options(&[]))), hear()]);
    assert!(heard.contains("root needs no service"), "{heard}");
}

/// The `speaker` itself is dumped. What is queued behind its request would be a second one, with a program to run.
#[test]
fn what_is_queued_behind_a_dump_is_never_read() {
    let served = Served::new(&[]);
    let images = served.images(ONE, "images");
    let evil = served.lab.path("evil.conf");
    fs::write(&evil, "action-script=/bin/true\n").unwrap();
    let second = dump(&options(&[(51, text(51, evil.to_str().unwrap()))]));
    let good = dump(&options(&[]));
    let heard =
        served.speak(ONE, &[with(&[&images]), hear(), send(&good), send(&second), hear(), hear(), hear()]);
    let answers: Vec<&str> = heard.lines().collect();
    // The folder, CRIU's answer, the service's, and nothing.
    assert!(answers[1].starts_with("heard") && answers[2].starts_with("heard"), "{heard}");
    assert_eq!(answers.last(), Some(&"end"), "{heard}");
    assert!(names(&images).contains(&"seal.json".to_owned()));
    eventually("nothing under way", || served.is_idle().then_some(()));
}

/// The path is swapped all the time, between the folder and one of somebody else's. It is the folder that was handed over
/// which counts, or there is none.
#[test]
fn a_path_that_is_swapped_in_between_leads_nowhere_else() {
    let served = Served::new(&["--requests-each", "100000"]);
    let others = served.lab.path("others");
    folder_of(&others, OTHER, 0o755);
    let link = served.store(ONE).join("link");
    let (mut sealed, mut refused) = (0, 0);
    for round in 0..40 {
        let mine = served.images(ONE, &format!("round-{round}"));
        let swap = format!("swap:{}:{}:{}", link.display(), mine.display(), others.display());
        symlink(&mine, &link).unwrap();
        // A thread that changes the link has no part in what is dumped but being stopped with the rest.
        let operations = [swap, with(&[&link]), hear(), send(&dump(&options(&[]))), hear(), hear()];
        let heard = served.speak(ONE, &operations);
        assert!(names(&others).is_empty(), "round {round}: {heard}");
        match names(&mine).contains(&"seal.json".to_owned()) {
            true => sealed += 1,
            false => {
                assert!(heard.contains("belongs to user"), "round {round}: {heard}");
                assert!(names(&mine).is_empty());
                refused += 1;
            }
        }
        fs::remove_file(&link).unwrap();
        eventually("nothing under way", || served.is_idle().then_some(()));
    }
    println!("swapped: {sealed} into the right folder, {refused} refused");
}

/// A list of access rights would let its owner in by name, although the folder is the service's.
#[test]
fn a_list_of_access_rights_does_not_outlive_the_lock() {
    let served = Served::new(&[]);
    let images = served.images(ONE, "images");
    for list in ["system.posix_acl_access", "system.posix_acl_default"] {
        allow(&images, list, ONE);
    }
    fs::set_permissions(&images, PermissionsExt::from_mode(0o700)).unwrap();
    let heard = served.speak(ONE, &[with(&[&images]), hear(), send(&dump(&options(&[]))), hear(), hear()]);
    assert!(names(&images).contains(&"seal.json".to_owned()), "{heard}");
    assert!(lists(&images).is_empty());
    assert!(lists(&images.join("inventory.img")).is_empty());
}

/// Lets a user do everything, beside owner (all), group (nothing) and others (nothing): version 2 of the list
/// (linux/posix_acl_xattr.h), whose entries are a tag, permissions and a number.
fn allow(path: &Path, list: &str, user: u32) {
    const ENTRIES: [(u16, u16); 5] = [(0x01, 7), (0x02, 7), (0x04, 0), (0x10, 7), (0x20, 0)];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions) in ENTRIES {
        let number = if tag == 0x02 { user } else { u32::MAX };
        value.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        value.extend(number.to_le_bytes());
    }
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let name = std::ffi::CString::new(list).unwrap();
    // SAFETY: C strings, and a value of the length that is said.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// The names of a file's lists of access rights.
fn lists(path: &Path) -> String {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mut buffer = [0_u8; 1024];
    // SAFETY: a C string, and a buffer of the length that is said.
    let length = unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    assert!(length >= 0, "{}", std::io::Error::last_os_error());
    let names = String::from_utf8_lossy(&buffer[..length.unsigned_abs()]).into_owned();
    names.split('\0').filter(|name| name.contains("posix_acl")).collect()
}

#[test]
fn a_flood_of_one_user_does_not_keep_another_from_its_checkpoint() {
    let served = Served::new(&["--connections-each", "8", "--silence", "60s"]);
    let mut speaker = Command::new(served.lab.path("speaker"));
    speaker.arg(served.socket()).args(["flood:300", "wait"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    use std::os::unix::process::CommandExt;
    let mut flood = speaker.uid(ONE).gid(ONE).spawn().unwrap();
    served.service.wait_for("has 8 connections already");
    let chain = served.launch(OTHER, "chain").start();
    chain.wait_for("step 50");
    chain.signal(USR2);
    served.attempt(OTHER, "chain", true);
    flood.stdin.take().unwrap().write_all(b"\n").unwrap();
    flood.wait().unwrap();
}

#[test]
fn requests_are_counted_and_a_connection_that_says_nothing_ends() {
    let served = Served::new(&["--requests-each", "5", "--silence", "1s"]);
    let five = |user| {
        let operations: Vec<String> = (0..6).flat_map(|_| [send(&version()), hear()]).collect();
        served.speak(user, &operations)
    };
    assert!(five(ONE).lines().last().unwrap().contains("has made 5 requests in a minute"));
    assert!(served.speak(OTHER, &[send(&version()), hear()]).contains("heard"));
    assert_eq!(served.speak(OTHER, &[hear()]), "end\n");
}

#[test]
fn a_program_that_is_too_large_and_a_disk_that_is_too_small_are_said_beforehand() {
    for (limit, value, answer) in [
        ("--size", "1MiB", "in memory, and 1.0 MiB is the limit"),
        ("--reserve", "99999GiB", "are to stay so"),
    ] {
        let served = Served::new(&[limit, value]);
        let images = served.images(ONE, "images");
        let heard = served.speak(ONE, &[with(&[&images]), hear(), send(&dump(&options(&[]))), hear()]);
        assert!(heard.contains(answer), "{heard}");
        assert!(names(&images).is_empty() && served.is_idle());
    }
}
