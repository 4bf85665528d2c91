//! A CRIU that hangs, dies or talks nonsense behind the service, and a service that is ended or killed in the middle.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::words::{dump, hear, options, send as send_message, with};
use super::{ONE, OTHER, Served, TERM, looks, names, start};
use crate::harness::{KILL, Subject, USR2, copy_program, criu, eventually, send, write_script};

/// A CRIU that tells its version, being root's, and does something else for users. It holds the folder and the connection,
/// as the real one does.
fn false_criu(script: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = folder.path().join("criu");
    let text = format!("#!/bin/sh\n[ \"$1\" = swrk ] && exec {} \"$@\"\n{script}\n", criu().display());
    write_script(&path, text);
    (folder, path)
}

/// What keeps a worker waiting, with something in the folder.
const HANGS: &str = "echo x > /proc/self/fd/4/pages-1.img; sleep 1000 & wait";

/// The draft's folder of images, while there is one.
fn draft(served: &Served, user: u32) -> Option<PathBuf> {
    let instance = fs::read_dir(served.store(user).join("chain")).ok()?.flatten().next()?.path();
    let draft = fs::read_dir(instance)
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with(".partial"))?;
    Some(draft.path().join("images"))
}

/// A program that is being dumped by a CRIU that hangs: its folder is locked, and there is something in it.
fn being_dumped(served: &Served) -> (Subject, PathBuf) {
    let chain = served.launch(ONE, "chain").start();
    chain.wait_for("step 50");
    chain.signal(USR2);
    let images = eventually("a locked folder", || {
        draft(served, ONE).filter(|images| images.join("pages-1.img").exists())
    });
    (chain, images)
}

fn goes_on(chain: &Subject) {
    let steps = || chain.output().matches("step").count();
    let before = steps();
    eventually("more steps", || (steps() > before).then_some(()));
}

#[test]
fn a_criu_that_hangs_ends_at_the_deadline_and_the_program_goes_on() {
    let (_folder, hangs) = false_criu(HANGS);
    let served = Served::by(&hangs, &["--deadline", "2s"]);
    let (chain, _) = being_dumped(&served);
    let attempt = served.attempt(ONE, "chain", false);
    let error = attempt["error"].to_string();
    assert!(error.contains("did not end in time") && error.contains("deadline"), "{error}");
    goes_on(&chain);
    eventually("nothing under way", || served.is_idle().then_some(()));
    assert!(draft(&served, ONE).is_none());
}

#[test]
fn a_criu_that_dies_or_talks_nonsense_is_an_error_and_the_program_goes_on() {
    let table = [
        ("exit 3", "CRIU failed"),
        ("kill -9 $$", "CRIU was ended by SIGKILL"),
        ("printf nonsense >&3", "no answer"),
        ("exit 0", "the images aren't whole"),
    ];
    for (script, expected) in table {
        let (_folder, criu) = false_criu(script);
        let served = Served::by(&criu, &[]);
        let chain = served.launch(ONE, "chain").start();
        chain.wait_for("step 50");
        chain.signal(USR2);
        let error = served.attempt(ONE, "chain", false)["error"].to_string();
        assert!(error.contains(expected), "{script}: {error}");
        goes_on(&chain);
        eventually("nothing under way", || served.is_idle().then_some(()));
        assert!(draft(&served, ONE).is_none(), "{script}");
    }
}

/// What somebody puts into the folder who can is looked through as well: the scripted CRIU stands for one that was had.
#[test]
fn what_is_no_image_of_the_users_is_not_sealed() {
    let folder = "/proc/self/fd/4";
    for odd in [format!("ln -s /etc/shadow {folder}/x.img"), format!("mkfifo {folder}/x.img")] {
        let real = criu();
        let script = format!("{odd}; exec {} \"$@\"", real.display());
        let (_folder, criu) = false_criu(&script);
        let served = Served::by(&criu, &[]);
        let chain = served.launch(ONE, "chain").start();
        chain.wait_for("step 50");
        chain.signal(USR2);
        let error = served.attempt(ONE, "chain", false)["error"].to_string();
        assert!(error.contains("can't read the images"), "{odd}: {error}");
        goes_on(&chain);
        eventually("nothing under way", || served.is_idle().then_some(()));
    }
}

