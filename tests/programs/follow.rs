//! What `chain` has written, held against what its chains come to by calculation.

use std::collections::HashMap;

#[path = "link.rs"]
mod link;

/// Follows the chains through the whole output, and returns the steps that each thread has told of, in order; or the
/// first line that is torn or isn't what its chain comes to.
pub fn follow(output: &str) -> Result<HashMap<u64, Vec<u64>>, String> {
    let mut known: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut told: HashMap<u64, Vec<u64>> = HashMap::new();
    for line in output.lines().filter(|line| line.starts_with("thread ")) {
        let (thread, step, said) = parse(line).ok_or_else(|| format!("a torn line: {line:?}"))?;
        let chain = known.entry(thread).or_insert_with(|| vec![link::first(thread)]);
        while (chain.len() as u64) <= step {
            chain.push(link::next(chain[chain.len() - 1], chain.len() as u64));
        }
        if said != format!("{:016x}", chain[step as usize]) {
            return Err(format!("the chain is broken at: {line}"));
        }
        told.entry(thread).or_default().push(step);
    }
    Ok(told)
}

/// Thread, step and link of a line.
pub fn parse(line: &str) -> Option<(u64, u64, &str)> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["thread", thread, "step", step, "link", link] = words[..] else { return None };
    Some((thread.parse().ok()?, step.parse().ok()?, link))
}
