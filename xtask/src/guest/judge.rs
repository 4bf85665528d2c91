//! Whether the guest has shown what it was to show, by what it has printed.

use anyhow::{Context, Result, ensure};

/// The pause with a limit, at most, as a share of the pause without.
const SHARE: f64 = 0.25;

/// What the program says of a checkpoint.
#[derive(Debug, PartialEq)]
struct Saved {
    pause_us: u64,
    is_kept: bool,
    rounds: u64,
    pages: u64,
}

/// What was printed in a stage.
struct Stage<'a>(&'a str);

impl<'a> Stage<'a> {
    fn of(printed: &'a str, name: &str) -> Result<Stage<'a>> {
        let (_, rest) = printed
            .split_once(&format!("stage {name}\n"))
            .with_context(|| format!("the guest has not come to the stage `{name}`"))?;
        Ok(Stage(rest.split("\nstage ").next().unwrap_or(rest)))
    }

    fn saved(&self, count: usize) -> Result<Vec<Saved>> {
        let saved: Vec<Saved> = self.0.lines().filter_map(saved).collect();
        ensure!(saved.len() == count, "{} checkpoints were saved, and not {count}", saved.len());
        Ok(saved)
    }

    fn says(&self, text: &str) -> Result<()> {
        ensure!(self.0.contains(text), "nothing says `{text}`");
        Ok(())
    }

    fn comes_back_right(&self) -> Result<()> {
        let line = self.0.lines().find(|line| line.starts_with("came back"));
        let line = line.context("the program has not come back")?;
        ensure!(line.starts_with("came back: all "), "{line}");
        Ok(())
    }
}

/// Reads `saved pause N gap N kept BOOL rounds N pages N: …`.
fn saved(line: &str) -> Option<Saved> {
    let words: Vec<&str> = line.strip_prefix("saved ")?.split([' ', ':']).collect();
    let after = |name: &str| words.iter().skip_while(|word| **word != name).nth(1);
    let number = |name: &str| after(name)?.parse().ok();
    Some(Saved {
        pause_us: number("pause")?,
        is_kept: *after("kept")? == "true",
        rounds: number("rounds")?,
        pages: number("pages")?,
    })
}

pub fn judge(printed: &str) -> Result<()> {
    type Judge = fn(&str) -> Result<()>;
    let judges: [(&str, Judge); 7] = [
        ("pauses with a limit", limited),
        ("a damaged link of the chain", damaged),
        ("the oldest CRIU", oldest),
        ("a round that fails", killed),
        ("no room for what is written ahead", cramped),
        ("huge pages", huge_pages),
        ("copies where ptrace is restricted", restricted),
    ];
    Stage::of(printed, "end")?;
    judges.iter().try_for_each(|(what, judge)| judge(printed).with_context(|| format!("wrong: {what}")))
}

fn limited(printed: &str) -> Result<()> {
    let full = median(&Stage::of(printed, "full")?.saved(2)?);
    let stage = Stage::of(printed, "limited")?;
    let saved = stage.saved(10)?;
    let (pause, kept) = (median(&saved), saved.iter().filter(|saved| saved.is_kept).count());
    let share = pause as f64 / full as f64;
    println!("pause {pause} µs instead of {full} µs ({share:.2}); the limit was kept {kept} times of 10");
    ensure!(share <= SHARE, "{share:.2} is more than {SHARE}");
    ensure!(kept >= 9, "the limit was kept {kept} times of 10");
    ensure!(saved.iter().all(|saved| saved.rounds > 0), "nothing was written ahead: {saved:?}");
    stage.says("at most")?;
    stage.comes_back_right()
}

fn damaged(printed: &str) -> Result<()> {
    let stage = Stage::of(printed, "damaged")?;
    ensure!(stage.saved(2)?.iter().all(|saved| saved.rounds > 1 && !saved.is_kept));
    stage.says("000002/ahead/1/pages-1.img has another checksum")?;
    stage.says("/000001 as process")?;
    stage.comes_back_right()
}

fn oldest(printed: &str) -> Result<()> {
    let stage = Stage::of(printed, "oldest")?;
    ensure!(stage.saved(2)?.iter().all(|saved| saved.rounds > 1));
    stage.says("/000002 as process")?;
    stage.comes_back_right()
}

/// What was written ahead is dropped, and the dump holds everything.
fn killed(printed: &str) -> Result<()> {
    let stage = Stage::of(printed, "killed")?;
    let saved = stage.saved(1)?;
    ensure!(saved[0].rounds == 0 && saved[0].pages > 64 * 256, "{saved:?}");
    stage.says("not written ahead: CRIU")?;
    stage.comes_back_right()
}

/// The checkpoint is made all the same, and says why nothing was written ahead.
fn cramped(printed: &str) -> Result<()> {
    let stage = Stage::of(printed, "cramped")?;
    ensure!(stage.saved(1)?[0].rounds == 0);
    stage.says("not written ahead: a checkpoint takes about")
}

fn huge_pages(printed: &str) -> Result<()> {
    let with = Stage::of(printed, "huge pages")?.saved(1)?[0].pages;
    let without = Stage::of(printed, "no huge pages")?.saved(1)?[0].pages;
    println!("{with} pages are left with huge pages, {without} without");
    ensure!(with > 4 * without, "it makes no difference");
    Ok(())
}

/// Whom Yama lets trace the program has its copy, and others are told what is in the way.
fn restricted(printed: &str) -> Result<()> {
    let copied = Stage::of(printed, "copied")?;
    copied.saved(1)?;
    copied.says("a copy of the program, which ran on")?;
    copied.comes_back_right()?;
    let stage = Stage::of(printed, "restricted")?;
    stage.saved(0)?;
    stage.says("kernel.yama.ptrace_scope")
}

/// Of two the longer one.
fn median(saved: &[Saved]) -> u64 {
    let mut pauses: Vec<u64> = saved.iter().map(|saved| saved.pause_us).collect();
    pauses.sort_unstable();
    pauses[pauses.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "saved pause 184868 gap 234701 kept true rounds 2 pages 415: 233.3 ms of 300.0 ms at most";

    #[test]
    fn a_line_of_the_program_is_read() {
        let expected = Saved { pause_us: 184_868, is_kept: true, rounds: 2, pages: 415 };
        assert_eq!(saved(LINE), Some(expected));
        assert_eq!(saved("done"), None);
    }

    #[test]
    fn a_stage_ends_where_the_next_begins_and_one_that_is_missing_is_named() {
        let printed = format!("stage full\n{LINE}\nstage limited\n{LINE}\n{LINE}\nstage end\n");
        assert_eq!(Stage::of(&printed, "full").unwrap().saved(1).unwrap().len(), 1);
        assert!(Stage::of(&printed, "full").unwrap().saved(2).is_err());
        assert!(Stage::of(&printed, "huge pages").err().unwrap().to_string().contains("`huge pages`"));
    }
}