#[test]
fn a_program_that_ends_while_it_is_dumped_takes_its_criu_with_it() {
    let (_folder, hangs) = false_criu(HANGS);
    let served = Served::by(&hangs, &[]);
    let (chain, images) = being_dumped(&served);
    chain.crash();
    eventually("nothing under way", || served.is_idle().then_some(()));
    assert_eq!((looks(&images), names(&images)), ((ONE, ONE, 0o700), vec![]));
    // A process hangs up before it is gone.
    let words = ["the program ended before CRIU did", "the program has hung up"];
    let said = || words.iter().any(|words| served.service.output().contains(words)).then_some(());
    eventually("the reason in the audit", said);
}

/// Two wait for a dump with the same folder, and begin at the same time. The second must not give back, or write into, what
/// the first has locked.
#[test]
fn a_folder_is_locked_once() {
    let (_folder, hangs) = false_criu(HANGS);
    let served = Served::by(&hangs, &["--dumps-each", "2", "--deadline", "3s", "--silence", "30s"]);
    let dump_into = |images: &Path| {
        served.speak(ONE, &[with(&[images]), hear(), send_message(&dump(&options(&[]))), hear()])
    };
    let shared = served.images(ONE, "shared");
    let before = [served.images(ONE, "one"), served.images(ONE, "another")];
    let heard: Vec<String> = std::thread::scope(|scope| {
        let first: Vec<_> = before.iter().map(|images| scope.spawn(|| dump_into(images))).collect();
        eventually("two that are under way", || {
            before.iter().all(|images| images.join("pages-1.img").exists()).then_some(())
        });
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| dump_into(&shared))).collect();
        first.into_iter().for_each(|one| assert!(one.join().unwrap().contains("did not end in time")));
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let with_text = |text: &str| heard.iter().filter(|heard| heard.contains(text)).count();
    assert_eq!((with_text("belongs to user 0"), with_text("did not end in time")), (1, 1), "{heard:?}");
    assert!(served.is_idle());
    assert_eq!((looks(&shared), names(&shared)), ((ONE, ONE, 0o700), vec![]));
}

#[test]
fn a_program_that_waits_no_longer_gets_its_folder_back() {
    let (_folder, hangs) = false_criu(HANGS);
    let served = Served::by(&hangs, &[]);
    let images = served.images(ONE, "images");
    let ask = [with(&[&images]), hear(), send_message(&dump(&options(&[])))];
    served.speak(ONE, &ask);
    eventually("nothing under way", || served.is_idle().then_some(()));
    assert_eq!((looks(&images), names(&images)), ((ONE, ONE, 0o700), vec![]));

    let chain = served.launch(ONE, "chain").env("SELFDUMP_TIMEOUT", "2s").start();
    chain.wait_for("step 50");
    chain.signal(USR2);
    let error = served.attempt(ONE, "chain", false)["error"].to_string();
    assert!(error.contains("did not answer the dump within 2s"), "{error}");
    goes_on(&chain);
    eventually("nothing under way", || served.is_idle().then_some(()));
}

#[test]
fn a_service_that_is_told_to_end_gives_back_what_it_has_locked() {
    let (_folder, hangs) = false_criu(HANGS);
    let mut served = Served::by(&hangs, &[]);
    let (chain, _) = being_dumped(&served);
    served.service.signal(TERM);
    assert!(served.service.wait().success());
    assert!(!served.socket().exists());
    assert!(names(&served.lab.path("state/locked")).is_empty());
    served.attempt(ONE, "chain", false);
    assert!(draft(&served, ONE).is_none());
    goes_on(&chain);
}

#[test]
fn what_a_killed_service_has_left_locked_is_given_back_by_the_next_one() {
    let (_folder, hangs) = false_criu(HANGS);
    let mut served = Served::by(&hangs, &[]);
    let (chain, images) = being_dumped(&served);
    let worker = eventually("a worker", || served.worker());
    // The draft's owner would remove it as soon as the connection ends.
    chain.stop();
    served.service.signal(KILL);
    served.service.wait();
    eventually("the end of its worker", || (!Path::new(&format!("/proc/{worker}")).exists()).then_some(()));
    assert_eq!(looks(&images).0, 0, "it is locked");
    assert_eq!(names(&served.lab.path("state/locked")).len(), 1);

    served.service = start(&served.lab, &criu(), &[]);
    served.service.wait_for("which was left locked");
    assert_eq!((looks(&images), names(&images)), ((ONE, ONE, 0o700), vec![]));
    assert!(served.is_idle());
    chain.signal(18);
    served.attempt(ONE, "chain", false);
    chain.signal(USR2);
    eventually("a checkpoint by the next service", || served.checkpoints(ONE, "chain").pop());
}

