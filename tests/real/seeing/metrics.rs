//! What is counted, as the program itself sees it and as Prometheus does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use prometheus_parse::{Sample, Scrape, Value};

use super::{assert_fails, printed, told};
use crate::afterlife::bring_back;
use crate::harness::{Lab, USR2, eventually, manifest};

/// What a parser reads, after it was held against the conventions that promtool checks.
fn scraped(text: &str) -> Scrape {
    let scrape =
        Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("Prometheus' text format");
    let read = scrape.samples.iter().map(|sample| match &sample.value {
        Value::Summary(_) | Value::Histogram(_) => panic!("a summary with quantiles: {sample:?}"),
        _ => 1,
    });
    assert_eq!(read.sum::<usize>(), text.lines().filter(|line| !line.starts_with('#')).count(), "{text}");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(scrape.docs.contains_key(name), "{name} has no help");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        let unit = ["seconds", "bytes"].iter().find(|unit| name.contains(**unit));
        assert!(unit.is_none_or(|unit| name.trim_end_matches("_total").ends_with(unit)), "{line}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
    }
    scrape
}

fn value(sample: &Sample) -> f64 {
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
        _ => panic!("{sample:?}"),
    }
}

/// The values of a program's figures, by name.
fn figures(scrape: &Scrape, pid: i32) -> BTreeMap<String, f64> {
    let of_it = scrape.samples.iter().filter(|sample| sample.labels.get("pid") == Some(&pid.to_string()));
    of_it.map(|sample| (sample.metric.clone(), value(sample))).collect()
}

fn read(path: &Path) -> Option<Scrape> {
    Some(scraped(&fs::read_to_string(path).ok()?))
}

#[test]
fn what_is_counted_is_told_to_the_program_and_in_the_textfile_and_begins_anew_in_the_next_life() {
    let lab = Lab::new();
    let textfile = lab.path("app.prom");
    let program = lab.program("metered").env("SELFDUMP_METRICS_TEXTFILE", &textfile).start();
    program.wait_for("metrics saved 0 failed  last none bytes 0");
    let pid = program.pid();
    program.signal(USR2);
    let checkpoint = lab.wait_for_checkpoint(1);
    let size: u64 = manifest(&checkpoint)["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["size_bytes"].as_u64().unwrap())
        .sum();
    let line = program.wait_for("metrics saved 1 failed  last metered/");
    assert!(line.ends_with(&format!("/000001 bytes {size}")), "{line}");

    let told = eventually("the textfile", || {
        read(&textfile)
            .map(|scrape| figures(&scrape, pid))
            .filter(|told| told["selfdump_checkpoints_total"] == 1.0)
    });
    assert_eq!(told["selfdump_checkpoint_written_bytes_total"], size as f64);
    assert_eq!(told["selfdump_last_checkpoint_size_bytes"], size as f64);
    assert_eq!(told["selfdump_checkpoint_pause_seconds_count"], 1.0);
    let pause = manifest(&checkpoint)["stats"]["frozen_us"].as_f64().unwrap() / 1e6;
    assert!((told["selfdump_checkpoint_pause_seconds_sum"] - pause).abs() < 1e-6, "{told:?}");
    assert_eq!(told["selfdump_last_checkpoint_pause_seconds"], told["selfdump_checkpoint_pause_seconds_sum"]);
    assert!(told["selfdump_checkpoint_duration_seconds_sum"] > pause, "{told:?}");
    assert_eq!((told["selfdump_generation"], told["selfdump_checkpoint_failures_in_a_row"]), (0.0, 0.0));
    assert_eq!(fs::metadata(&textfile).unwrap().permissions().mode() & 0o777, 0o644);

    let by_command = figures(&scraped(&printed(&lab.run(["status", "--prometheus"]), 0)), pid);
    // Files hold microseconds.
    let is_as_told = |(name, value): (&String, &f64)| (value - told[name]).abs() < 2e-6;
    assert!(by_command.len() == told.len() && by_command.iter().all(is_as_told), "{by_command:?} {told:?}");

    program.crash();
    let back = bring_back(&lab, "metered");
    let told = eventually("the textfile", || {
        read(&textfile).map(|scrape| figures(&scrape, pid)).filter(|told| told["selfdump_generation"] == 1.0)
    });
    assert_eq!(told["selfdump_checkpoints_total"], 0.0);
    back.program.crash();
}

#[test]
fn failures_are_counted_by_kind_and_a_textfile_that_can_not_be_written_is_none() {
    let mut lab = Lab::new();
    lab.criu = lab.path("no-criu");
    let textfile = lab.path("there/is/no/folder.prom");
    let program = told(&lab, lab.program("metered").env("SELFDUMP_METRICS_TEXTFILE", &textfile).start());
    program.wait_for("metrics saved 0");
    let pid = program.pid().to_string();
    for count in 1..=2 {
        assert_fails(&lab.run(["trigger", &pid, "--wait"]), 1, &["no-criu is not a program"]);
        program.wait_for(&format!("metrics saved 0 failed no-criu={count} last none"));
    }
    let scrape = scraped(&printed(&lab.run(["status", &pid, "--prometheus"]), 0));
    let failed =
        scrape.samples.iter().find(|sample| sample.metric == "selfdump_checkpoint_failures_total").unwrap();
    assert_eq!((failed.labels.get("kind"), value(failed)), (Some("no-criu"), 2.0));
    assert!(!textfile.exists());

    let mut wrong = lab.program("metered").env("SELFDUMP_METRICS_TEXTFILE", "/tmp/figures.txt").start();
    assert!(!wrong.wait().success());
    assert!(wrong.output().contains("whose name ends in .prom"), "{}", wrong.output());
}
