//! Checkpoints that go by way of memory: they are as any others are, and what was in memory is gone afterwards.

pub mod copier;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock};

use selfdump::Staging;
use serde_json::{Value, json};

use crate::afterlife::bring_back;
use crate::aftermath::{drafts, folders};
use crate::chain::follow;
use crate::failures::small_disk::Disk;
use crate::harness::{
    Lab, Launch, Restored, Subject, USR2, eventually, manifest, oldest_criu, read_json, succeeds,
    write_script,
};
use crate::rootless::{Installed, USER};

const HUGE: &str = "huge=always,size=400m";

/// What is set up for the whole machine is found by the programs of other tests as well.
static MACHINE: RwLock<()> = RwLock::new(());

/// A folder in memory for the programs of a lab.
fn memory(lab: &Lab) -> Disk {
    Disk::at(lab.path("memory"), HUGE)
}

fn staging(launch: Launch, staging: impl AsRef<Path>) -> Launch {
    launch.env("SELFDUMP_STAGING", staging.as_ref())
}

fn ready(launch: Launch) -> Subject {
    let program = launch.start();
    program.wait_for("ready");
    program
}

/// Has a checkpoint made, of this number; where it was written first.
fn staged(lab: &Lab, program: &Subject, number: u64) -> Value {
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(number);
    lab.status_when("the word about it", |status| {
        status["last"]["checkpoint"].as_str().is_some_and(|id| id.ends_with(&format!("/{number:06}")))
    });
    manifest(&checkpoint)["staged"].clone()
}

fn in_folder(disk: &Disk) -> Value {
    json!({"where": "folder", "path": disk.path()})
}

fn ticks_on(lab: &Lab) {
    let ticks = || fs::read_to_string(lab.path("asker.out")).unwrap().matches("tick").count();
    let before = ticks();
    eventually("it goes on", || (ticks() > before + 20).then_some(()));
}

fn comes_back_unbroken(lab: &Lab) {
    let memory = memory(lab);
    let program = ready(staging(lab.program("chain").arg("2"), memory.path()));
    assert_eq!(staged(lab, &program, 1), in_folder(&memory));
    assert_eq!(folders(memory.path()), Vec::<PathBuf>::new(), "nothing is left in memory");
    let checkpoint = lab.wait_for_checkpoint(1);
    succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
    let modes = fs::read_dir(checkpoint.join("images")).unwrap().flatten();
    assert!(modes.map(|file| file.metadata().unwrap().permissions().mode()).all(|mode| mode & 0o77 == 0));
    let before = follow(&program.output());
    program.crash();
    let back = bring_back(lab, "chain");
    eventually("every thread goes on beyond where it was", || {
        let now = follow(&fs::read_to_string(lab.path("chain.out")).unwrap());
        now.iter().all(|(thread, step)| *step > before[thread] + 100).then_some(())
    });
    // The life that has begun does it as the one before it did.
    back.program.signal(USR2);
    assert_eq!(manifest(&lab.wait_for_checkpoint(2))["staged"], in_folder(&memory));
}

#[test]
fn a_chain_is_unbroken_after_a_checkpoint_that_went_by_way_of_memory() {
    comes_back_unbroken(&Lab::new());
}

#[test]
fn so_it_is_with_the_oldest_supported_criu() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    comes_back_unbroken(&lab);
}

