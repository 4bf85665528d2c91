//! A real disk that has room for nothing, for a part of a checkpoint, or for one, and that is read-only for a while.

use std::fs;

use super::victim::{Outcome, Victim};
use crate::failures::small_disk::Disk;
use crate::harness::Lab;

const STEP: u64 = 64 << 10;

#[test]
fn whatever_room_a_disk_has_the_program_runs_on_and_saves_again_when_there_is_more() {
    let lab = Lab::new();
    let disk = Disk::of(&lab, 16);
    let mut victim = Victim::start(&lab, |launch| launch);
    let (mut failed, mut saved) = (0, 0);
    // Up to where a checkpoint has fitted several times.
    for left in (0..).map(|steps| steps * STEP) {
        let filler = disk.is_filled_but_for(left);
        match victim.fares(&format!("with room for {left} bytes")) {
            Outcome::Failed => failed += 1,
            _ => saved += 1,
        }
        fs::remove_file(filler).expect("the filler");
        victim.saves();
        if saved == 3 {
            break;
        }
    }
    println!("{failed} attempts had no room, {saved} had");
    assert!(failed > 10, "{failed}");
    for _ in 0..3 {
        disk.becomes_read_only();
        assert_eq!(victim.fares("on a disk that is read-only"), Outcome::Failed);
        disk.becomes_writable();
        victim.saves();
        victim = victim.comes_back();
    }
}
