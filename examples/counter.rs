//! Counts, and survives: `cargo run --example counter`, then `kill -USR2 PID`, `kill -9 PID` and
//! `selfdump restore counter`.

use std::time::Duration;

use selfdump::Outcome;

fn main() -> Result<(), selfdump::Error> {
    let handle = selfdump::install()?;
    handle
        .on_restore(|restored| println!("back from {}, generation {}", restored.id, restored.generation))?;
    println!("counting as process {}", std::process::id());
    let mut sum = 0u64;
    for step in 1u64.. {
        sum = sum.wrapping_mul(31).wrapping_add(step);
        println!("step {step} sum {sum:016x}");
        // Besides those that are asked for by signal, one checkpoint by a call.
        if step == 100 {
            match handle.checkpoint() {
                Ok(Outcome::Saved(checkpoint)) => println!("saved {} ({})", checkpoint.id, checkpoint.size),
                Ok(Outcome::Restored(restored)) => println!("restored, {:.1?} later", restored.age),
                Err(error) => println!("not saved: {error:?}"),
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
