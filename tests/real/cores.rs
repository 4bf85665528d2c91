//! Cores made of checkpoints, as gdb and readelf see them, held against the programs themselves while they still stand
//! where they were checkpointed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Lab, Subject, USR2, built, copy_program, manifest, program};
use crate::show::Ended;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What gdb prints, given these arguments and commands.
pub fn gdb(arguments: &[&str], commands: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch"]).args(arguments).env("DEBUGINFOD_URLS", "");
    for command in commands {
        gdb.args(["-ex", command]);
    }
    text(&gdb.output().expect("gdb, of the package gdb").stdout)
}

/// The core of a checkpoint, written by the command, and what that says.
fn core(lab: &Lab, checkpoint: &Path, options: &[&str]) -> (PathBuf, Value) {
    let to = lab.path(&format!("core-{}", options.join("")));
    let output = lab.run(
        ["core".as_ref(), checkpoint.as_os_str(), "--json".as_ref(), "-o".as_ref(), to.as_os_str()]
            .into_iter()
            .chain(options.iter().map(|option| option.as_ref())),
    );
    assert!(output.status.success(), "{output:?}");
    (to, serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// `standing`, which stands, and a checkpoint of it.
fn standing(lab: &Lab) -> (Subject, PathBuf) {
    let program = lab.program("standing").start();
    program.wait_for("ready");
    let checkpoint = checkpoint(lab, &program);
    (program, checkpoint)
}

fn checkpoint(lab: &Lab, program: &Subject) -> PathBuf {
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    lab.status_when("its status", |status| status["last"]["saved"] == true);
    checkpoint
}

/// The frames of each thread in gdb's `thread apply all backtrace`, innermost first, by thread id. Of a frame that is the
/// function, and where the thread goes on in it; of the innermost one the function alone, since CRIU winds the system
/// call back that a thread is in.
fn frames(backtraces: &str) -> BTreeMap<u64, Vec<String>> {
    let mut threads = BTreeMap::new();
    for thread in backtraces.split("\nThread ").skip(1) {
        let id = thread.split_once("LWP ").expect("a thread id").1;
        let id = id[..id.find(|c: char| !c.is_ascii_digit()).expect("its end")].parse().expect("a number");
        let frames = thread.lines().filter_map(|line| line.strip_prefix('#')?.split_once(' ')).map(frame);
        threads.insert(id, frames.take(5).collect());
    }
    threads
}

fn frame((number, frame): (&str, &str)) -> String {
    let place = frame.trim_start().split(" (").next().expect("a function");
    match place.split_once(" in ") {
        Some((_, function)) if number == "0" => function.to_owned(),
        _ => place.to_owned(),
    }
}

/// gdb shows the same of the core as of the program itself, for 95 % of its threads, of which there are so many.
fn has_the_frames_of_the_program(program: &Subject, executable: &Path, core: &Path, threads: usize) {
    let backtraces = |arguments: &[&str]| frames(&gdb(arguments, &["thread apply all backtrace"]));
    let live = backtraces(&["-p", &program.pid().to_string()]);
    let of_core = backtraces(&[executable.to_str().unwrap(), core.to_str().unwrap()]);
    assert_eq!(live.keys().collect::<Vec<_>>(), of_core.keys().collect::<Vec<_>>());
    assert_eq!(live.len(), threads);
    let deep = live.values().filter(|frames| frames.len() >= 3).count();
    assert!(deep * 100 >= live.len() * 95, "gdb finds its way through the program: {live:#?}");
    let others: Vec<_> = live.iter().filter(|(id, frames)| of_core[*id] != **frames).collect();
    let shown: Vec<_> = others.iter().map(|(id, frames)| (frames, &of_core[*id])).collect();
    assert!(others.len() * 100 <= live.len() * 5, "{} of {}: {shown:#?}", others.len(), live.len());
}

#[test]
fn gdb_shows_64_threads_of_a_core_as_it_shows_them_of_the_program() {
    let lab = Lab::new();
    let (subject, checkpoint) = standing(&lab);
    let (core, report) = core(&lab, &checkpoint, &[]);
    // The 64, the main one and that of selfdump.
    has_the_frames_of_the_program(&subject, &program("standing"), &core, 66);
    assert_eq!((&report["threads"], &report["first_thread"]), (&66.into(), &subject.pid().into()));
    assert_eq!(report["changed_files"], Value::Array(Vec::new()));

    let core = core.to_str().unwrap();
    let executable = program("standing");
    let executable = executable.to_str().unwrap();
    let pid = subject.pid().to_string();
    let auxv = |shown: &str| -> Vec<String> {
        shown.lines().filter(|line| line.contains("AT_")).map(str::to_owned).collect()
    };
    let live = auxv(&gdb(&["-p", &pid], &["info auxv"]));
    assert!(live.len() > 15 && live.iter().any(|line| line.contains("AT_PHDR")), "{live:?}");
    let shown = gdb(&[executable, core], &["info auxv", "info proc mappings", "info proc cmdline", "thread"]);
    assert_eq!(auxv(&shown), live);
    let mapped =
        |name: &str| shown.lines().any(|line| line.trim_start().starts_with("0x") && line.ends_with(name));
    assert!(mapped("/standing") && mapped("libc.so.6"), "{shown}");
    assert!(shown.contains(&format!("LWP {pid}")), "the main thread is the first: {shown}");
    // As the kernel's: the build ids of what was mapped can be read from the core.
    let named = text(&Command::new("readelf").args(["-n", core]).output().expect("readelf").stdout);
    assert!(!named.contains("nknown"), "{named}");
    let status = named.matches("NT_PRSTATUS").count();
    assert_eq!((status, named.matches("NT_X86_XSTATE").count()), (66, 66), "{named}");
    for kind in ["NT_PRPSINFO", "NT_AUXV", "NT_FILE", "NT_FPREGSET"] {
        assert!(named.contains(kind), "{kind} is not in {named}");
    }
}

#[test]
fn gdb_shows_the_threads_of_python_as_it_shows_them_of_the_program() {
    let lab = Lab::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/python/standing.py");
    let mut python = Command::new("/usr/bin/python3");
    python.arg(script).arg(built("examples/libplugin.so".as_ref()));
    let subject = lab.launch(python, "python").start();
    subject.wait_for("ready");
    let (core, report) = core(&lab, &checkpoint(&lab, &subject), &[]);
    let executable = report["executable"].as_str().expect("the program");
    has_the_frames_of_the_program(&subject, executable.as_ref(), &core, 26);
}

/// The memory of a core, read by its segments.
struct Memory {
    file: File,
    /// Address, offset in the file, size there and in memory.
    segments: Vec<[u64; 4]>,
}

impl Memory {
    fn of(core: &Path) -> Memory {
        let file = File::open(core).unwrap();
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).unwrap();
        let count = u16::from_ne_bytes([header[56], header[57]]);
        let segment = |number: u16| {
            let mut bytes = [0; 56];
            file.read_exact_at(&mut bytes, 64 + 56 * u64::from(number)).unwrap();
            [16, 8, 32, 40].map(|at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap()))
        };
        let segments = (1..count).map(segment).collect();
        Memory { file, segments }
    }

    /// What is in the file of a range; none where a part of it isn't.
    fn read(&self, address: u64, size: usize) -> Option<Vec<u8>> {
        let mut found = Vec::new();
        while found.len() < size {
            let at = address + found.len() as u64;
            let [start, offset, stored, _] =
                *self.segments.iter().find(|[start, _, stored, _]| (*start..start + stored).contains(&at))?;
            let mut part = vec![0; (size - found.len()).min((start + stored - at) as usize)];
            self.file.read_exact_at(&mut part, offset + at - start).unwrap();
            found.extend(part);
        }
        Some(found)
    }
}

