//! `cargo xtask fuzz`: the readers of images, given images that no CRIU has written.
//!
//! The targets in `fuzz/` are those of cargo-fuzz. They are built here without it, with the coverage that the stable
//! compiler can be asked for: there is no unsafe code in what they reach for a sanitizer to watch.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{cargo, setup, test};

/// What has the compiler count which parts of the code an input reaches.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// The target that is run as often as is asked for, and the one that reads a whole dump each time.
const TARGETS: [&str; 2] = ["image", "dump"];

/// How long each target runs in CI.
const SHORT: Duration = Duration::from_secs(8);

/// A run of each target for a few seconds.
pub fn briefly() -> Result<()> {
    let limit = format!("-max_total_time={}", SHORT.as_secs());
    TARGETS.into_iter().try_for_each(|target| run(target, &[&limit]))
}

/// Runs a target with options of libFuzzer's, from real images and what earlier runs have found.
pub fn run(target: &str, options: &[&str]) -> Result<()> {
    ensure!(TARGETS.contains(&target), "there is no target {target}: {}", TARGETS.join(", "));
    let folder = cargo::target()?.join("fuzz");
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("can't make {}", corpus.display()))?;
    let program = build(&folder, target)?;
    let dump = Dump::make()?;
    dump.seed(target, &corpus)?;
    let artifacts = format!("-artifact_prefix={}/{target}-", folder.display());
    cargo::run(
        Command::new(program)
            .env("SELFDUMP_FUZZ_DUMP", dump.checkpoint())
            .args([&artifacts, "-print_final_stats=1", "-max_len=16384"])
            .args(options)
            .arg(&corpus),
    )
}

fn build(folder: &Path, target: &str) -> Result<PathBuf> {
    let host = test::host()?;
    let manifest = cargo::root().join("fuzz/Cargo.toml");
    let build = ["build", "--release", "--bin", target, "--target", &host, "--manifest-path"];
    cargo::run(
        cargo::cargo(&build)?.arg(manifest).env("CARGO_TARGET_DIR", folder).env("RUSTFLAGS", COVERAGE),
    )?;
    Ok(folder.join(host).join("release").join(target))
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

    /// Writes every image into the corpus, behind the byte that says which it is.
    fn seed(&self, target: &str, corpus: &Path) -> Result<()> {
        let names = fs::read_to_string(cargo::root().join("fuzz/fuzz_targets/names.rs"))?;
        let stems: Vec<&str> = names
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"'))
            .filter_map(|name| name.split(['-', '.']).next())
            .collect();
        let mut images: Vec<PathBuf> =
            fs::read_dir(self.checkpoint().join("images"))?.flatten().map(|entry| entry.path()).collect();
        images.retain(|path| !path.to_string_lossy().contains("pages-"));
        images.sort();
        for (at, path) in images.iter().enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stem = name.split(['-', '.']).next().unwrap_or_default();
            let kind = stems.iter().position(|known| *known == stem);
            let Some(first) = (if target == "image" { kind } else { Some(at) }) else { continue };
            fs::write(corpus.join(&name), [&[first as u8], &*fs::read(path)?].concat())?;
        }
        Ok(())
    }
}
