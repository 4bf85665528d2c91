//! Checkpoints that store only what has changed: each is as whole as if it had stored everything.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::afterlife::{Alone, Return, bring_back};
use crate::harness::{Lab, Launch, Subject, USR2, eventually, manifest, oldest_criu, selfdump, succeeds};

const MIB: u64 = 1 << 20;

/// A program with so much memory, of which each step changes one page in a hundred.
fn changer(lab: &Lab, memory: u64) -> Launch {
    lab.program("changer").arg(memory.to_string()).arg("10").env("SELFDUMP_KEEP", "100")
}

fn ready(launch: Launch) -> Subject {
    let program = launch.start();
    program.wait_for("ready");
    program
}

/// Has a checkpoint of this number made, and goes a step on.
fn saves(lab: &Lab, program: &Subject, number: u64) -> PathBuf {
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(number);
    lab.status_when("the word about it", |status| {
        status["last"]["checkpoint"].as_str().is_some_and(|id| id.ends_with(&format!("/{number:06}")))
    });
    program.signal(libc::SIGUSR1);
    program.wait_for(&format!("step {number}"));
    checkpoint
}

/// So many checkpoints, each a step after the one before. The program has ended since.
fn chain(lab: &Lab, launch: Launch, count: u64) -> Vec<PathBuf> {
    let program = ready(launch);
    let checkpoints = (1..=count).map(|number| saves(lab, &program, number)).collect();
    program.crash();
    checkpoints
}

/// How many levels are below a checkpoint's images.
fn levels(checkpoint: &Path) -> usize {
    manifest(checkpoint)["chain"].as_array().map_or(0, Vec::len)
}

