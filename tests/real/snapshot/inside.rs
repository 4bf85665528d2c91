//! A checkpoint of a copy is one as any other: whole, shown, made a core of, stored by what has changed, and brought back by
//! `criu` alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{by_a_copy, copied, output, ready, saved, threads};
use crate::afterlife::{Alone, bring_back};
use crate::chain::follow;
use crate::cores::gdb;
use crate::harness::{Lab, Subject, eventually, manifest, oldest_criu, program, succeeds};

#[test]
fn its_manifest_tells_of_it_and_it_is_verified_and_shown() {
    let lab = Lab::new();
    let program = ready(copied(lab.program("chain").arg("5")));
    let checkpoint = saved(&lab, program.pid(), 1);
    let pid = program.pid().to_string();
    let process = &manifest(&checkpoint)["processes"][0];
    assert_eq!(process["pid"], program.pid(), "{process}");
    let mut ids: Vec<i32> = serde_json::from_value(process["threads"].clone()).unwrap();
    ids.sort_unstable();
    assert_eq!(ids, threads(program.pid()));
    succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
    for command in [["show", checkpoint.to_str().unwrap()], ["status", &pid]] {
        let shown = succeeds(&mut lab.selfdump(command));
        assert!(shown.contains("a copy of the program, which ran on"), "{shown}");
    }
    let shown = succeeds(&mut lab.selfdump(["show", "--json", checkpoint.to_str().unwrap()]));
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["technique"], by_a_copy());
    // No image is named for the copy.
    for image in fs::read_dir(checkpoint.join("images")).unwrap().flatten() {
        let name = image.file_name().into_string().unwrap();
        if let Some(number) = name.strip_prefix("mm-").or_else(|| name.strip_prefix("pagemap-")) {
            assert!(number == format!("{pid}.img") || name.contains("shmem"), "{name}");
        }
    }
    for file in ["pages-1.img", "inventory.img", "stats-dump"] {
        assert!(checkpoint.join("images").join(file).exists(), "{file}");
    }
}

#[test]
fn gdb_finds_all_threads_in_its_core_where_they_were() {
    let lab = Lab::new();
    let subject = ready(copied(lab.program("chain").arg("16")));
    let checkpoint = saved(&lab, subject.pid(), 1);
    let core = lab.path("core");
    succeeds(&mut lab.selfdump(["core".as_ref(), checkpoint.as_os_str(), "-o".as_ref(), core.as_os_str()]));
    let executable = program("chain");
    let arguments = [executable.to_str().unwrap(), core.to_str().unwrap()];
    let shown = gdb(&arguments, &["thread apply all backtrace"]);
    let threads = threads(subject.pid());
    assert_eq!(threads.len(), 17);
    for tid in &threads {
        assert!(shown.contains(&format!("LWP {tid})")), "{tid} is not in {shown}");
    }
    // Each with all its frames, up to its function: those of the chains, and selfdump's own.
    let runs =
        shown.lines().filter(|line| line.contains(" run ") && line.contains("tests/programs/chain.rs"));
    assert_eq!(runs.count(), 16, "{shown}");
    assert!(shown.contains("selfdump::agent"), "{shown}");
}

/// Steps on, and has a checkpoint made of it.
fn steps(lab: &Lab, program: &Subject, number: u64) -> std::path::PathBuf {
    let checkpoint = saved(lab, program.pid(), number);
    program.signal(libc::SIGUSR1);
    program.wait_for(&format!("step {number}"));
    checkpoint
}

#[test]
fn only_what_has_changed_since_the_last_copy_is_stored_and_each_comes_back() {
    let lab = Lab::new();
    let launch = lab.program("changer").arg("16").arg("10").env("SELFDUMP_KEEP", "100");
    let program = ready(copied(launch));
    let checkpoints: Vec<_> = (1..=4).map(|number| steps(&lab, &program, number)).collect();
    program.crash();
    let levels = |checkpoint: &Path| manifest(checkpoint)["chain"].as_array().map_or(0, Vec::len);
    assert_eq!(checkpoints.iter().map(|it| levels(it)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (step, checkpoint) in checkpoints.iter().enumerate() {
        succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
        let before = output(&lab, "changer").len();
        let back = bring_back(&lab, checkpoint);
        back.program.signal(libc::SIGHUP);
        let word = format!("right {step}");
        eventually(&word, || output(&lab, "changer")[before..].contains(&word).then_some(()));
        back.program.crash();
    }
    assert!(!output(&lab, "changer").contains("wrong"));
}

#[test]
fn criu_brings_its_images_back_without_us() {
    for criu in [crate::harness::criu(), oldest_criu()] {
        let mut lab = Lab::new();
        lab.criu = criu;
        let program = ready(copied(lab.program("chain").arg("8")));
        let checkpoint = saved(&lab, program.pid(), 1);
        let before = follow(&program.output());
        let pid = program.pid();
        program.crash();
        let to = lab.path("exported");
        let arguments = ["export".as_ref(), "--json".as_ref(), checkpoint.as_os_str(), to.as_os_str()];
        let report: Value = serde_json::from_str(&succeeds(&mut lab.selfdump(arguments))).unwrap();
        let options =
            report["criu_options"].as_array().unwrap().iter().map(|option| option.as_str().unwrap());
        let mut command = Command::new(&lab.criu);
        command.args(["restore", "--restore-detached", "-D"]).arg(&to).args(options);
        succeeds(command.stdin(Stdio::null()));
        let back = Alone::new(pid);
        eventually("every thread goes on beyond where it was", || {
            let now = follow(&output(&lab, "chain"));
            now.iter().all(|(thread, step)| *step > before[thread] + 100).then_some(())
        });
        saved(&lab, back.pid, 2);
    }
}

#[test]
fn compressed_it_comes_back_as_well() {
    let lab = Lab::new();
    let program = ready(copied(lab.program("chain").arg("4").env("SELFDUMP_COMPRESS", "zstd")));
    let checkpoint = saved(&lab, program.pid(), 1);
    succeeds(&mut lab.selfdump(["verify", checkpoint.to_str().unwrap()]));
    let before = follow(&program.output());
    program.crash();
    let back = bring_back(&lab, "chain");
    eventually("every thread goes on beyond where it was", || {
        let now = follow(&output(&lab, "chain"));
        now.iter().all(|(thread, step)| *step > before[thread] + 100).then_some(())
    });
    saved(&lab, back.program.pid, 2);
}