/// The processes in whose current folder, which no path leads to, something of this process is staged.
fn keepers(pid: i32) -> Vec<PathBuf> {
    let is_its_own = |folder: &PathBuf| {
        read_json(&folder.join("owner.json")).is_some_and(|owner| owner["pid"].as_i64() == Some(pid.into()))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(|process| folders(&process.join("cwd/.")).iter().any(is_its_own)).collect()
}

#[test]
fn by_itself_it_takes_a_file_system_of_its_own_that_nobody_sees_and_that_is_gone_afterwards() {
    let _nothing_is_set_up = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new();
    let program = ready(staging(lab.program("asker").arg("320"), "auto"));
    program.signal(USR2);
    let keeper = eventually("a process that keeps it", || keepers(program.pid()).pop());
    let device = fs::metadata(keeper.join("cwd/.")).unwrap().dev();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let number = format!(" {}:{} ", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    assert!(!mounts.contains(&number), "{number} is mounted: {mounts}");
    let checkpoint = lab.wait_for_checkpoint(1);
    assert_eq!(manifest(&checkpoint)["staged"], json!({"where": "memory"}));
    lab.status_when("the word about it", |status| status["last"]["staged"] == json!({"where": "memory"}));
    eventually("nothing left of it", || (!keeper.exists()).then_some(()));
    program.crash();
    let back = bring_back(&lab, "asker");
    ticks_on(&lab);
    back.program.signal(USR2);
    assert_eq!(manifest(&lab.wait_for_checkpoint(2))["staged"], json!({"where": "memory"}));
}

#[test]
fn a_small_program_gains_nothing_by_it_and_is_written_to_the_disk() {
    let lab = Lab::new();
    let program = ready(staging(lab.program("asker").arg("16"), "auto"));
    assert_eq!(staged(&lab, &program, 1), Value::Null);
    assert!(!program.output().contains("memory"), "{}", program.output());
}

#[test]
fn a_program_that_is_to_end_is_written_to_the_disk_at_once() {
    let lab = Lab::new();
    let memory = memory(&lab);
    let launch = lab.program("asker").arg("16").env("SELFDUMP_EXIT_SIGNAL", "TERM");
    let mut program = ready(staging(launch, memory.path()));
    program.signal(libc::SIGTERM);
    assert!(program.wait().success());
    assert_eq!(manifest(&lab.wait_for_checkpoint(1))["staged"], Value::Null);
}

#[test]
fn a_folder_that_will_not_do_is_told_once_and_the_disk_takes_its_place() {
    let lab = Lab::new();
    for (folder, why) in [("none", "it isn't there"), ("disk", "it isn't in memory")] {
        let path = lab.path(folder);
        if folder == "disk" {
            fs::create_dir(&path).unwrap();
        }
        let lab = Lab::new();
        let program = ready(staging(lab.program("asker").arg("1"), &path));
        for number in 1..=2 {
            let staged = staged(&lab, &program, number);
            assert_eq!(staged["where"], "fell-back");
            assert!(staged["why"].as_str().unwrap().contains(why), "{staged}");
        }
        assert_eq!(program.output().matches(why).count(), 1);
        let said = succeeds(&mut lab.selfdump(["status", &program.pid().to_string()]));
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn memory_without_room_is_left_alone_until_it_has_some() {
    let lab = Lab::new();
    let memory = Disk::at(lab.path("memory"), "size=80m");
    let program = ready(staging(lab.program("asker").arg("64"), memory.path()));
    let first = staged(&lab, &program, 1);
    assert!(first["why"].as_str().unwrap().contains("it has no room"), "{first}");
    memory.grows_to(400);
    assert_eq!(staged(&lab, &program, 2), in_folder(&memory));
}

/// A CRIU before which somebody else takes the room that there was.
fn criu_without_room(lab: &Lab, memory: &Disk) -> PathBuf {
    let path = lab.path("criu");
    let filler = memory.path().join("filler");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = swrk ] && cat /dev/zero >{} 2>/dev/null\nexec {} \"$@\"\n",
        filler.display(),
        lab.criu.display()
    );
    write_script(&path, text);
    path
}

#[test]
fn memory_that_fills_up_in_mid_dump_is_given_up_for_the_disk_at_once() {
    let mut lab = Lab::new();
    let memory = memory(&lab);
    lab.criu = criu_without_room(&lab, &memory);
    let launch = lab.program("chain").arg("2").env("SELFDUMP_COPY_FILES", lab.path("copied"));
    let launch = launch.env("SELFDUMP_COPY_LIMIT", "1 MiB");
    fs::write(lab.path("copied"), "text").unwrap();
    let program = ready(staging(launch, memory.path()));
    let staged = staged(&lab, &program, 1);
    assert_eq!(staged["where"], "fell-back");
    assert!(staged["why"].as_str().unwrap().contains("it didn't fit into memory"), "{staged}");
    assert_eq!(folders(memory.path()), Vec::<PathBuf>::new());
    assert_eq!(manifest(&lab.wait_for_checkpoint(1))["copies"].as_array().unwrap().len(), 1);
    let before = follow(&program.output());
    program.crash();
    let _back = bring_back(&lab, "chain");
    eventually("every thread goes on beyond where it was", || {
        let now = follow(&fs::read_to_string(lab.path("chain.out")).unwrap());
        now.iter().all(|(thread, step)| *step > before[thread] + 100).then_some(())
    });
}

#[test]
fn copies_of_files_go_the_same_way() {
    let lab = Lab::new();
    let memory = memory(&lab);
    let file = lab.path("data.txt");
    fs::write(&file, "as it was").unwrap();
    let launch = lab.program("asker").arg("1").env("SELFDUMP_COPY_FILES", &file);
    let program = ready(staging(launch.env("SELFDUMP_COPY_LIMIT", "1 MiB"), memory.path()));
    assert_eq!(staged(&lab, &program, 1), in_folder(&memory));
    fs::write(&file, "as it was not").unwrap();
    program.crash();
    let _back = bring_back(&lab, "asker");
    assert_eq!(fs::read_to_string(&file).unwrap(), "as it was");
}

#[test]
fn what_is_all_zero_takes_no_room_on_the_disk() {
    let lab = Lab::new();
    let memory = memory(&lab);
    let program = ready(staging(lab.program("asker").arg("1").arg("zeros=80"), memory.path()));
    staged(&lab, &program, 1);
    let images = lab.wait_for_checkpoint(1).join("images");
    let pages = fs::read_dir(images).unwrap().flatten().map(|file| file.metadata().unwrap());
    let (size, room) =
        pages.fold((0, 0), |(size, room), file| (size + file.len(), room + file.blocks() * 512));
    assert!(size > 64 << 20 && room < 16 << 20, "{size} bytes take {room}");
}

#[test]
fn what_somebody_leaves_in_memory_who_is_killed_goes_with_the_next_start() {
    let lab = Lab::new();
    let memory = memory(&lab);
    type Step = (&'static str, fn(&Path, &Path) -> bool);
    fn has_files(folder: &Path) -> bool {
        fs::read_dir(folder).is_ok_and(|files| files.count() > 0)
    }
    // Where it is so only for a moment that may be missed, what comes next will do.
    let steps: [Step; 3] = [
        ("in mid-dump", |there, _| there.join("images/pages-1.img").exists()),
        ("dumped", |there, draft| {
            there.join("images/stats-dump").exists() || has_files(&draft.join("images"))
        }),
        ("being moved", |_, draft| has_files(&draft.join("images"))),
    ];
    for (step, has_come) in steps {
        // What an earlier one has said isn't this one's word.
        let _ = fs::remove_file(lab.path("asker.out"));
        let program = ready(staging(lab.program("asker").arg("96"), memory.path()));
        program.signal(USR2);
        let there = eventually("something in memory", || folders(memory.path()).pop());
        let draft = eventually("a draft", || drafts(&lab).pop());
        eventually(step, || has_come(&there, &draft).then_some(()));
        program.crash();
        let _ = fs::remove_file(lab.path("asker.out"));
        let next = ready(staging(lab.program("asker").arg("1"), memory.path()));
        eventually(&format!("nothing left of one that was killed {step}"), || {
            (folders(memory.path()).is_empty() && drafts(&lab).is_empty()).then_some(())
        });
        next.crash();
    }
}

#[test]
fn several_programs_share_the_memory_that_there_is() {
    let lab = Lab::new();
    let memory = memory(&lab);
    let programs: Vec<(Lab, Subject)> = (0..3)
        .map(|_| {
            let own = Lab::new();
            let program = ready(staging(own.program("asker").arg("48"), memory.path()));
            (own, program)
        })
        .collect();
    programs.iter().for_each(|(_, program)| program.signal(USR2));
    for (own, program) in programs {
        let checkpoint = own.wait_for_checkpoint(1);
        let staged = manifest(&checkpoint)["staged"].clone();
        assert!(staged == in_folder(&memory) || staged["where"] == "fell-back", "{staged}");
        program.crash();
        let _back = bring_back(&own, "asker");
        ticks_on(&own);
    }
    assert_eq!(folders(memory.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_fails_the_checkpoint_and_leaves_nothing_in_memory() {
    let lab = Lab::new();
    let disk = Disk::of(&lab, 60);
    let memory = memory(&lab);
    // Shared memory is in no estimate of what the disk takes.
    let program = ready(staging(lab.program("asker").arg("1").arg("shared=100"), memory.path()));
    program.signal(USR2);
    let failed = lab.status_when("a failure", |status| !status["last"]["error"].is_null());
    assert_eq!(failed["last"]["error"]["kind"], "no-space", "{failed}");
    assert_eq!((folders(memory.path()), drafts(&lab)), (Vec::new(), Vec::new()));
    disk.grows_to(300);
    assert_eq!(staged(&lab, &program, 1), in_folder(&memory));
}

/// Whatever was mounted there before.
struct SetUp;

impl Drop for SetUp {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(Staging::SHARED).status();
    }
}

#[test]
fn what_root_has_set_up_is_there_for_programs_of_all_users() {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new();
    let before = succeeds(&mut lab.selfdump(["doctor"]));
    assert!(before.contains("can be made for each checkpoint"), "{before}");
    let _set_up = SetUp;
    let said = succeeds(&mut lab.selfdump(["setup", "--staging"]));
    assert!(
        said.contains("is mounted;") && said.contains(&format!("tmpfs {}", Staging::mount_options())),
        "{said}"
    );
    let again = succeeds(&mut lab.selfdump(["setup", "--staging", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap()["mounted"], false, "{again}");
    assert!(succeeds(&mut lab.selfdump(["doctor"])).contains("/run/selfdump-staging is in large pages"));
    let program = ready(staging(lab.program("asker").arg("320"), "auto"));
    assert_eq!(staged(&lab, &program, 1), json!({"where": "folder", "path": Staging::SHARED}));
    program.crash();
    let _back = bring_back(&lab, "asker");
    ticks_on(&lab);
    let mine = fs::metadata(Staging::SHARED).unwrap();
    assert_eq!((mine.uid(), mine.permissions().mode() & 0o7777), (0, 0o1777));
    an_ordinary_user_s_program_comes_back_by_way_of_it();
    assert_eq!(folders(Path::new(Staging::SHARED)), Vec::<PathBuf>::new(), "nothing is left in memory");
}

fn an_ordinary_user_s_program_comes_back_by_way_of_it() {
    let installed = Installed::with(&[], &["asker"]);
    let lab = installed.lab(&["asker", "restore"]);
    let program = ready(staging(lab.launch(installed.run("asker", &["320"]), "asker"), "auto"));
    assert_eq!(staged(&lab, &program, 1), json!({"where": "folder", "path": Staging::SHARED}));
    assert_eq!(fs::metadata(lab.wait_for_checkpoint(1)).unwrap().uid(), USER);
    let pid = program.pid();
    program.crash();
    let restorer = lab.launch(installed.run("selfdump", &["restore", "asker"]), "restore").start();
    let _back = Restored { restorer, pid };
    ticks_on(&lab);
}
