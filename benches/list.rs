//! A list of 10,000 checkpoints, against reading the same files plainly: each manifest read, and each file's size asked
//! for, one after the other. `cargo bench --bench list`
//!
//! Both are done in turn; the median of the ratios decides, and the exit status tells when it is over the limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

const CHECKPOINTS: u64 = 10_000;
const FILES: u64 = 17;
const PAIRS: usize = 15;
/// A list does all that a plain reader does, and understands it besides; but it has every processor.
const LIMIT: f64 = 1.5;

fn main() -> ExitCode {
    let lab = tempfile::tempdir().expect("a folder");
    let checkpoints: Vec<PathBuf> = (1..=CHECKPOINTS).map(|number| make(lab.path(), number)).collect();
    let mut pairs: Vec<(Duration, Duration)> = Vec::new();
    for pair in 0..=PAIRS {
        let list = || timed(|| assert_eq!(good(lab.path()), CHECKPOINTS as usize));
        let plain = || timed(|| checkpoints.iter().for_each(|folder| read_plainly(folder)));
        // Each is first in every other pair; the first pair only warms up.
        let measured = if pair % 2 == 0 {
            (list(), plain())
        } else {
            let plain = plain();
            (list(), plain)
        };
        if pair > 0 {
            pairs.push(measured);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let of = |read: fn(&(Duration, Duration)) -> f64| median(pairs.iter().map(read).collect());
    let before = processor_time();
    assert_eq!(good(lab.path()), CHECKPOINTS as usize);
    let used = (processor_time() - before).as_secs_f64() * 1e3;
    let ratio = of(|(list, plain)| list.as_secs_f64() / plain.as_secs_f64());
    println!("{CHECKPOINTS} checkpoints of {FILES} files, {PAIRS} pairs, medians");
    println!("  list           {:7.1} ms", of(|(list, _)| list.as_secs_f64() * 1e3));
    println!("  reading alone  {:7.1} ms", of(|(_, plain)| plain.as_secs_f64() * 1e3));
    println!("  a list's processor time, all processors together: {used:.1} ms");
    println!("  ratio          {ratio:7.3}, limit {LIMIT}");
    ExitCode::from(u8::from(ratio > LIMIT))
}

/// The time that this process has had of all processors.
fn processor_time() -> Duration {
    let mut used = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the structure, for which zeros are valid as well.
    let used = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, used.as_mut_ptr());
        used.assume_init()
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(used.ru_utime) + of(used.ru_stime)
}

fn timed(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

fn good(store: &Path) -> usize {
    let listed = selfdump::listing::list(store, None).expect("a list");
    listed.iter().filter(|one| matches!(one.state, selfdump::listing::State::Good)).count()
}

fn read_plainly(folder: &Path) {
    fs::read(folder.join("manifest.json")).expect("a manifest");
    for file in 0..FILES {
        fs::metadata(folder.join(format!("images/{file}.img"))).expect("a file");
    }
}

/// A checkpoint as one of a small program is: ten instances have a thousandth of them each.
fn make(store: &Path, number: u64) -> PathBuf {
    let id = format!("app/{}-100/{number:06}", number % 10 + 1);
    let folder = store.join(&id);
    fs::create_dir_all(folder.join("images")).expect("a folder");
    for file in 0..FILES {
        fs::write(folder.join(format!("images/{file}.img")), b"image").expect("a file");
    }
    let manifest = manifest(&id, number).to_string();
    let checksum = xxh3_128(manifest.as_bytes());
    let envelope = format!("{{\"xxh3_128\":\"{checksum:032x}\",\"manifest\":{manifest}}}");
    fs::write(folder.join("manifest.json"), envelope).expect("a manifest");
    folder
}

fn manifest(id: &str, number: u64) -> Value {
    let files: Vec<Value> = (0..FILES)
        .map(
            |file| json!({"path": format!("images/{file}.img"), "size_bytes": 5, "xxh3_128": "0".repeat(32)}),
        )
        .collect();
    let descriptors: Vec<Value> = (0..8)
        .map(|fd| json!({"fd": fd, "kind": "file", "path": "/data/input/of/the/program.csv", "flags": 32768, "position_bytes": 0, "size_bytes": 100}))
        .collect();
    let features: Vec<String> = (0..120).map(|feature| format!("feature{feature}")).collect();
    json!({
        "format_version": 1, "id": id, "cause": {"kind": "timer"}, "forensic": false,
        "taken_unix_us": 1_700_000_000_000_000_u64 + number, "answered_unix_us": 1_700_000_000_000_000_u64 + number,
        "life": {
            "id": "c0ffee00-0000-4000-8000-000000000000", "generation": 0, "pid": 4711, "start_ticks": 100,
            "pid_namespace": 1, "boot_id": "another", "machine": "another"
        },
        "program": {
            "name": "app", "executable": "/usr/bin/app", "selfdump": "0.1.0", "file_rules": [],
            "mapped": [{"path": "/usr/bin/app", "build_id": "0".repeat(40)}, {"path": "/lib/libc.so.6", "build_id": "0".repeat(40)}],
            "cpu_features": features, "runtime": "/run/selfdump", "copy_files": []
        },
        "criu": {
            "version": "4.2.1", "peer": "/usr/sbin/criu",
            "needs": {
                "shell_job": true, "file_locks": false, "tcp_established": false, "ext_unix_sk": false,
                "network_lock": "default", "unprivileged": false, "outside": []
            }
        },
        "stats": {"freezing_us": 1, "frozen_us": 1, "memdump_us": 1, "memwrite_us": 1, "pages_scanned": 1, "pages_written": 1},
        "processes": [{
            "pid": 4711, "parent": 0, "process_group": 4711, "session": 4711, "name": "app", "threads": [4711, 4712],
            "mappings": 40, "memory_bytes": 500_000, "descriptors": descriptors
        }],
        "copies": [], "files": files, "parent": null
    })
}
