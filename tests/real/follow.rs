//! Following the hash chains of the program `chain`.

use std::collections::HashMap;

#[path = "../programs/link.rs"]
mod link;

/// Follows the chains through the whole output: what a line says must be what its chain comes to by
/// calculation. Returns the last step of each thread.
pub fn follow(output: &str) -> HashMap<u64, u64> {
    let mut known: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut last = HashMap::new();
    for line in output.lines().filter(|line| line.starts_with("thread ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, thread, _, step, _, said] = words[..] else { panic!("a torn line: {line:?}") };
        let (thread, step): (u64, u64) = (thread.parse().unwrap(), step.parse().unwrap());
        let chain = known.entry(thread).or_insert_with(|| vec![link::first(thread)]);
        while (chain.len() as u64) <= step {
            chain.push(link::next(chain[chain.len() - 1], chain.len() as u64));
        }
        assert_eq!(said, format!("{:016x}", chain[step as usize]), "the chain is broken at: {line}");
        last.insert(thread, step);
    }
    last
}
