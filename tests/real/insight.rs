//! What `Inside` tells of a program is what the kernel told of it when it stood still.

use std::fs;

use selfdump::inspect::{self, Detail, Inside, MappingKind, PagePlace, Process, Registers, State};
use selfdump::{Entry, restore};

use crate::harness::{Lab, Subject, USR2};

/// A program that does the same all the time, so that what the kernel says of it after its checkpoint is what it was.
fn dumped(lab: &Lab) -> (Subject, Entry) {
    let program = lab.program("chain").arg("4").start();
    program.wait_for("thread 3 step");
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let (store, _) = restore::from_environment(None).expect("settings");
    let entry = restore::find(&store, Some(&checkpoint)).expect("a checkpoint").remove(0);
    (program, entry)
}

fn only(entry: &Entry) -> Process {
    let mut inside = Inside::of(entry).expect("it can be read");
    assert_eq!(inside.processes.len(), 1);
    inside.processes.remove(0)
}

fn proc(program: &Subject, name: &str) -> String {
    format!("/proc/{}/{name}", program.pid())
}

#[test]
fn threads_stand_in_code_and_on_stacks() {
    let lab = Lab::new();
    let (program, entry) = dumped(&lab);
    let process = only(&entry);
    assert_eq!((process.pid, process.state, process.name.as_str()), (program.pid(), State::Alive, "chain"));
    let mut tids: Vec<String> = process.threads.iter().map(|thread| thread.tid.to_string()).collect();
    tids.sort();
    let tasks = fs::read_dir(proc(&program, "task")).expect("threads");
    let mut theirs: Vec<String> =
        tasks.map(|task| task.unwrap().file_name().to_string_lossy().into_owned()).collect();
    theirs.sort();
    assert_eq!(tids, theirs);
    let memory = process.memory.expect("an address space");
    for thread in &process.threads {
        let name = fs::read_to_string(proc(&program, &format!("task/{}/comm", thread.tid))).unwrap();
        assert_eq!(thread.name, name.trim_end());
        let at = |address: u64| memory.mappings.iter().find(|m| m.start <= address && address < m.end);
        let code = at(thread.registers.instruction_pointer()).expect("a mapping");
        let stack = at(thread.registers.stack_pointer()).expect("a mapping");
        assert_eq!((code.protection & 4, stack.protection & 2), (4, 2));
        let Registers::X86(registers) = &thread.registers else { panic!("{:?}", thread.registers) };
        assert!(registers.general.fs_base != 0 && registers.floating.xmm_space.len() == 64);
        assert!(thread.credentials.is_some() && thread.robust_list.0 != 0);
    }
}

#[test]
fn mappings_are_those_of_the_kernel_and_their_pages_are_all_there() {
    let lab = Lab::new();
    let (program, entry) = dumped(&lab);
    let memory = only(&entry).memory.expect("an address space");
    let maps = fs::read_to_string(proc(&program, "maps")).expect("mappings");
    // What has no name may have grown since, by the work that comes after a dump; the kernel's data ([vvar]) is one
    // mapping to CRIU.
    let named = |line: &&str| ["/", "[heap]", "[stack]", "[vdso]"].iter().any(|name| line.contains(name));
    assert!(maps.lines().filter(named).count() > 10, "{maps}");
    for line in maps.lines().filter(named) {
        let (range, rest) = line.split_once(' ').expect("a range");
        let (start, end) = range.split_once('-').expect("two ends");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let found = memory.mappings.iter().find(|m| m.start == address(start));
        let found = found.unwrap_or_else(|| panic!("{line} is not there"));
        assert!(found.end == address(end) || found.kind == MappingKind::Heap, "{line}");
        let letters = ['r', 'w', 'x'];
        let protection =
            (0..3).filter(|bit| rest.as_bytes()[*bit] == letters[*bit] as u8).map(|bit| 1 << bit);
        assert_eq!(found.protection, protection.sum::<u32>(), "{line}");
        let path = rest.split_whitespace().nth(4);
        match path {
            Some("[heap]") => assert_eq!(found.kind, MappingKind::Heap),
            Some("[stack]") => assert_eq!(found.kind, MappingKind::Stack),
            Some("[vdso]") => assert_eq!(found.kind, MappingKind::Vdso),
            Some(path) if path.starts_with('/') => {
                assert_eq!(found.path.as_deref().unwrap().to_str(), Some(path))
            }
            _ => {}
        }
    }
    let auxv = fs::read(proc(&program, "auxv")).expect("auxv");
    let words: Vec<u64> = auxv.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let kept = &memory.auxiliary_vector;
    for pair in words.chunks(2).filter(|pair| pair[0] != 0) {
        assert!(kept.contains(&(pair[0], pair[1])), "{pair:?}");
    }
    assert_eq!(memory.executable, fs::read_link(proc(&program, "exe")).ok());
    let mut pages = inspect::pages(&entry, program.pid() as u32).expect("pages");
    let here = |place| matches!(place, PagePlace::Here { .. });
    let runs: Vec<_> = pages.by_ref().map(|run| run.expect("a run")).collect();
    let stored: u64 = runs.iter().filter(|run| here(run.place)).map(|run| run.pages * 4096).sum();
    assert_eq!(stored, fs::metadata(pages.file()).unwrap().len());
    assert_eq!(stored, memory.mappings.iter().map(|mapping| mapping.dumped_bytes.0).sum::<u64>());
}

#[test]
fn descriptors_have_what_the_manifest_keeps_and_more() {
    let lab = Lab::new();
    let (_program, entry) = dumped(&lab);
    let descriptors = only(&entry).descriptors;
    let kept = &entry.manifest.as_ref().unwrap().processes[0].descriptors;
    assert_eq!(descriptors.len(), kept.len());
    for (one, other) in descriptors.iter().zip(kept) {
        assert_eq!((one.about.fd, one.about.kind, &one.about.path), (other.fd, other.kind, &other.path));
    }
    let output = descriptors.iter().find(|descriptor| descriptor.about.fd == 1).unwrap();
    assert!(matches!(&output.detail, Some(Detail::File(file)) if !file.deleted));
    let error = descriptors.iter().find(|descriptor| descriptor.about.fd == 2).unwrap();
    assert_eq!(output.file_id, error.file_id, "both lead to the same open file");
}
