//! The main job: checkpointed while it runs, killed, restored, and not a step lost or doubled.

pub use crate::follow::follow;
use crate::harness::{Lab, Restored, USR2, eventually, manifest, oldest_criu};

fn survives_twenty_checkpoints_and_a_crash(lab: &Lab, threads: u64) {
    let program = lab.program("chain").arg(threads.to_string()).start();
    program.wait_for("ready");
    for number in 1..=20 {
        program.signal(USR2);
        lab.wait_for_checkpoint(number);
    }
    let newest = lab.wait_for_checkpoint(20);
    let ids = manifest(&newest)["processes"][0]["threads"].as_array().unwrap().len() as u64;
    assert_eq!(ids, threads + 1, "the program's threads and selfdump's one");
    eventually("older ones are deleted", || (lab.checkpoints().len() == 3).then_some(()));

    let before = follow(&program.output());
    let pid = program.pid();
    program.crash();
    let restored = Restored { restorer: lab.restore("chain"), pid };
    restored.restorer.wait_for("selfdump: restored chain/");
    eventually("every thread goes on beyond where it was", || {
        let now = follow(&std::fs::read_to_string(lab.path("chain.out")).unwrap());
        (now.len() as u64 == threads && now.iter().all(|(thread, step)| *step > before[thread] + 100))
            .then_some(())
    });
    let output = std::fs::read_to_string(lab.path("chain.out")).unwrap();
    assert_eq!(output.matches("restored chain/").count(), 1, "on_restore ran once");
    assert!(output.contains("000020 generation 1"), "it came from the newest");
}

#[test]
fn a_chain_of_one_thread_is_unbroken_after_twenty_checkpoints_and_a_crash() {
    survives_twenty_checkpoints_and_a_crash(&Lab::new(), 1);
}

#[test]
fn chains_of_eight_threads_are_unbroken_after_twenty_checkpoints_and_a_crash() {
    survives_twenty_checkpoints_and_a_crash(&Lab::new(), 8);
}

#[test]
fn chains_of_sixty_four_threads_are_unbroken_after_twenty_checkpoints_and_a_crash() {
    survives_twenty_checkpoints_and_a_crash(&Lab::new(), 64);
}

#[test]
fn the_oldest_supported_criu_does_it_as_well() {
    for threads in [1, 8] {
        let mut lab = Lab::new();
        lab.criu = oldest_criu();
        survives_twenty_checkpoints_and_a_crash(&lab, threads);
    }
}