/// The lines `KIND ADDRESS SIZE BYTE` of `standing`.
fn regions(subject: &Subject) -> Vec<(String, u64, usize, u8)> {
    let region = |line: &str| {
        let [kind, address, size, byte] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        Some((kind.to_owned(), address, size.parse().ok()?, byte.parse().ok()?))
    };
    subject.output().lines().filter_map(region).collect()
}

#[test]
fn each_kind_of_memory_is_in_it_and_what_is_in_a_file_is_there_with_full() {
    let lab = Lab::new();
    let (subject, checkpoint) = standing(&lab);
    let regions = regions(&subject);
    assert_eq!(regions.len(), 9, "{regions:?}");
    for options in [&[][..], &["--full"]] {
        let (core, report) = core(&lab, &checkpoint, options);
        let memory = Memory::of(&core);
        for (kind, address, size, byte) in &regions {
            let found = memory.read(*address, *size);
            let is_left_out = kind == "file-kept" && options.is_empty();
            assert_eq!(found, (!is_left_out).then(|| vec![*byte; *size]), "{kind} {options:?}");
        }
        let about = fs::metadata(&core).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        assert_eq!(report["size_bytes"], about.len());
        let on_disk = about.blocks() * 512;
        assert!(on_disk < about.len() / 2, "it has holes: {on_disk} of {}", about.len());
        let code = memory.read(address_of_code(&subject), 4096);
        assert_eq!(code.is_some(), !options.is_empty());
    }
}

