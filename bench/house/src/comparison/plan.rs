//! What is compared, and how often.

use std::path::PathBuf;

use super::Failure;

/// What is compared, and how often.
pub struct Plan {
    /// In MiB.
    pub sizes: Vec<usize>,
    pub pairs: usize,
    /// Whether a limit that is missed fails the run.
    pub judged: bool,
    /// So many times as many pairs as are asked for are made at most.
    pub patience: usize,
    /// Where stores and images go.
    pub dir: PathBuf,
}

impl Plan {
    /// That of the benchmark of this name; none where cargo was asked for other benchmarks by name.
    pub fn of(benchmark: &str, sizes: &[usize], arguments: &[String]) -> Result<Option<Plan>, Failure> {
        let usage = format!(
            "in bench/: cargo bench --bench {benchmark} -- [--quick] [--pairs N] [--sizes MIB,MIB] [--dir FOLDER]"
        );
        // `cargo test --benches` starts us without `--bench`, to see that we work.
        let mut quick = !arguments.iter().any(|argument| argument == "--bench");
        let mut pairs = None;
        let mut sizes = sizes.to_owned();
        let mut dir = super::scene::target()?.join("bench");
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or(usage.as_str());
            match argument {
                "--bench" => {}
                "--quick" => quick = true,
                "--pairs" => pairs = Some(value()?.parse()?),
                "--sizes" => sizes = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--dir" => dir = PathBuf::from(value()?),
                filter if !filter.starts_with('-') && !benchmark.contains(filter) => return Ok(None),
                filter if !filter.starts_with('-') => {}
                _ => return Err(format!("{argument} is not understood; {usage}").into()),
            }
        }
        let pairs = pairs.unwrap_or(if quick { 3 } else { 25 }).max(1);
        Ok(Some(Plan { sizes, pairs, judged: !quick, patience: if quick { 1 } else { 5 }, dir }))
    }
}