/// What is on the disk of these, each file once.
fn on_the_disk(checkpoints: &[PathBuf]) -> u64 {
    let mut paths: Vec<&Path> = checkpoints.iter().map(PathBuf::as_path).collect();
    paths.sort();
    let listed = succeeds(std::process::Command::new("du").arg("-s").arg("--block-size=1").args(paths));
    listed.lines().map(|line| line.split('\t').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn said(lab: &Lab) -> String {
    fs::read_to_string(lab.path("changer.out")).unwrap_or_default()
}

/// Brings a checkpoint back, and has every byte of its memory looked at.
fn comes_back(lab: &Lab, checkpoint: &Path, step: u64) -> Return {
    let before = said(lab).matches("right").count();
    let back = bring_back(lab, checkpoint);
    back.program.signal(libc::SIGHUP);
    let word = eventually("a word about the memory", || {
        let said = said(lab);
        assert!(!said.contains("wrong"), "{said}");
        said.lines().filter(|line| line.starts_with("right")).nth(before).map(str::to_owned)
    });
    assert_eq!(word, format!("right {step}"), "{}", checkpoint.display());
    back
}

fn is_good(lab: &Lab, checkpoint: &Path) -> bool {
    lab.run(["verify".as_ref(), checkpoint.as_os_str()]).status.success()
}

fn every_one_comes_back(lab: &Lab, situations: &[&str]) {
    let checkpoints = chain(lab, changer(lab, 16).args(situations), 5);
    assert_eq!(checkpoints.iter().map(|it| levels(it)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    for (step, checkpoint) in (0..).zip(&checkpoints) {
        assert!(is_good(lab, checkpoint), "{}", checkpoint.display());
        comes_back(lab, checkpoint, step).program.crash();
    }
    let (whole, all) = (on_the_disk(&checkpoints[..1]), on_the_disk(&checkpoints));
    assert!(all < whole * 3 / 2, "{all} for five, and {whole} for one");
}

#[test]
fn each_of_a_chain_comes_back_with_its_own_memory() {
    every_one_comes_back(&Lab::new(), &[]);
}

#[test]
fn so_it_is_with_the_oldest_supported_criu() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    every_one_comes_back(&lab, &[]);
}

#[test]
fn so_it_is_with_shared_memory_and_with_a_child_that_shares_pages_with_its_parent() {
    every_one_comes_back(&Lab::new(), &["shared"]);
    every_one_comes_back(&Lab::new(), &["child"]);
}

#[test]
fn one_that_is_to_be_restored_lazily_is_restored_at_once() {
    let lab = Lab::new();
    let checkpoint = chain(&lab, changer(&lab, 16), 2).remove(1);
    let mut command = selfdump();
    command.args(["restore", "--lazy"]).arg(&checkpoint);
    let restorer = lab.launch(command, "restore").start();
    restorer.wait_for("selfdump: restored changer/");
    assert!(restorer.output().contains("SELFDUMP_INCREMENTAL=off"), "{}", restorer.output());
    let program = Alone::new(manifest(&checkpoint)["life"]["pid"].as_i64().unwrap() as i32);
    program.signal(libc::SIGHUP);
    eventually("a look at its memory", || said(&lab).contains("right 1").then_some(()));
}

#[test]
fn what_one_of_a_chain_has_is_shown_with_what_it_has_in_common_with_others() {
    let lab = Lab::new();
    let checkpoint = chain(&lab, changer(&lab, 16), 2).remove(1);
    let shown = succeeds(&mut lab.selfdump(["show".as_ref(), checkpoint.as_os_str()]));
    let head = shown.lines().find(|line| line.trim_start().starts_with("builds on ")).expect("a line");
    assert!(head.contains("/000001: "), "{head}");
    let process = shown.lines().find(|line| line.contains(" changer ")).expect("the process");
    let words: Vec<&str> = process.split_whitespace().collect();
    let [.., number, "MiB"] = words[..] else { panic!("{process}") };
    assert!(number.parse::<f64>().unwrap() > 10.0, "{process}");
}

fn compressed(launch: Launch) -> Launch {
    launch.env("SELFDUMP_COMPRESS", "zstd")
}

fn pages_of(checkpoint: &Path) -> Vec<String> {
    let files = manifest(checkpoint)["files"].as_array().unwrap().clone();
    let paths = files.into_iter().map(|file| file["path"].as_str().unwrap().to_owned());
    paths.filter(|path| path.contains("pages-")).collect()
}

#[test]
fn so_it_is_with_pages_that_are_compressed_and_with_some_that_are_and_some_that_are_not() {
    let lab = Lab::new();
    let program = ready(compressed(changer(&lab, 16)));
    let first = [saves(&lab, &program, 1), saves(&lab, &program, 2)];
    program.crash();
    assert!(first.iter().flat_map(|it| pages_of(it)).all(|path| path.ends_with(".img.zst")));
    assert!(first.iter().all(|checkpoint| is_good(&lab, checkpoint)));
    // The settings of the restorer's environment aren't the program's, which compresses on.
    let back = comes_back(&lab, &first[1], 1);
    back.program.signal(USR2);
    let third = lab.wait_for_checkpoint(3);
    back.program.crash();
    assert_eq!((levels(&third), is_good(&lab, &third)), (2, true));
    for (step, checkpoint) in [(0, &first[0]), (1, &first[1])] {
        comes_back(&lab, checkpoint, step).program.crash();
    }
    let lies_about = fs::read_dir(lab.path("")).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!lies_about.into_iter().any(|name| name.to_string_lossy().starts_with("selfdump-plain")));
}

#[test]
fn a_page_that_is_damaged_where_it_is_compressed_takes_the_checkpoints_that_use_it() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, compressed(changer(&lab, 16)), 3);
    let file = checkpoints[0].join(&pages_of(&checkpoints[0])[0]);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xee);
    fs::write(&file, bytes).unwrap();
    for checkpoint in &checkpoints {
        let said = lab.run(["verify".as_ref(), checkpoint.as_os_str()]);
        let text =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && text.contains("pages-1.img"), "{text}");
    }
}

#[test]
fn whichever_is_deleted_the_others_are_as_they_were() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 4);
    fs::remove_dir_all(&checkpoints[0]).unwrap();
    fs::remove_dir_all(&checkpoints[2]).unwrap();
    for at in [1, 3] {
        assert!(is_good(&lab, &checkpoints[at]));
        comes_back(&lab, &checkpoints[at], at as u64).program.crash();
    }
}

#[test]
fn one_that_is_copied_elsewhere_is_whole_there() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 3);
    for option in ["-r", "-a"] {
        let copy = lab.path(option);
        succeeds(std::process::Command::new("cp").arg(option).arg(&checkpoints[2]).arg(&copy));
        assert!(is_good(&lab, &copy));
        comes_back(&lab, &copy, 2).program.crash();
    }
}

fn damage(file: &Path, offset: usize) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset as u64).unwrap();
}

fn the_pages(folder: &Path) -> PathBuf {
    folder.join("pages-1.img")
}

