//! The generated parts of docs/performance.md: each stands between a line that says what has made it and one that ends it,
//! and is remade from the results. All else on the page is somebody's own words.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::comparison::Failure;
use crate::parts::Part;
use crate::pictures;
use crate::results::{Case, Cell, Found, Spread, Verdict};

/// What begins a part: this, the part's name, and what ends the comment.
const BEGIN: &str = "<!-- made by: cargo xtask bench --only ";
const END: &str = "<!-- end -->";

/// Where the page, its results and its pictures are.
pub struct Place {
    pub page: PathBuf,
    /// The folder of the results and the pictures, beside the page.
    pub folder: PathBuf,
}

impl Place {
    pub fn of(documents: &Path) -> Place {
        Place { page: documents.join("performance.md"), folder: documents.join("performance") }
    }

    fn results(&self, part: Part) -> PathBuf {
        self.folder.join(part.name()).with_extension("json")
    }

    /// Files what a part has found.
    pub fn file(&self, part: Part, found: &Found) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(std::fs::write(self.results(part), serde_json::to_string_pretty(found)? + "\n")?)
    }

    fn found(&self, part: Part) -> Result<Option<Found>, Failure> {
        let path = self.results(part);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path)?;
        Ok(Some(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?))
    }

    /// Every file that is made of the results, with what has to stand in it.
    fn made(&self) -> Result<Vec<(PathBuf, String)>, Failure> {
        let mut files = Vec::new();
        let mut page = std::fs::read_to_string(&self.page)?;
        for part in Part::ALL {
            let Some(found) = self.found(part)? else { continue };
            page = remade(&page, part, &text(&found)?)?;
            for picture in &found.results.pictures {
                files.push((self.folder.join(&picture.name).with_extension("svg"), pictures::draw(picture)?));
            }
        }
        files.push((self.page.clone(), page));
        Ok(files)
    }

    /// Remakes the page and the pictures.
    pub fn remake(&self) -> Result<(), Failure> {
        self.made()?.into_iter().try_for_each(|(path, text)| Ok(std::fs::write(path, text)?))
    }

    /// Fails where something isn't what the results say.
    pub fn check(&self) -> Result<(), Failure> {
        for (path, text) in self.made()? {
            if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
                let what = "is not what its results say: run `cargo xtask bench --page`";
                return Err(format!("{} {what}", path.display()).into());
            }
        }
        Ok(())
    }
}

/// The page with a part of it replaced.
fn remade(page: &str, part: Part, text: &str) -> Result<String, Failure> {
    let begin = format!("{BEGIN}{} -->\n", part.name());
    let missing = || format!("the page has no part {begin:?}");
    let (before, rest) = page.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{begin}\n{text}{END}{after}"))
}

fn text(found: &Found) -> Result<String, Failure> {
    let mut text = format!("```console\n$ {}\n```\n\n", found.command);
    writeln!(text, "{}; it took {} s.\n", found.machine, found.seconds)?;
    for verdict in &found.results.verdicts {
        writeln!(text, "- {}", self::verdict(verdict))?;
    }
    if !found.results.verdicts.is_empty() {
        text.push('\n');
    }
    for picture in &found.results.pictures {
        writeln!(text, "![{}](performance/{}.svg)\n", picture.title, picture.name)?;
    }
    for case in &found.results.cases {
        table(&mut text, case)?;
    }
    Ok(text)
}

fn table(text: &mut String, case: &Case) -> Result<(), Failure> {
    writeln!(text, "**{}** ({})\n", case.title, case.terms)?;
    // What is compared with nothing in any row has no column for that.
    let has_ratio =
        |column: usize| case.rows.iter().flat_map(|row| &row.cells[column]).any(|cell| cell.ratio.is_some());
    let (mut head, mut rule) = ("| |".to_owned(), "|---|".to_owned());
    for (number, column) in case.columns.iter().enumerate() {
        let ratio = has_ratio(number);
        head += &format!(" {column} |{}", if ratio { " ratio |" } else { "" });
        rule += if ratio { "---|---|" } else { "---|" };
    }
    writeln!(text, "{head}\n{rule}")?;
    for row in &case.rows {
        write!(text, "| {} |", row.name)?;
        for (number, cell) in row.cells.iter().enumerate() {
            write!(text, " {} |", cell.as_ref().map_or(String::new(), |cell| spread(&cell.value)))?;
            if has_ratio(number) {
                write!(text, " {} |", ratio(cell.as_ref()))?;
            }
        }
        text.push('\n');
    }
    text.push('\n');
    Ok(())
}

/// The median, and from what to what it goes.
fn spread(spread: &Spread) -> String {
    let digits = if spread.median.abs() < 100.0 { 2 } else { 0 };
    match spread.least == spread.most {
        true => format!("{:.digits$}", spread.median),
        false => {
            format!("{:.digits$} ({:.digits$} to {:.digits$})", spread.median, spread.least, spread.most)
        }
    }
}

fn ratio(cell: Option<&Cell>) -> String {
    let ratio = cell.and_then(|cell| cell.ratio);
    ratio.map_or(String::new(), |ratio| {
        format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.least, ratio.most)
    })
}

/// A sentence about a limit.
pub fn verdict(verdict: &Verdict) -> String {
    let Spread { median, low, high, .. } = verdict.found;
    let kept = if verdict.is_kept() { "kept" } else { "**not kept**" };
    format!("{}: {median:.2} (95 %: {low:.2} to {high:.2}), at most {}: {kept}", verdict.what, verdict.limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_remade() {
        let begin = "<!-- made by: cargo xtask bench --only dumps -->\n";
        let page = format!("words\n{begin}old\n{END}\nmore words\n");
        let now = remade(&page, Part::Dumps, "new\n").unwrap();
        assert_eq!(now, format!("words\n{begin}\nnew\n{END}\nmore words\n"));
        assert_eq!(remade(&now, Part::Dumps, "new\n").unwrap(), now);
        assert!(remade(&page, Part::Keeping, "new\n").is_err());
    }
}
