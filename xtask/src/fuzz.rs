//! `cargo xtask fuzz`: what reads what others have written is given what nobody would write.
//!
//! The targets in `fuzz/` are those of cargo-fuzz. They are built here without it, with the coverage that the stable
//! compiler can be asked for: there is no unsafe code in what they reach for a sanitizer to watch, but for the socket
//! that answers come over.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{cargo, setup, test};

/// What has the compiler count which parts of the code an input reaches.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// Where a target's first inputs come from, beside `fuzz/seeds/NAME` and what earlier runs have found.
#[derive(Clone, Copy)]
enum Seeds {
    /// The images of a real dump, behind the byte that says which of `names.rs` it is.
    ImagesByKind,
    /// The same, behind a number in the order of their names.
    ImagesByName,
    /// The manifest of a real checkpoint, with its envelope and without.
    Manifest,
    /// Nowhere else.
    Own,
}

/// Each has its file in `fuzz/fuzz_targets`, and is named in `fuzz/Cargo.toml`.
const TARGETS: [(&str, Seeds); 6] = [
    ("image", Seeds::ImagesByKind),
    ("dump", Seeds::ImagesByName),
    ("answer", Seeds::Own),
    ("request", Seeds::Own),
    ("manifest", Seeds::Manifest),
    ("settings", Seeds::Own),
];

/// How long each target runs in CI.
const SHORT: Duration = Duration::from_secs(60);

/// How many run at the same time there.
const TOGETHER: usize = 3;

/// A run of each target for a minute. What it says stands in `target/fuzz/NAME.log`.
pub fn briefly() -> Result<()> {
    let lab = Lab::make()?;
    let left = Mutex::new(TARGETS.into_iter());
    let next = || left.lock().ok()?.next();
    let work = || {
        let options = [format!("-max_total_time={}", SHORT.as_secs())];
        while let Some((name, seeds)) = next() {
            run_quietly(lab.target(name, seeds)?.args(&options), name, &lab.log(name))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| worker.join().expect("a worker doesn't panic"));
        ended.collect::<Vec<Result<()>>>().into_iter().collect()
    })
}

/// Runs a target with options of libFuzzer's, from real files and what earlier runs have found.
pub fn run(target: &str, options: &[&str]) -> Result<()> {
    let Some((name, seeds)) = TARGETS.into_iter().find(|(name, _)| *name == target) else {
        bail!("there is no target {target}: {}", TARGETS.map(|(name, _)| name).join(", "))
    };
    cargo::run(Lab::make()?.target(name, seeds)?.args(options))
}

/// Runs a target with its words in a file, and says the last of them.
fn run_quietly(command: &mut Command, name: &str, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
    let status = command.stdout(file.try_clone()?).stderr(file).status()?;
    let said = fs::read_to_string(log).unwrap_or_default();
    let executed = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let last =
        said.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
    ensure!(status.success(), "the target {name} has found something ({status}):\n{last}");
    println!("{name}: executed {} times, nothing found", executed.unwrap_or("?").trim());
    Ok(())
}

/// The targets, built, and a real checkpoint for them.
struct Lab {
    folder: PathBuf,
    programs: PathBuf,
    dump: Dump,
}

impl Lab {
    fn make() -> Result<Lab> {
        let folder = cargo::target()?.join("fuzz");
        let host = test::host()?;
        let manifest = cargo::root().join("fuzz/Cargo.toml");
        let build = ["build", "--release", "--bins", "--target", &host, "--manifest-path"];
        cargo::run(
            cargo::cargo(&build)?.arg(manifest).env("CARGO_TARGET_DIR", &folder).env("RUSTFLAGS", COVERAGE),
        )?;
        Ok(Lab { programs: folder.join(host).join("release"), folder, dump: Dump::make()? })
    }

    fn log(&self, target: &str) -> PathBuf {
        self.folder.join(format!("{target}.log"))
    }