#[test]
fn a_damaged_page_takes_those_that_use_it_and_no_other() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 4);
    let base = the_pages(&checkpoints[0].join("images"));
    assert_eq!(base.metadata().unwrap().nlink(), 4);
    // A page that the second has anew, so that the third and the fourth don't use that of the first.
    let used = fs::read_to_string(checkpoints[1].join("chain/used")).unwrap();
    let gap = unused_page(&used);
    damage(&base, gap);
    let good = |lab: &Lab| checkpoints.iter().map(|it| is_good(lab, it)).collect::<Vec<_>>();
    assert_eq!(good(&lab), [false, true, true, true]);
    for at in [1, 3] {
        comes_back(&lab, &checkpoints[at], at as u64).program.crash();
    }
    // A page that the second has stored, and that is as it was at the third and the fourth.
    let second = the_pages(&checkpoints[1].join("images"));
    let used = fs::read_to_string(checkpoints[3].join("chain/used")).unwrap();
    let first_used = used.split_once("chain/2/pages-1.img\n").unwrap().1.split(' ').next().unwrap();
    damage(&second, first_used.parse().unwrap());
    let good = good(&lab);
    assert_eq!((good[0], good[1], good[3]), (false, false, false));
    let report = lab.run(["verify".as_ref(), checkpoints[3].as_os_str()]);
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.contains("chain/2/pages-1.img has another checksum"), "{report}");
}

/// The first page of the lowest level that isn't used, by the list of those that are.
fn unused_page(used: &str) -> usize {
    let lines = used.lines().skip_while(|line| *line != "chain/1/pages-1.img").skip(1);
    let mut end = 0;
    for line in lines.take_while(|line| !line.starts_with("chain")) {
        let mut numbers = line.split(' ').map(|word| word.parse::<usize>());
        let [offset, length] = [(); 2].map(|()| numbers.next().unwrap().unwrap());
        if offset > end {
            break;
        }
        end = offset + length;
    }
    end
}

#[test]
fn what_is_damaged_is_not_built_on() {
    let lab = Lab::new();
    let program = ready(changer(&lab, 16));
    let first = saves(&lab, &program, 1);
    let pages = the_pages(&first.join("images"));
    let middle = pages.metadata().unwrap().len() / 2 / 4096 * 4096;
    damage(&pages, middle as usize);
    let second = saves(&lab, &program, 2);
    program.crash();
    assert!(!is_good(&lab, &first) && is_good(&lab, &second));
    assert_eq!(levels(&second), 1);
    comes_back(&lab, &second, 1);
}

#[test]
fn a_restore_falls_back_to_an_older_one_that_is_whole() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 3);
    fs::remove_file(checkpoints[2].join("chain/2/parent")).unwrap();
    damage(&the_pages(&checkpoints[2].join("images")), 0);
    let back = comes_back(&lab, Path::new("changer"), 1);
    assert_eq!(back.path, checkpoints[1]);
    assert_eq!(back.skipped.len(), 1);
}

#[test]
fn a_life_that_came_back_builds_on_what_the_one_before_has_stored() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 2);
    let back = comes_back(&lab, &checkpoints[1], 1);
    back.program.signal(USR2);
    let third = lab.wait_for_checkpoint(3);
    back.program.crash();
    assert_eq!(levels(&third), 2);
    comes_back(&lab, &third, 1);
}

#[test]
fn a_chain_is_never_longer_than_twelve_and_goes_on_from_its_whole_one() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 15);
    let levels: Vec<usize> = checkpoints.iter().map(|it| levels(it)).collect();
    let expected: Vec<usize> = (0..=12).chain([1, 2]).collect();
    assert_eq!(levels, expected);
    for at in [12, 13, 14] {
        comes_back(&lab, &checkpoints[at], at as u64).program.crash();
    }
    let (whole, all) = (on_the_disk(&checkpoints[..1]), on_the_disk(&checkpoints));
    assert!(all < whole * 2, "{all} for fifteen, and {whole} for one");
}

#[test]
fn where_most_has_changed_and_where_there_is_little_it_is_stored_whole() {
    let lab = Lab::new();
    let launch = lab.program("changer").arg("16").arg("2000").env("SELFDUMP_KEEP", "100");
    assert_eq!(chain(&lab, launch, 2).iter().map(|it| levels(it)).collect::<Vec<_>>(), [0, 0]);
    let lab = Lab::new();
    assert_eq!(chain(&lab, changer(&lab, 2), 2).iter().map(|it| levels(it)).collect::<Vec<_>>(), [0, 0]);
    let lab = Lab::new();
    let off = changer(&lab, 16).env("SELFDUMP_INCREMENTAL", "off");
    let checkpoints = chain(&lab, off, 2);
    assert_eq!(levels(&checkpoints[1]), 0);
    assert!(!checkpoints[1].join("chain").exists() && !checkpoints[1].join("images/parent").is_symlink());
}

