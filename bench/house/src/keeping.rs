//! What many checkpoints take of a disk, and how a restore of the last one fares.
//!
//! One program is checkpointed again and again, and changes a share of its memory in between; `du` of the store is told
//! after each. A second program of the same kind is checkpointed once, as a whole. Then the last checkpoint of the one and
//! that of the other are restored in turn, from the start of `selfdump restore` to the program's first tick.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::comparison::Failure;
use crate::comparison::noise;
use crate::comparison::plan::Plan;
use crate::comparison::statistics::ms;
use crate::restores::{Lab, Restore, TIME};
use crate::results::{Case, Line, Picture, Results, Series, Spread, Verdict, case};
use crate::workload::Workload;

/// What the program that is checkpointed often is told.
const SETTINGS: [(&str, &str); 2] = [("SELFDUMP_KEEP", "1000"), ("SELFDUMP_TIMEOUT", "2m")];

/// How much of its memory it changes between two checkpoints, in percent.
const CHANGES: usize = 1;

const LAST: &str = "the last of them";
const WHOLE: &str = "a checkpoint of whole images";
const STORE: &str = "the store";
const PLAIN: &str = "as many of `criu dump`";

pub fn compare(
    plan: &Plan,
    mebibytes: usize,
    checkpoints: usize,
    command: &Path,
) -> Result<Results, Failure> {
    let workload = Workload { changes: CHANGES, ..Workload::of(mebibytes) };
    let mut sizes = Vec::new();
    let told = |store: &Path| {
        sizes.push(taken(store)? as f64 / f64::from(1 << 20));
        Ok(())
    };
    let often = Lab::closed(&plan.dir, &workload, command, &SETTINGS, told, checkpoints)?;
    let whole = Lab::closed(&plan.dir, &workload, command, &[("SELFDUMP_TIMEOUT", "2m")], |_| Ok(()), 1)?;
    let plain = taken(&whole.images())? as f64 / f64::from(1 << 20);
    let title = format!("{checkpoints} checkpoints of {mebibytes} MiB, {CHANGES} % changed between them");
    println!("\n{title}: {:.0} MiB on disk", sizes.last().unwrap_or(&0.0));
    let store = Case {
        rows: rows(&sizes, plain),
        ..case(title.clone(), "`du`, in MiB".to_owned(), &["on disk, MiB"], &[], "")
    };
    let restores = restores(plan, &title, &often, &whole)?;
    let mut verdicts = vec![restores.verdict(LAST, TIME, 1.3)?];
    // The smaller is the program, the more the files beside its memory weigh.
    if (mebibytes, checkpoints) == (1024, 20) {
        verdicts.push(Verdict {
            what: format!("{title}: on disk, MiB"),
            found: Spread::of(sizes.last().copied().into_iter()),
            limit: 1536.0,
        });
    }
    Ok(Results { cases: vec![store, restores], verdicts, pictures: vec![picture(&title, &sizes, plain)] })
}

fn rows(sizes: &[f64], plain: f64) -> Vec<crate::results::Row> {
    let count = sizes.len();
    let rows = [
        Series { name: "the first", columns: vec![sizes.first().copied().into_iter().collect()] },
        Series { name: STORE, columns: vec![sizes.last().copied().into_iter().collect()] },
        Series { name: PLAIN, columns: vec![vec![plain * count as f64]] },
    ];
    case(String::new(), String::new(), &["on disk, MiB"], &rows, PLAIN).rows
}

/// A restore of either.
struct Pair {
    last: Restore,
    whole: Restore,
}

impl noise::Pair for Pair {
    fn contention(&self) -> f64 {
        self.last.contention.max(self.whole.contention)
    }
}

fn restores(plan: &Plan, title: &str, often: &Lab, whole: &Lab) -> Result<Case, Failure> {
    let pair = |number: usize| {
        if number % 2 == 0 {
            let last = often.by_selfdump(&[])?;
            return Ok(Pair { last, whole: whole.by_selfdump(&[])? });
        }
        let whole = whole.by_selfdump(&[])?;
        Ok(Pair { last: often.by_selfdump(&[])?, whole })
    };
    pair(0)?;
    let rounds = noise::calm(plan, |_: &[Pair]| true, pair)?;
    let row = |name, of: fn(&Pair) -> &Restore| Series {
        name,
        columns: vec![rounds.iter().map(of).map(|restore| ms(restore.time)).collect()],
    };
    let rows = [row(LAST, |pair| &pair.last), row(WHOLE, |pair| &pair.whole)];
    let title = format!("`selfdump restore`, {title}");
    Ok(case(title, noise::told(&rounds), &[TIME], &rows, WHOLE))
}

fn picture(title: &str, sizes: &[f64], plain: f64) -> Picture {
    let numbers = 1..=sizes.len();
    Picture {
        name: "store".to_owned(),
        title: title.to_owned(),
        places: numbers.clone().map(|number| number.to_string()).collect(),
        across: "checkpoints".to_owned(),
        upwards: "MiB on disk".to_owned(),
        by_logarithm: false,
        lines: vec![
            Line { name: STORE.to_owned(), values: sizes.iter().copied().map(Some).collect() },
            Line {
                name: PLAIN.replace('`', ""),
                values: numbers.map(|number| Some(plain * number as f64)).collect(),
            },
        ],
    }
}

/// What a folder takes of its disk, in bytes.
fn taken(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    let mut seen = std::collections::HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() {
                folders.push(entry.path());
            }
            // What has several names takes its place once.
            if about.is_dir() || about.nlink() == 1 || seen.insert(about.ino()) {
                bytes += about.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}
