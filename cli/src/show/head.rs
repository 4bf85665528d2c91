//! What a checkpoint is, in a few lines.

use selfdump::{Entry, Manifest, Staged, Technique, frozen::DumpStats, frozen::Needs, frozen::NetworkLock};

use crate::output;

/// Prints id, time, program, CRIU and the account of the dump.
pub fn print(entry: &Entry, manifest: &Manifest) {
    let Manifest { cause, program, criu, stats, .. } = manifest;
    let when = humantime::format_rfc3339_seconds(manifest.taken).to_string().replace('T', " ");
    println!("{}{}", manifest.id, if manifest.forensic { " (forensic)" } else { "" });
    line("taken", &format!("{}, {} ago, by {cause}", when.replace('Z', " UTC"), output::age(manifest.taken)));
    line("folder", &entry.path.display().to_string());
    line("program", &format!("{} (selfdump {})", program.executable, program.selfdump));
    line("life", &generation(manifest.generation()));
    line("size", &size(manifest));
    if let Some(oldest) = manifest.chain.first() {
        line("builds on", &builds_on(&oldest.id, manifest));
    }
    line("pause", &pause(stats));
    if let Some(budget) = &manifest.pause_budget {
        line("budget", &budget.to_string());
    }
    if manifest.staged != Staged::Disk {
        line("by way of", &manifest.staged.to_string());
    }
    if manifest.technique != Technique::Freeze {
        line("dumped", &manifest.technique.to_string());
    }
    if manifest.is_encrypted() {
        line("read by", &manifest.encrypted_to.join(", "));
    }
    line("criu", &format!("{} ({})", criu.version, criu.peer));
    line("options", &options(&criu.needs));
}

fn line(name: &str, text: &str) {
    println!("  {name:<10}{text}");
}

fn generation(generation: u64) -> String {
    match generation {
        0 => "the first".to_owned(),
        1 => "restored once".to_owned(),
        times => format!("restored {times} times"),
    }
}

fn size(manifest: &Manifest) -> String {
    let DumpStats { pages_written, pages_scanned, .. } = manifest.stats;
    let copies = match manifest.copies.len() {
        0 => String::new(),
        1 => "; 1 file copied".to_owned(),
        count => format!("; {count} files copied"),
    };
    format!("{}, {pages_written} of {pages_scanned} pages written{copies}", manifest.size())
}

fn builds_on(oldest: &str, manifest: &Manifest) -> String {
    let levels = match manifest.chain.len() {
        1 => oldest.to_owned(),
        count => format!("{oldest} and {} after it", count - 1),
    };
    format!("{levels}: {} that they have in common", manifest.shared())
}

fn pause(stats: &DumpStats) -> String {
    let [freezing, frozen, collected, written] =
        [stats.freezing, stats.frozen, stats.memdump, stats.memwrite]
            .map(|time| output::milliseconds(time.as_micros()));
    format!("{frozen}: {freezing} to freeze, {collected} to collect, {written} to write")
}

/// What CRIU was told because of the program's state.
fn options(needs: &Needs) -> String {
    let ghosts = needs.ghost_limit.map(|limit| format!("ghost limit {limit}"));
    let flags = [
        (needs.shell_job, "shell job"),
        (needs.file_locks, "file locks"),
        (needs.tcp_established, "tcp established"),
        (needs.ext_unix_sk, "external unix sockets"),
        (needs.unprivileged, "unprivileged"),
        (needs.tcp_established && needs.network_lock == NetworkLock::Nftables, "network lock by nftables"),
        (needs.tcp_established && needs.network_lock == NetworkLock::Skip, "no network lock"),
    ];
    let told = flags.into_iter().filter(|(is_told, _)| *is_told).map(|(_, name)| name.to_owned());
    let outside = needs.outside.iter().map(|outside| format!("external {}", outside.key));
    let all: Vec<String> = told.chain(ghosts).chain(outside).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
