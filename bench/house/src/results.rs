//! What was found, as plain data: docs/performance/PART.json, of which the page and its pictures are made.

use serde::{Deserialize, Serialize};

use crate::comparison::Failure;
use crate::comparison::statistics::{confidence, extremes, median};

/// What a part of the house has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub cases: Vec<Case>,
    pub verdicts: Vec<Verdict>,
    pub pictures: Vec<Picture>,
}

/// A part's results, and what they were found by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The command that made them.
    pub command: String,
    pub machine: String,
    pub seconds: u64,
    #[serde(flatten)]
    pub results: Results,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub title: String,
    /// What all rows have in common.
    pub terms: String,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// One for each column; none where there is nothing to measure.
    pub cells: Vec<Option<Cell>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub value: Spread,
    /// To that of the row that all are compared with, of the same round each.
    pub ratio: Option<Spread>,
}

/// What a number was in all rounds that count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// Between what the median of all rounds that could be made lies, with 95 %.
    pub low: f64,
    pub high: f64,
}

/// What was promised, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub what: String,
    pub found: Spread,
    pub limit: f64,
}

/// Lines over numbers that stand at equal distances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// Its file's name, without the extension.
    pub name: String,
    pub title: String,
    /// Names of the places on the lower edge, and what they are.
    pub places: Vec<String>,
    pub across: String,
    /// What is drawn upwards, and whether by its logarithm.
    pub upwards: String,
    pub by_logarithm: bool,
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    /// One for each place; none where nothing was measured.
    pub values: Vec<Option<f64>>,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Spread {
        let (least, most) = extremes(values.clone());
        let (low, high) = confidence(values.clone());
        let digits = |value: f64| (value * 1e4).round() / 1e4;
        Spread {
            median: digits(median(values)),
            least: digits(least),
            most: digits(most),
            low: digits(low),
            high: digits(high),
        }
    }
}

impl Verdict {
    pub fn is_kept(&self) -> bool {
        self.found.median <= self.limit
    }
}

impl Results {
    pub fn add(&mut self, other: Results) {
        self.cases.extend(other.cases);
        self.verdicts.extend(other.verdicts);
        self.pictures.extend(other.pictures);
    }
}

/// What a row of numbers is told of: one of each round.
pub struct Series<'a> {
    pub name: &'a str,
    /// By column, and of that by round; empty where there is nothing to measure.
    pub columns: Vec<Vec<f64>>,
}

/// A table of rows, all compared with the one of this name.
pub fn case(title: String, terms: String, columns: &[&str], rows: &[Series<'_>], against: &str) -> Case {
    let reference = rows.iter().find(|row| row.name == against);
    let cell = |column: usize, row: &Series<'_>| {
        let values = row.columns.get(column).filter(|values| !values.is_empty())?;
        let theirs = reference.and_then(|theirs| theirs.columns.get(column));
        let theirs = theirs.filter(|theirs| theirs.len() == values.len() && row.name != against);
        let ratio =
            theirs.map(|theirs| Spread::of(values.iter().zip(theirs).map(|(ours, theirs)| ours / theirs)));
        Some(Cell { value: Spread::of(values.iter().copied()), ratio })
    };
    let row = |row: &Series<'_>| Row {
        name: row.name.to_owned(),
        cells: (0..columns.len()).map(|column| cell(column, row)).collect(),
    };
    let columns = columns.iter().map(|column| (*column).to_owned()).collect();
    Case { title, terms, columns, rows: rows.iter().map(row).collect() }
}

impl Case {
    pub fn cell(&self, row: &str, column: &str) -> Option<&Cell> {
        let column = self.columns.iter().position(|name| name == column)?;
        self.rows.iter().find(|found| found.name == row)?.cells[column].as_ref()
    }

    /// Holds a ratio against a limit.
    pub fn verdict(&self, row: &str, column: &str, limit: f64) -> Result<Verdict, Failure> {
        let ratio = self.cell(row, column).and_then(|cell| cell.ratio);
        let found = ratio.ok_or_else(|| format!("{}: no ratio of {row}, {column}", self.title))?;
        Ok(Verdict { what: format!("{}: {row}, ratio of {column}", self.title), found, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_two_runs_of_the_same_round() {
        let row = |name, values: &[f64]| Series { name, columns: vec![values.to_vec(), vec![]] };
        let rows = [row("ours", &[2.0, 30.0, 4.0]), row("theirs", &[1.0, 10.0, 4.0])];
        let case = case(String::new(), String::new(), &["ms", "none"], &rows, "theirs");
        let ours = case.cell("ours", "ms").unwrap();
        assert_eq!((ours.value.median, ours.value.least, ours.value.most), (4.0, 2.0, 30.0));
        assert_eq!(ours.ratio.unwrap().median, 2.0);
        assert!(case.cell("theirs", "ms").unwrap().ratio.is_none());
        assert!(case.cell("ours", "none").is_none());
        assert!(case.verdict("ours", "ms", 2.0).unwrap().is_kept());
        assert!(!case.verdict("ours", "ms", 1.9).unwrap().is_kept());
    }
}