/// It runs as the user, with rights that the user hasn't got, so that the user may not take it over.
#[test]
fn the_user_can_neither_look_into_its_worker_nor_into_the_locked_folder() {
    let (_folder, hangs) = false_criu(HANGS);
    let served = Served::by(&hangs, &["--deadline", "20s"]);
    let (_chain, images) = being_dumped(&served);
    let worker = eventually("a worker", || served.worker());
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    // CAP_SYS_PTRACE is only taken where Yama lets nobody else trace.
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let is_limited = scope.trim().parse::<u32>().is_ok_and(|scope| scope > 0);
    let capabilities = if is_limited { "0000010000080100" } else { "0000010000000100" };
    for line in [
        format!("Uid:\t{ONE}\t{ONE}\t{ONE}\t{ONE}"),
        format!("CapPrm:\t{capabilities}"),
        format!("CapAmb:\t{capabilities}"),
        format!("CapBnd:\t{capabilities}"),
        "NoNewPrivs:\t1".to_owned(),
    ] {
        assert!(status.contains(&line), "{line}: {status}");
    }
    let tried = |user: u32, line: &str| {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(line).current_dir("/").uid(user).gid(user);
        let output = shell.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let process = format!("/proc/{worker}");
    let inside = images.display();
    for user in [ONE, OTHER] {
        for line in [
            format!("dd if={process}/mem of=/dev/null count=1"),
            format!("cat {process}/environ"),
            format!("readlink -v {process}/fd/3"),
            format!("ls {process}/fd/4/"),
            format!("readlink -v {process}/cwd"),
            format!("cat {process}/maps | grep ."),
            format!("ls {inside}"),
            format!("cat {inside}/pages-1.img"),
            format!("ln {inside}/pages-1.img {inside}/other.img"),
            format!("rm {inside}/pages-1.img"),
            format!("touch {inside}/new"),
            format!("chmod 777 {inside}"),
        ] {
            let (done, said) = tried(user, &line);
            assert!(!done, "user {user}: {line}");
            assert!(
                said.contains("ermission") || said.contains("not permitted") || line.contains("maps"),
                "{line}: {said}"
            );
        }
    }
}

#[test]
fn a_second_service_and_a_criu_that_others_can_change_are_refused_at_the_start() {
    let served = Served::new(&[]);
    let mut second = crate::harness::selfdump();
    second.arg("service").arg("--socket").arg(served.socket()).arg("--criu").arg(criu());
    second.arg("--state").arg(served.lab.path("state"));
    let said = second.output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("another service works with"), "{said:?}");

    let (_folder, open) = false_criu("exit 0");
    fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let mut third = crate::harness::selfdump();
    third.arg("service").arg("--socket").arg(served.lab.path("third.sock")).arg("--criu").arg(&open);
    third.arg("--state").arg(served.lab.path("third"));
    let said = third.output().unwrap();
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("others could put something else in the place"),
        "{said:?}"
    );
}

/// The log of a dump that CRIU could not make is the user's to read: it tells why.
#[test]
fn what_criu_says_of_a_dump_that_fails_reaches_the_program() {
    let served = Served::new(&[]);
    // A program that its user can't open again, since CRIU acts as the user.
    let hidden = served.lab.path("hidden");
    fs::create_dir(&hidden).unwrap();
    copy_program(served.lab.path("chain"), &hidden.join("chain"));
    let line = format!("cd {} && exec ./chain", hidden.display());
    copy_program("/bin/sh", &served.lab.path("shell"));
    let chain = served.launch(ONE, "shell").arg("-c").arg(&line).start();
    chain.wait_for("step 50");
    fs::set_permissions(&hidden, PermissionsExt::from_mode(0o700)).unwrap();
    chain.signal(USR2);
    let error = served.attempt(ONE, "shell", false)["error"].to_string();
    assert!(error.contains("Permission denied"), "{error}");
    goes_on(&chain);
    send(chain.pid(), KILL);
}
