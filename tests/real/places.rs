//! A store is a folder like any other: it comes back from wherever it, or a part of it, was moved or copied.

use std::fs;
use std::path::Path;
use std::process::Command;

use prost::Message;

use crate::afterlife::{Alone, bring_back};
use crate::chain::follow;
use crate::harness::{Lab, USR2, copy_program, write_script};

/// Two checkpoints of a program that has ended; the id of the newer.
fn two_checkpoints(lab: &Lab) -> String {
    let program = lab.program("chain").start();
    program.wait_for("ready");
    for number in 1..=2 {
        program.signal(USR2);
        lab.wait_for_checkpoint(number);
    }
    program.crash();
    let newest = lab.checkpoints().pop().unwrap();
    newest.strip_prefix(lab.store()).unwrap().to_str().unwrap().to_owned()
}

/// Restores a target, and shows that the program that is written down there under `id` goes on.
fn goes_on(lab: &Lab, target: impl AsRef<Path>, id: &str) {
    let said = |lab: &Lab| fs::read_to_string(lab.path("chain.out")).unwrap();
    let returns = said(lab).matches("restored ").count();
    let back = bring_back(lab, target);
    assert_eq!(back.id, id);
    crate::harness::eventually("it says so and goes on", || {
        let text = said(lab);
        let rest = text.split("restored ").nth(returns + 1)?;
        assert!(rest.starts_with(id), "{rest}");
        rest.contains("thread 0 step").then_some(())
    });
    back.program.crash();
    follow(&said(lab));
}

#[test]
fn a_name_an_id_and_each_folder_of_a_store_are_targets() {
    let lab = Lab::new();
    let newest = two_checkpoints(&lab);
    let older = newest.replace("000002", "000001");
    let store = lab.store();
    goes_on(&lab, "chain", &newest);
    goes_on(&lab, &newest, &newest);
    goes_on(&lab, &older, &older);
    goes_on(&lab, &store, &newest);
    goes_on(&lab, store.join(&newest).parent().unwrap(), &newest);
    goes_on(&lab, store.join(&older), &older);
}

#[test]
fn a_store_that_was_moved_is_restored_from_where_it_is() {
    let lab = Lab::new();
    let newest = two_checkpoints(&lab);
    let moved = lab.path("elsewhere/deep/store");
    fs::create_dir_all(moved.parent().unwrap()).unwrap();
    fs::rename(lab.store(), &moved).unwrap();
    goes_on(&lab, &moved, &newest);
    goes_on(&lab, moved.join("chain"), &newest);

    let instance = lab.path("an-instance");
    fs::rename(moved.join(&newest).parent().unwrap(), &instance).unwrap();
    goes_on(&lab, &instance, &newest);
}

#[test]
fn one_checkpoint_that_was_copied_is_enough() {
    let lab = Lab::new();
    let newest = two_checkpoints(&lab);
    let copy = lab.path("backup of monday");
    let copied = Command::new("cp").arg("-r").arg(lab.store().join(&newest)).arg(&copy).status();
    assert!(copied.expect("cp").success());
    fs::remove_dir_all(lab.store()).unwrap();
    goes_on(&lab, &copy, &newest);
    assert!(!lab.store().exists(), "restoring makes no store");
}

