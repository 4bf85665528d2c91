//! `cargo xtask vm-test`: what takes a kernel that tells which pages have changed, or one with Yama, in a guest with Debian's.
//!
//! The guest is emulated, so that nothing is asked of the machine but a processor: Debian's kernel, and a file system in
//! memory with busybox, the CRIUs, and our programs with the libraries that they need. It runs a script and ends; what it
//! has printed is judged here.

mod judge;

use std::fs::{self, File};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use selfdump_cli::setup::{download_package_alone, unpack_package};

use crate::machine::{self, RELEASE};
use crate::setup::{self, Package};
use crate::{cargo, test};

/// It takes five minutes where others use the processors as well.
const DEADLINE: Duration = Duration::from_secs(600);

const EMULATOR: Package = Package {
    name: "qemu-system-x86",
    program: "qemu-system-x86_64",
    why: "a guest whose kernel tells which pages have changed runs in it",
};

/// Depends on the newest kernel for virtual machines, which is small.
const KERNEL: &str = "linux-image-cloud-amd64";

/// The modules that no CRIU starts without, in the order of what they need of each other. Some are a part of other kernels.
const MODULES: [&str; 10] = [
    "tun",
    "libcrc32c",
    "nfnetlink",
    "nf_tables",
    "unix_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "netlink_diag",
];

/// Without cx16 newer kernels panic at random under older emulators; so they do with a second processor, when they change
/// code that the other one runs.
const MACHINE: [&str; 13] = [
    "-accel",
    "tcg",
    "-cpu",
    "max,-cx16",
    "-m",
    "3072",
    "-nic",
    "none",
    "-nographic",
    "-no-reboot",
    "-append",
    "console=ttyS0 quiet panic=-1",
    "-kernel",
];

pub fn run() -> Result<()> {
    let started = Instant::now();
    setup::ensure_package(&EMULATOR)?;
    let (current, oldest) = (setup::current_criu()?, setup::oldest_criu()?);
    let kernel = machine::once("guest", "a guest's kernel", unpack_kernel)?;
    test::PROGRAMS.into_iter().try_for_each(|build| cargo::run(&mut cargo::cargo(build)?))?;
    let work = tempfile::tempdir().context("no folder for the guest's files")?;
    let files = work.path().join("files");
    furnish(&files, &kernel, &current, &oldest).context("the guest's files can't be put together")?;
    let initrd = work.path().join("initrd");
    pack(&kernel, &files, &initrd)?;
    println!("the guest starts after {} s", started.elapsed().as_secs());
    let printed = boot(&kernel, &initrd)?;
    judge::judge(&printed)?;
    println!("the guest has shown all that it was to show, after {} s", started.elapsed().as_secs());
    Ok(())
}

/// The kernel with its modules, and busybox.
fn unpack_kernel(root: &Path) -> Result<()> {
    let apt = root.with_file_name("apt");
    let newest = download_package_alone(&apt, RELEASE, &[KERNEL], &mut stdout())?;
    let newest = newest.first().context("apt has downloaded nothing")?;
    let needs = cargo::read(Command::new("dpkg-deb").arg("--field").arg(newest).arg("Depends"))?;
    let kernel = needs.split([' ', ',']).find(|name| name.starts_with("linux-image")).context("no kernel")?;
    let packages = [kernel.trim(), "busybox-static"];
    for package in download_package_alone(&apt, RELEASE, &packages, &mut stdout())? {
        unpack_package(&package, root)?;
    }
    Ok(())
}

/// Everything that the guest has: the first process is `init`.
fn furnish(files: &Path, kernel: &Path, current: &Path, oldest: &Path) -> Result<()> {
    let bin = files.join("bin");
    fs::create_dir_all(&bin)?;
    fs::copy(busybox(kernel)?, bin.join("busybox"))?;
    for program in ["selfdump", "examples/scribbler"] {
        let built = cargo::target()?.join("debug").join(program);
        let name = built.file_name().context("a program's name")?;
        cargo::run(Command::new("strip").arg("-o").arg(bin.join(name)).arg(&built))?;
        libraries(&built)?.iter().try_for_each(|library| put(files, library))?;
    }
    // They look for their libraries by whole paths.
    for criu in [current, oldest] {
        let prefix = criu.canonicalize()?;
        put(files, prefix.ancestors().nth(2).context("CRIU is in no prefix")?)?;
    }
    modules(files, kernel)?;
    let init = files.join("init");
    fs::write(&init, include_str!("init.sh"))?;
    cargo::run(Command::new("chmod").arg("755").arg(&init))?;
    let variables = format!(
        "export SELFDUMP_CRIU={}\nOLDEST={}\n",
        current.canonicalize()?.display(),
        oldest.canonicalize()?.display()
    );
    Ok(fs::write(files.join("script"), variables + include_str!("script.sh"))?)
}

/// Copies what is on this machine to the same path in the guest.
fn put(files: &Path, path: &Path) -> Result<()> {
    let to = files.join(path.strip_prefix("/")?);
    let above = to.parent().context("a folder above")?;
    fs::create_dir_all(above)?;
    cargo::run(Command::new("cp").args(["-RL", "--"]).arg(path).arg(above))
}

/// The libraries of a program, the loader among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = cargo::read(Command::new("ldd").arg(program))?;
    let path =
        |line: &str| line.split_ascii_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(listed.lines().filter_map(path).collect())
}

fn modules(files: &Path, kernel: &Path) -> Result<()> {
    let to = files.join("modules");
    fs::create_dir(&to)?;
    for (number, module) in MODULES.iter().enumerate() {
        let name = format!("{module}.ko*");
        let found = cargo::read(Command::new("find").arg(kernel).args(["-name", &name]))?;
        let Some(found) = found.lines().next() else { continue };
        let plain = Command::new(busybox(kernel)?).args(["xzcat", found]).output()?;
        ensure!(plain.status.success(), "{found} can't be unpacked");
        fs::write(to.join(format!("{number}-{module}.ko")), plain.stdout)?;
    }
    Ok(())
}

fn busybox(kernel: &Path) -> Result<PathBuf> {
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| kernel.join(place));
    places.into_iter().find(|path| path.exists()).context("the package of busybox has no busybox")
}

/// Packs the files as the kernel unpacks them.
fn pack(kernel: &Path, files: &Path, initrd: &Path) -> Result<()> {
    let busybox = busybox(kernel)?;
    let mut packing = Command::new("sh");
    packing.arg("-c").arg(r#""$0" find . | "$0" cpio -o -H newc"#).arg(&busybox).current_dir(files);
    cargo::run(packing.stdout(File::create(initrd)?))
}

/// Runs the guest to its end; what it has printed.
fn boot(kernel: &Path, initrd: &Path) -> Result<String> {
    let image = fs::read_dir(kernel.join("boot"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .context("the package of the kernel has no kernel")?;
    // It stays there, for who wants to know where the guest hangs.
    let console = cargo::target()?.join("guest.log");
    let mut guest = Command::new(EMULATOR.program)
        .args(MACHINE)
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(File::create(&console)?)
        .spawn()
        .context("can't start the guest")?;
    let ended = wait(&mut guest);
    let printed = String::from_utf8_lossy(&fs::read(&console)?).replace('\r', "");
    stdout().write_all(printed.as_bytes())?;
    ended.map(|()| printed)
}

fn wait(guest: &mut Child) -> Result<()> {
    let started = Instant::now();
    while guest.try_wait()?.is_none() {
        if started.elapsed() > DEADLINE {
            guest.kill()?;
            guest.wait()?;
            bail!("the guest has not ended after {} s", DEADLINE.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
