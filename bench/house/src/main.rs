//! `cargo xtask bench`: measures, files what was found, and remakes the page and its pictures.

use std::path::PathBuf;
use std::process::ExitCode;

use house::comparison::Failure;
use house::page::Place;
use house::parts::{self, Part, Wish};
use house::workload;

const USAGE: &str = "cargo xtask bench [--quick] [--only PART,PART] [--sizes MIB,MIB] [--rounds N] [--dir FOLDER] \
    [--documents FOLDER] [--page | --check]";

/// What is to be done.
enum Task {
    Measure,
    /// Remake the page of what was found before.
    Page,
    /// Only look whether it is what the results say.
    Check,
}

struct Arguments {
    task: Task,
    parts: Vec<Part>,
    wish: Wish,
    /// The folder of the page.
    documents: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((word, rest)) if word == workload::WORD => workload::run(rest).map(|()| true),
        _ => understood(&arguments).and_then(|arguments| carry_out(&arguments)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn understood(arguments: &[String]) -> Result<Arguments, Failure> {
    let documents = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"));
    let wish = Wish { quick: false, sizes: None, rounds: None, dir: None };
    let mut all = Arguments { task: Task::Measure, parts: Part::ALL.to_vec(), wish, documents };
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(USAGE);
        match argument {
            "--quick" => all.wish.quick = true,
            "--only" => all.parts = value()?.split(',').map(part).collect::<Result<_, _>>()?,
            "--sizes" => {
                all.wish.sizes = Some(value()?.split(',').map(str::parse).collect::<Result<_, _>>()?)
            }
            "--rounds" => all.wish.rounds = Some(value()?.parse()?),
            "--dir" => all.wish.dir = Some(PathBuf::from(value()?)),
            "--documents" => all.documents = PathBuf::from(value()?),
            "--page" => all.task = Task::Page,
            "--check" => all.task = Task::Check,
            _ => return Err(format!("{argument} is not understood; {USAGE}").into()),
        }
    }
    Ok(all)
}

fn part(name: &str) -> Result<Part, Failure> {
    let found = Part::ALL.into_iter().find(|part| part.name() == name);
    let names = || Part::ALL.map(Part::name).join(", ");
    found.ok_or_else(|| format!("there is no part {name}: {}", names()).into())
}

/// Whether every limit was kept.
fn carry_out(arguments: &Arguments) -> Result<bool, Failure> {
    let place = Place::of(&arguments.documents);
    match arguments.task {
        Task::Page => place.remake().map(|()| true),
        Task::Check => place.check().map(|()| true),
        Task::Measure => measure(arguments, &place),
    }
}

fn measure(arguments: &Arguments, place: &Place) -> Result<bool, Failure> {
    let mut kept = true;
    for &part in &arguments.parts {
        println!("\n== {}", part.name());
        let found = parts::measure(part, &arguments.wish)?;
        kept &= parts::judge(&found);
        println!("{} s", found.seconds);
        // After each, so that what was measured isn't lost with what comes next.
        place.file(part, &found)?;
        place.remake()?;
    }
    Ok(kept || arguments.wish.quick)
}