#[test]
fn by_way_of_memory_it_is_the_same() {
    let lab = Lab::new();
    let memory = crate::failures::small_disk::Disk::at(lab.path("memory"), "huge=always,size=200m");
    let checkpoints = chain(&lab, changer(&lab, 16).env("SELFDUMP_STAGING", memory.path()), 3);
    assert_eq!(levels(&checkpoints[2]), 2);
    assert_eq!(manifest(&checkpoints[2])["staged"]["where"], "folder");
    assert_eq!(crate::aftermath::folders(memory.path()), Vec::<PathBuf>::new());
    for (step, checkpoint) in (0..).zip(&checkpoints) {
        assert!(is_good(&lab, checkpoint));
        comes_back(&lab, checkpoint, step).program.crash();
    }
}

#[test]
fn what_it_is_made_of_is_shown() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 3);
    let shown = succeeds(&mut lab.selfdump(["show", checkpoints[2].to_str().unwrap()]));
    assert!(shown.contains("builds on"), "{shown}");
    let shown = succeeds(&mut lab.selfdump(["show", "--json", checkpoints[2].to_str().unwrap()]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["shared_bytes"].as_u64().unwrap() > 16 * MIB);
    assert!(shown["size_bytes"].as_u64().unwrap() < 4 * MIB);
}

/// Brings exported images back by `criu` alone; the process id of the program.
fn by_criu_alone(lab: &Lab, images: &Path, pid: i32, options: &Value) -> Alone {
    let options = options.as_array().unwrap().iter().map(|option| option.as_str().unwrap());
    let mut command = std::process::Command::new(&lab.criu);
    command.args(["restore", "--restore-detached", "-D"]).arg(images).args(options);
    succeeds(command.stdin(std::process::Stdio::null()));
    Alone::new(pid)
}

#[test]
fn what_is_exported_is_whole_and_comes_back_by_criu_alone() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16).arg("shared"), 3);
    let export = |at: usize, to: &Path| {
        let arguments = ["export".as_ref(), "--json".as_ref(), checkpoints[at].as_os_str(), to.as_os_str()];
        serde_json::from_str::<Value>(&succeeds(&mut lab.selfdump(arguments))).unwrap()
    };
    export(0, &lab.path("first"));
    for file in fs::read_dir(checkpoints[0].join("images")).unwrap().flatten() {
        let copy = lab.path("first").join(file.file_name());
        if file.file_name().to_string_lossy().starts_with("pagemap") {
            // CRIU may write one run as two.
            assert!(copy.exists());
        } else {
            assert!(fs::read(file.path()).unwrap() == fs::read(copy).unwrap(), "{:?}", file.file_name());
        }
    }
    let to = lab.path("third");
    let report = export(2, &to);
    assert!(report["size_bytes"].as_u64().unwrap() > 16 * MIB && !to.join("parent").is_symlink());
    let pid = manifest(&checkpoints[2])["life"]["pid"].as_i64().unwrap() as i32;
    fs::remove_dir_all(lab.store()).unwrap();
    let back = by_criu_alone(&lab, &to, pid, &report["criu_options"]);
    back.signal(libc::SIGHUP);
    eventually("a word about the memory", || said(&lab).contains("right 2").then_some(()));
}

#[test]
fn nothing_is_exported_over_what_is_there_or_from_what_is_damaged() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 2);
    let fails = |to: &Path| {
        let output = lab.run(["export".as_ref(), checkpoints[1].as_os_str(), to.as_os_str()]);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails(&lab.store()).contains("isn't empty"));
    damage(&the_pages(&checkpoints[1].join("images")), 0);
    let to = lab.path("images");
    assert!(fails(&to).contains("pages-1.img has another checksum"));
    assert!(!to.exists());
}

#[test]
fn what_is_deleted_by_size_frees_only_what_nobody_else_has() {
    let lab = Lab::new();
    let checkpoints = chain(&lab, changer(&lab, 16), 3);
    let prune = |arguments: &[&str]| {
        let arguments = [&["prune", "changer", "--json"], arguments].concat();
        serde_json::from_str::<Value>(&succeeds(&mut lab.selfdump(arguments))).unwrap()
    };
    let all = prune(&["--max-size", "1 GiB", "--dry-run"])["kept_bytes"].as_u64().unwrap();
    assert!((16 * MIB..24 * MIB).contains(&all), "{all}");
    let report = prune(&["--keep", "1"]);
    assert!(report["deleted_bytes"].as_u64().unwrap() < MIB, "the last one has all of the first's pages");
    assert!(report["kept_bytes"].as_u64().unwrap() > 16 * MIB);
    assert_eq!(lab.checkpoints(), checkpoints[2..]);
    let whole = on_the_disk(&checkpoints[2..]);
    assert!(whole > 16 * MIB, "{whole}");
    comes_back(&lab, &checkpoints[2], 2);
}