/// Where the code of a program is: not its first page, into which CRIU writes while it dumps.
fn address_of_code(subject: &Subject) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/maps", subject.pid())).unwrap();
    let code = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with("/standing")).unwrap();
    u64::from_str_radix(code.split('-').next().unwrap(), 16).unwrap() + 0x10000
}

#[test]
fn a_file_that_is_another_one_since_is_left_out_and_named() {
    let lab = Lab::new();
    let executable = lab.path("standing");
    copy_program(program("standing"), &executable);
    let subject = lab.launch(Command::new(&executable), "standing").start();
    subject.wait_for("ready");
    let checkpoint = checkpoint(&lab, &subject);
    let code = address_of_code(&subject);
    subject.crash();
    fs::remove_file(&executable).unwrap();
    copy_program(program("chain"), &executable);
    let (core, report) = core(&lab, &checkpoint, &["--full"]);
    assert_eq!(report["changed_files"], Value::from(vec![executable.to_str().unwrap()]));
    assert_eq!(Memory::of(&core).read(code, 4096), None);
}

#[test]
fn the_thread_that_crashed_comes_first_with_its_signal() {
    let lab = Lab::new();
    let mut command = Command::new(program("crasher"));
    command.current_dir(lab.path("."));
    let mut subject =
        lab.launch(command, "crasher").arg("segv").env("SELFDUMP_ON_FATAL_SIGNAL", "on").start();
    subject.wait_for("ready");
    subject.signal(libc::SIGUSR1);
    subject.wait();
    let [checkpoint] = lab.checkpoints().try_into().expect("one");
    let thread = &manifest(&checkpoint)["cause"]["thread"];
    let (core, report) = core(&lab, &checkpoint, &[]);
    assert_eq!((&report["first_thread"], &report["signal"]), (thread, &libc::SIGSEGV.into()));
    let executable = program("crasher");
    let shown = gdb(
        &[executable.to_str().unwrap(), core.to_str().unwrap()],
        &[
            "print $_siginfo.si_signo",
            "print $_siginfo.si_code",
            "print $_siginfo._sifields._sigfault.si_addr",
            "thread",
            "backtrace",
        ],
    );
    // 1 is SEGV_MAPERR: nothing is mapped there.
    let expected = ["terminated with signal SIGSEGV", "$1 = 11", "$2 = 1", "$3 = (void *) 0x0"];
    for part in expected.iter().copied().chain([&*format!("LWP {thread}"), "deep_in_trouble", "on_the_way"]) {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
}

#[test]
fn of_a_panic_the_thread_that_panicked_comes_first() {
    let lab = Lab::new();
    let subject = lab.program("crasher").arg("panic").env("SELFDUMP_ON_PANIC", "on").start();
    subject.wait_for("ready");
    subject.signal(libc::SIGUSR1);
    subject.wait_for("the worker ended");
    let [checkpoint] = lab.checkpoints().try_into().expect("one");
    let (core, _) = core(&lab, &checkpoint, &[]);
    let executable = program("crasher");
    let shown =
        gdb(&[executable.to_str().unwrap(), core.to_str().unwrap()], &["backtrace", "print $_siginfo"]);
    assert!(shown.contains("deep_in_trouble"), "{shown}");
    assert!(!shown.contains("si_signo = "), "there was no signal: {shown}");
}

#[test]
fn what_can_not_be_is_refused_and_what_was_there_stays() {
    let lab = Lab::new();
    let mut subject = lab.program("family").arg("1").arg("fork").start();
    subject.wait_for("ready");
    let checkpoint = checkpoint(&lab, &subject);
    let processes = manifest(&checkpoint)["processes"].clone();
    let child = processes[1]["pid"].as_i64().expect("a child");
    let _ended = Ended(child as i32);
    let child = child.to_string();
    let to = lab.path("there");
    let name = checkpoint.to_str().unwrap();
    let run = |options: &[&str]| lab.run(["core", name, "-o", to.to_str().unwrap()].iter().chain(options));
    let assert_fails = |output: &Output, words: &[&str]| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = text(&output.stderr);
        words.iter().for_each(|word| assert!(errors.contains(word), "{word:?} is not in {errors}"));
    };

    assert_fails(&run(&["--pid", "1"]), &["has no process 1", &child, "(family)"]);
    assert!(!to.exists());
    let said = run(&["--pid", &child]);
    assert!(said.status.success() && text(&said.stdout).contains("look at it by: gdb /"), "{said:?}");
    let shown = text(&Command::new("readelf").arg("-n").arg(&to).output().expect("readelf").stdout);
    assert!(shown.contains("NT_PRSTATUS"), "{shown}");

    fs::write(&to, "precious").unwrap();
    assert_fails(&run(&[]), &["is there already", "--force"]);
    assert_eq!(fs::read(&to).unwrap(), b"precious");
    assert!(run(&["--force"]).status.success());
    assert!(fs::metadata(&to).unwrap().len() > 4096);

    let elsewhere = lab.run(["core", name, "-o", "/no/such/folder/core"]);
    assert_fails(&elsewhere, &["can't create /no/such/folder/core", "a folder that is there"]);
    assert_fails(&lab.run(["core", name, "-o", lab.path("").to_str().unwrap()]), &["is a folder"]);

    // Damage is met in the middle of writing: nothing is left of that.
    let mut pages = fs::read_dir(checkpoint.join("images")).unwrap().flatten().map(|file| file.path());
    let pages = pages.find(|path| path.to_str().unwrap().contains("/pages-")).expect("pages");
    File::options().write(true).open(&pages).unwrap().set_len(4096).unwrap();
    // The file of pages is that of one of the two.
    let pids = processes.as_array().unwrap().iter().map(|process| process["pid"].to_string());
    let written = pids.filter(|pid| {
        fs::write(&to, "precious").unwrap();
        let output = run(&["--force", "--pid", pid]);
        if !output.status.success() {
            assert_fails(&output, &["is damaged: it ends before", "selfdump verify"]);
            assert_eq!(fs::read(&to).unwrap(), b"precious");
        }
        output.status.success()
    });
    assert_eq!(written.count(), 1);
    assert_fails(&lab.run(["core", "no-such-program"]), &["no-such-program"]);
    let left = fs::read_dir(lab.path("")).unwrap().flatten();
    let left: Vec<_> = left.filter(|file| file.file_name().to_string_lossy().ends_with(".part")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(subject.is_running());
}
