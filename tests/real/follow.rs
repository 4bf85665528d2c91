//! Following the hash chains of the program `chain`.

use std::collections::HashMap;

#[path = "../programs/follow.rs"]
mod told;

/// Follows the chains through the whole output: what a line says must be what its chain comes to by
/// calculation. Returns the last step of each thread.
pub fn follow(output: &str) -> HashMap<u64, u64> {
    let told = told::follow(output).unwrap_or_else(|broken| panic!("{broken}"));
    told.into_iter().filter_map(|(thread, steps)| Some((thread, *steps.last()?))).collect()
}
