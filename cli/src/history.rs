//! `selfdump history`.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use plotters::prelude::*;
use selfdump::{Manifest, restore};

use crate::drawing::{self, Area, BLUE, INK, LINE, ORANGE, PALE, Side};
use crate::{StoreArgs, output};

/// Draw how the checkpoints of a program went over time: their size, the pauses, and how long they took
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program's NAME, or the FOLDER of a store or an instance
    #[arg(value_name = "NAME | FOLDER")]
    target: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// The SVG file to write, or `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

const WIDTH: i32 = 960;
const MARGIN: i32 = 24;
const TOP: i32 = 112;
const PANEL: i32 = 210;

/// A checkpoint as it is drawn.
struct Point {
    taken: SystemTime,
    size: f64,
    pause: Duration,
    duration: Duration,
    life: (String, u64),
    forensic: bool,
}

impl Point {
    fn of(manifest: &Manifest) -> Point {
        let instance = manifest.id.rsplit_once('/').map_or("", |(instance, _)| instance).to_owned();
        Point {
            taken: manifest.taken,
            size: manifest.size().0 as f64,
            pause: manifest.stats.frozen,
            duration: manifest.answered.duration_since(manifest.taken).unwrap_or_default(),
            life: (instance, manifest.generation()),
            forensic: manifest.forensic,
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let (store, _) = restore::from_environment(args.store.dir.as_deref())?;
    let entries = restore::find(&store, Some(&args.target))?;
    let mut points: Vec<Point> =
        entries.iter().filter_map(|entry| entry.manifest.as_ref().ok()).map(Point::of).collect();
    points.reverse();
    let unreadable = entries.len() - points.len();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        bail!("{} holds no checkpoint whose manifest can be read", args.target.display());
    };
    let history = History {
        title: format!("{}: {}", args.target.display(), counted(points.len(), unreadable)),
        axis: Axis::of(first.taken, last.taken),
        points,
    };
    drawing::draw(&args.output, (WIDTH as u32, (TOP + 3 * PANEL + 16) as u32), |area| history.draw(area))
}

fn counted(count: usize, unreadable: usize) -> String {
    let noun = if count == 1 { "checkpoint" } else { "checkpoints" };
    let without =
        if unreadable > 0 { format!(", and {unreadable} that can't be read") } else { String::new() };
    format!("{count} {noun}{without}")
}

struct History {
    title: String,
    axis: Axis,
    points: Vec<Point>,
}

impl History {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        drawing::write(area, &self.title, (MARGIN, 32), Side::Left, (20, INK))?;
        drawing::write(area, &self.axis.described(), (MARGIN, 58), Side::Left, (13, PALE))?;
        self.legend(area)?;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        self.panel(area, 0, "size", &SIZES, &|point| point.size)?;
        self.panel(area, 1, "pause: how long the program stood still", &TIMES, &|point| millis(point.pause))?;
        self.panel(area, 2, "duration: until CRIU had answered", &TIMES, &|point| millis(point.duration))
    }

    fn legend(&self, area: &Area<'_>) -> Result<()> {
        let entries = [(BLUE, "a checkpoint", 104), (ORANGE, "a forensic one", 116)];
        let has_forensic = self.points.iter().any(|point| point.forensic);
        let mut left = MARGIN + 5;
        for (colour, text, width) in entries.into_iter().take(if has_forensic { 2 } else { 1 }) {
            area.draw(&Circle::new((left, 84), 4, colour.filled()))?;
            drawing::write(area, text, (left + 12, 84), Side::Left, (12, INK))?;
            left += width;
        }
        drawing::fill(area, (left, 76), (left + 1, 92), PALE)?;
        drawing::write(
            area,
            "the first of a life: started, or restored",
            (left + 9, 84),
            Side::Left,
            (12, INK),
        )
    }

    /// One quantity over time.
    fn panel(
        &self,
        area: &Area<'_>,
        number: i32,
        title: &str,
        units: &[(f64, &str)],
        quantity: &dyn Fn(&Point) -> f64,
    ) -> Result<()> {
        let top = TOP + number * PANEL;
        let largest = self.points.iter().map(quantity).fold(0.0, f64::max);
        let (factor, unit) = unit(units, largest);
        drawing::write(area, &format!("{title} ({unit})"), (MARGIN, top + 8), Side::Left, (13, INK))?;
        let panel = area.clone().shrink((MARGIN, top + 18), (WIDTH - 2 * MARGIN, PANEL - 26));
        let highest = if largest > 0.0 { largest / factor * 1.15 } else { 1.0 };
        let mut chart = ChartBuilder::on(&panel)
            .x_label_area_size(30)
            .y_label_area_size(56)
            .build_cartesian_2d(self.axis.range.clone(), 0.0..highest)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(PALE)
            .label_style(("sans-serif", 11).into_font().color(&PALE))
            .y_labels(5)
            .x_labels(8)
            .y_label_formatter(&|value| number_of(*value))
            .x_label_formatter(&|value| number_of(*value))
            .draw()?;
        let place = |point: &Point| (self.axis.at(point.taken), quantity(point) / factor);
        for life in self.points.chunk_by(|one, next| one.life == next.life) {
            let begins = self.axis.at(life[0].taken);
            chart.draw_series([PathElement::new([(begins, 0.0), (begins, highest)], PALE.mix(0.6))])?;
            chart.draw_series([PathElement::new(
                life.iter().map(place).collect::<Vec<_>>(),
                BLUE.stroke_width(2),
            )])?;
        }
        chart.draw_series(self.points.iter().map(|point| {
            let colour = if point.forensic { ORANGE } else { BLUE };
            Circle::new(place(point), 4, colour.filled())
        }))?;
        Ok(())
    }
}

const SIZES: [(f64, &str); 4] =
    [(1.0, "bytes"), (1024.0, "KiB"), (1_048_576.0, "MiB"), (1_073_741_824.0, "GiB")];
const TIMES: [(f64, &str); 2] = [(1.0, "ms"), (1e3, "s")];
const SPANS: [(f64, &str); 5] =
    [(1e-3, "milliseconds"), (1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days")];

/// The largest unit of which there are at least two.
fn unit<'a>(units: &[(f64, &'a str)], largest: f64) -> (f64, &'a str) {
    let fitting = units.iter().rev().find(|(factor, _)| largest >= 2.0 * factor);
    *fitting.unwrap_or(&units[0])
}

fn number_of(value: f64) -> String {
    if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// The time, from the first checkpoint on.
struct Axis {
    begin: SystemTime,
    span: Duration,
    factor: f64,
    unit: &'static str,
    range: Range<f64>,
}

impl Axis {
    fn of(begin: SystemTime, end: SystemTime) -> Axis {
        let span = end.duration_since(begin).unwrap_or_default();
        let (factor, unit) = unit(&SPANS, span.as_secs_f64());
        // One checkpoint alone stands in the middle.
        let length = if span.is_zero() { 1.0 } else { span.as_secs_f64() / factor };
        Axis { begin, span, factor, unit, range: -0.03 * length..1.03 * length }
    }

    fn at(&self, time: SystemTime) -> f64 {
        time.duration_since(self.begin).unwrap_or_default().as_secs_f64() / self.factor
    }

    fn described(&self) -> String {
        let begin = humantime::format_rfc3339_seconds(self.begin).to_string();
        let begin = begin.replace('T', " ").replace('Z', " UTC");
        format!("{} since {begin}  ·  {} in all", self.unit, output::seconds(self.span))
    }
}
