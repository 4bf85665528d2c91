//! Many threads that ask together share one dump, in both of its returns.

use crate::afterlife::bring_back;
use crate::harness::{Lab, eventually};

/// The outcomes that the crowd has had: how many threads got which.
fn outcomes(output: &str) -> Vec<(usize, String)> {
    let lines = output.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(count, outcome)| Some((count.parse().ok()?, outcome.to_owned()))).collect()
}

fn served(output: &str) -> usize {
    output.matches("all served").count()
}

#[test]
fn a_hundred_threads_that_ask_together_make_one_or_two_dumps_and_all_are_served_in_each_life() {
    let lab = Lab::new();
    let program = lab.program("crowd").start();
    program.wait_for("ready");
    program.signal(libc::SIGUSR1);
    program.wait_for("all served");
    let saved = outcomes(&program.output());
    assert_eq!(saved.iter().map(|(count, _)| count).sum::<usize>(), 100, "{saved:?}");
    assert!(saved.iter().all(|(_, outcome)| outcome.starts_with("saved crowd/")), "{saved:?}");
    let checkpoints = lab.checkpoints();
    assert!(saved.len() == checkpoints.len() && checkpoints.len() <= 2, "{saved:?}");
    program.crash();

    // Each thread that waited for this checkpoint came back from it; those that waited for the other one, if there
    // was another, are served by one of the life that begins.
    for checkpoint in checkpoints {
        let id = checkpoint.strip_prefix(lab.store()).unwrap().to_str().unwrap().to_owned();
        let before = std::fs::read_to_string(lab.path("crowd.out")).unwrap();
        let back = bring_back(&lab, &id);
        let after = eventually("all are served once more", || {
            let now = std::fs::read_to_string(lab.path("crowd.out")).unwrap();
            (served(&now) > served(&before)).then(|| now[before.len()..].to_owned())
        });
        let came_back = outcomes(&after);
        assert_eq!(came_back.iter().map(|(count, _)| count).sum::<usize>(), 100, "{came_back:?}");
        assert!(came_back.iter().any(|(_, outcome)| *outcome == format!("restored {id}")), "{came_back:?}");
        assert!(!after.contains("error"), "{after}");
        back.program.crash();
    }
}