    /// A target that is ready to run.
    fn target(&self, name: &str, seeds: Seeds) -> Result<Command> {
        let corpus = self.folder.join("corpus").join(name);
        fs::create_dir_all(&corpus).with_context(|| format!("can't make {}", corpus.display()))?;
        self.dump.seed(seeds, &corpus)?;
        let artifacts = format!("-artifact_prefix={}/{name}-", self.folder.display());
        let mut command = Command::new(self.programs.join(name));
        command.env("SELFDUMP_FUZZ_DUMP", self.dump.checkpoint());
        command.args([&artifacts, "-print_final_stats=1", "-max_len=16384"]).arg(corpus);
        let own = cargo::root().join("fuzz/seeds").join(name);
        command.args(own.is_dir().then_some(own));
        Ok(command)
    }
}

/// A checkpoint in memory, for images of it to be replaced as fast as can be.
struct Dump {
    store: tempfile::TempDir,
}

impl Dump {
    fn make() -> Result<Dump> {
        let store = tempfile::Builder::new().prefix("selfdump-fuzz-").tempdir_in("/dev/shm");
        let dump = Dump { store: store.context("can't make a folder in /dev/shm")? };
        let criu = setup::current_criu()?;
        cargo::run(&mut cargo::cargo(&["build", "-p", "selfdump", "--example", "counter"])?)?;
        let mut program = Command::new(cargo::target()?.join("debug/examples/counter"))
            .env("SELFDUMP_DIR", dump.store.path())
            .env("SELFDUMP_CRIU", criu)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("can't start the example")?;
        let made = dump.wait_for(&program);
        let _ = program.kill();
        let _ = program.wait();
        made.map(|()| dump)
    }

    /// Asks for a checkpoint until there is one: the program may not have installed its handler yet.
    fn wait_for(&self, program: &Child) -> Result<()> {
        let begun = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        kill(Pid::from_raw(program.id() as i32), Signal::SIGUSR2).context("can't signal the example")?;
        while self.found().is_none() {
            ensure!(begun.elapsed() < Duration::from_secs(60), "the example makes no checkpoint");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The folder of the checkpoint: NAME/INSTANCE/000001.
    fn found(&self) -> Option<PathBuf> {
        let only = |folder: PathBuf| fs::read_dir(folder).ok()?.flatten().next().map(|entry| entry.path());
        let checkpoint = only(only(self.store.path().to_owned())?)?.join("000001");
        checkpoint.is_dir().then_some(checkpoint)
    }

    fn checkpoint(&self) -> PathBuf {
        self.found().unwrap_or_default()
    }

    fn seed(&self, seeds: Seeds, corpus: &Path) -> Result<()> {
        match seeds {
            Seeds::Own => Ok(()),
            Seeds::Manifest => self.seed_manifest(corpus),
            Seeds::ImagesByKind => {
                let names = fs::read_to_string(cargo::root().join("fuzz/fuzz_targets/names.rs"))?;
                let names = names.lines().filter_map(|line| line.trim().strip_prefix('"'));
                let stems: Vec<&str> = names.map(stem).collect();
                self.seed_images(corpus, |_, name| stems.iter().position(|known| *known == stem(name)))
            }
            Seeds::ImagesByName => self.seed_images(corpus, |at, _| Some(at)),
        }
    }

    fn seed_manifest(&self, corpus: &Path) -> Result<()> {
        let whole = fs::read_to_string(self.checkpoint().join("manifest.json"))?;
        let inner = whole.split_once("\"manifest\":").and_then(|(_, rest)| rest.strip_suffix('}'));
        fs::write(corpus.join("inner"), inner.context("no envelope around a manifest")?)?;
        Ok(fs::write(corpus.join("whole"), &whole)?)
    }

    /// Writes every image into the corpus, behind a byte that `first` tells of its place among them and its name.
    fn seed_images(&self, corpus: &Path, first: impl Fn(usize, &str) -> Option<usize>) -> Result<()> {
        let mut images: Vec<PathBuf> =
            fs::read_dir(self.checkpoint().join("images"))?.flatten().map(|entry| entry.path()).collect();
        images.retain(|path| !path.to_string_lossy().contains("pages-"));
        images.sort();
        for (at, path) in images.iter().enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(first) = first(at, &name) else { continue };
            fs::write(corpus.join(&name), [&[first as u8], &*fs::read(path)?].concat())?;
        }
        Ok(())
    }
}

/// A name of an image without what tells images of one kind apart.
fn stem(name: &str) -> &str {
    name.split(['-', '.']).next().unwrap_or_default()
}
