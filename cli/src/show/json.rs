//! What `selfdump show --json` prints.

use std::time::SystemTime;

use anyhow::Result;
use selfdump::inspect::{Fate, Process};
use selfdump::{
    Bytes, Cause, Criu, Entry, Manifest, PauseBudget, Program, Staged, Technique, frozen::DumpStats,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::Shown;

#[derive(Serialize)]
pub struct Whole<'a> {
    format_version: u32,
    id: &'a str,
    path: &'a std::path::Path,
    cause: &'a Cause,
    forensic: bool,
    taken_unix_us: u64,
    answered_unix_us: u64,
    generation: u64,
    size_bytes: Bytes,
    shared_bytes: Bytes,
    staged: &'a Staged,
    technique: &'a Technique,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_budget: Option<&'a PauseBudget>,
    program: &'a Program,
    criu: &'a Criu,
    stats: DumpStats,
    processes: Vec<Value>,
}

/// Everything that there is to show.
pub fn whole<'a>(entry: &'a Entry, manifest: &'a Manifest, processes: &[Shown]) -> Result<Whole<'a>> {
    Ok(Whole {
        format_version: 1,
        id: &manifest.id,
        path: &entry.path,
        cause: &manifest.cause,
        forensic: manifest.forensic,
        taken_unix_us: unix_us(manifest.taken),
        answered_unix_us: unix_us(manifest.answered),
        generation: manifest.generation(),
        size_bytes: manifest.size(),
        shared_bytes: manifest.shared(),
        staged: &manifest.staged,
        technique: &manifest.technique,
        pause_budget: manifest.pause_budget.as_ref(),
        program: &manifest.program,
        criu: &manifest.criu,
        stats: manifest.stats,
        processes: processes.iter().map(process).collect::<Result<_>>()?,
    })
}

fn unix_us(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A process as the library has it, with `at` in each thread and `fate` in each descriptor.
fn process(Shown { process, standing, fates }: &Shown) -> Result<Value> {
    let Process { threads, descriptors, .. } = process;
    let mut value = serde_json::to_value(process)?;
    for (number, at) in standing.iter().enumerate().take(threads.len()) {
        value["threads"][number]["at"] = json!(at);
    }
    for (number, fate) in fates.iter().enumerate().take(descriptors.len()) {
        value["descriptors"][number]["fate"] = json!(fate as &Fate);
    }
    Ok(value)
}
