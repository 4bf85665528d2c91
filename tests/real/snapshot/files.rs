//! Files that the program goes on writing to while its copy is dumped: they are as they were in the moment of the copy.

use std::fs;
use std::path::Path;

use super::{copied, ready, saved};
use crate::afterlife::bring_back_with;
use crate::harness::{Lab, eventually};

/// How many whole lines there are; each is there once, in order.
fn unbroken(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let (mut count, mut expected) = (0, String::new());
    for line in whole.lines() {
        expected.clear();
        std::fmt::Write::write_fmt(&mut expected, format_args!("line {count}")).unwrap();
        assert_eq!(line, expected);
        count += 1;
    }
    count
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

fn grows(path: &Path) {
    let before = size(path);
    eventually("it is written on", || (size(path) > before + 10_000).then_some(()));
}

fn no_line_is_lost_or_doubled(threads: &str) {
    let lab = Lab::new();
    let log = lab.path("log.txt");
    let program = ready(copied(lab.program("fastlog").arg(&log).arg(threads)));
    grows(&log);
    saved(&lab, program.pid(), 1);
    saved(&lab, program.pid(), 2);
    grows(&log);
    program.crash();
    for number in 3..=6 {
        let before = size(&log);
        let back = bring_back_with(&lab, "fastlog", &["--files", "rewind:*.txt"]);
        let plans = back.report["files"].as_array().unwrap();
        let ours = plans.iter().find(|plan| plan["path"] == *log.to_str().unwrap()).expect("a plan");
        assert_eq!(ours["action"], "rewind", "{}", back.report);
        eventually("it is written on", || (size(&log) != before).then_some(()));
        grows(&log);
        saved(&lab, back.program.pid, number);
        grows(&log);
        back.program.crash();
        assert!(unbroken(&log) > 1000);
    }
}

#[test]
fn a_log_that_is_written_to_all_the_time_has_each_line_once_after_a_restore() {
    no_line_is_lost_or_doubled("1");
}

#[test]
fn so_it_has_where_four_threads_write_to_it() {
    no_line_is_lost_or_doubled("4");
}
