//! `docs/errors.md`: the dictionary of CRIU's log lines for readers.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use selfdump::criu::{DICTIONARY, Rule};

/// The page, and the logs that say with which version of CRIU a line was seen.
const PAGE: &str = "docs/errors.md";
const LOGS: &str = "tests/fixtures/criu-logs.txt";

/// What stands above the tables.
const INTRODUCTION: &str = "\
<!-- Written by `cargo xtask codegen` from src/criu/dictionary/ and tests/fixtures/criu-logs.txt. Change those, not this. -->
# What CRIU's messages mean

`selfdump explain dump.log` finds the line that counts and says what to do about it; selfdump's own errors do the same.
This is all that both know. The first line of these tables that a log has is the cause: what stands further down may
only follow from it. `…` stands for anything.

The versions are those of CRIU with which the failure was provoked and its lines were kept. Otherwise the line is known
from the file of CRIU's source, or from the issue of [CRIU's project](https://github.com/checkpoint-restore/criu/issues),
that is named.
";

/// Writes the page, or with `check` fails if the one on disk isn't what would be written.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let page = root.join(PAGE);
    let text = render(root)?;
    if !check {
        return fs::write(&page, text).with_context(|| format!("can't write {}", page.display()));
    }
    let found = fs::read_to_string(&page).with_context(|| format!("can't read {}", page.display()))?;
    ensure!(found == text, "{PAGE} isn't what the dictionary says: run `cargo xtask codegen`");
    Ok(())
}

fn render(root: &Path) -> Result<String> {
    let logs = fs::read_to_string(root.join(LOGS)).with_context(|| format!("can't read {LOGS}"))?;
    let seen = sources(&logs);
    let mut page = INTRODUCTION.to_owned();
    for chapter in DICTIONARY {
        write!(
            page,
            "\n## {}\n\n| Line | What has happened | What to do | Seen in |\n|---|---|---|---|\n",
            chapter.title
        )?;
        for rule in chapter.rules {
            let seen = seen.get(rule.id).with_context(|| format!("{LOGS} has no [{}]", rule.id))?;
            writeln!(page, "{}", row(rule, seen))?;
        }
    }
    Ok(page)
}

/// Where the lines of each rule are from, by its id: `[io-uring] 4.2.1, 4.1.1`.
fn sources(logs: &str) -> HashMap<&str, &str> {
    logs.lines().filter_map(|line| line.strip_prefix('[')?.split_once("] ")).collect()
}

fn row(rule: &Rule, seen: &str) -> String {
    let line = format!("`{}`<br>{}", rule.line.join(" … "), rule.id);
    let cells = [line.as_str(), rule.cause, rule.remedy, seen].map(|cell| cell.replace('|', "\\|"));
    format!("| {} |", cells.join(" | "))
}