/// The build id of the program in the newest checkpoint, as bytes.
fn build_id(lab: &Lab, path: &std::path::Path) -> Vec<u8> {
    let manifest = crate::harness::manifest(&lab.checkpoints()[0]);
    let mapped = manifest["program"]["mapped"].as_array().unwrap();
    let ours =
        mapped.iter().find(|file| file["path"] == *path.to_str().unwrap()).expect("the program itself");
    let digits = ours["build_id"].as_str().expect("a build id");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn another_build_of_the_program_is_refused_by_name_and_forced_on_demand() {
    let lab = Lab::new();
    let path = lab.path("app");
    copy_program(crate::harness::program("chain"), &path);
    let program = lab.launch(std::process::Command::new(&path), "app").start();
    program.wait_for("ready");
    program.signal(USR2);
    lab.wait_for_checkpoint(1);
    let id = build_id(&lab, &path);
    assert!(
        crate::harness::manifest(&lab.checkpoints()[0])["program"]["cpu_features"].as_array().unwrap().len()
            > 5
    );
    program.crash();
    // A build that differs in nothing but its id.
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(id.len()).position(|part| part == id).expect("the id in the file");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let refused = lab.run(["restore", "app", "--detach"]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(125), "{errors}");
    assert!(errors.contains("app is another build now") && errors.contains("--force"), "{errors}");
    let told = lab.run(["restore", "app", "--dry-run"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("another build now"), "{told:?}");
    let back = crate::afterlife::bring_back_with(&lab, "app", &["--force"]);
    back.program.crash();
}

#[test]
fn a_processor_that_lacks_instructions_is_refused_by_criu_and_forced_on_demand() {
    /// Of CPUID's leaf 7, EBX, which is CRIU's tenth word: HLE, MPX, AVX512PF, AVX512ER. No processor has them all.
    const MISSING: (usize, u32) = (9, 1 << 4 | 1 << 14 | 1 << 26 | 1 << 27);
    let lab = Lab::new();
    let program = lab.program("chain").arg("1").start();
    program.wait_for("ready");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    program.crash();
    let image = checkpoint.join("images/cpuinfo.img");
    let (word, bits) = MISSING;
    // The image is changed behind the verification.
    let changed = lab.path("cpuinfo.img");
    std::fs::write(&changed, with_feature(&std::fs::read(&image).unwrap(), word, bits)).unwrap();
    let criu = lab.path("criu");
    let script = format!(
        "#!/bin/sh\ncp {} {}\nexec {} \"$@\"\n",
        changed.display(),
        image.display(),
        crate::harness::criu().display()
    );
    write_script(&criu, script);
    let before = std::fs::read(&image).unwrap();
    let refused =
        lab.selfdump(["restore", "chain", "--detach"]).env("SELFDUMP_CRIU", &criu).output().unwrap();
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(125), "{errors}");
    assert!(errors.contains("this processor lacks instructions") && errors.contains("--force"), "{errors}");
    std::fs::write(&image, before).unwrap();
    let mut forced = lab.selfdump(["restore", "chain", "--detach", "--force"]);
    let forced = forced.env("SELFDUMP_CRIU", &criu).output().unwrap();
    assert!(forced.status.success(), "{forced:?}");
    Alone::new(crate::harness::manifest(&checkpoint)["life"]["pid"].as_i64().unwrap() as i32).crash();
}

/// `cpuinfo.img` of x86 (CRIU's images/cpuinfo.proto), whole, so that it can be written again.
#[derive(prost::Message)]
struct Processors {
    #[prost(message, repeated, tag = "1")]
    processors: Vec<Processor>,
}

#[derive(prost::Message)]
struct Processor {
    #[prost(uint32, optional, tag = "1")]
    vendor: Option<u32>,
    #[prost(uint32, optional, tag = "2")]
    family: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    model: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    stepping: Option<u32>,
    #[prost(uint32, optional, tag = "5")]
    features_version: Option<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "6")]
    features: Vec<u32>,
    #[prost(string, optional, tag = "7")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "8")]
    state_mask: Option<u64>,
    #[prost(uint32, optional, tag = "9")]
    state_size: Option<u32>,
    #[prost(uint32, optional, tag = "10")]
    largest_state: Option<u32>,
}

/// The image with bits set in one of the words of features. Before the message stand a magic number and its size.
fn with_feature(image: &[u8], word: usize, bits: u32) -> Vec<u8> {
    let (head, message) = image.split_at(12);
    let mut processors = Processors::decode(message).expect("CRIU's message");
    processors.processors[0].features[word] |= bits;
    let message = processors.encode_to_vec();
    [&head[..8], &(message.len() as u32).to_le_bytes(), &message].concat()
}
