//! Lines over places at equal distances, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::comparison::Failure;
use crate::results::{Line, Picture};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (820, 420);

/// Where the lines are, in the picture.
const LEFT: i32 = 70;
const RIGHT: i32 = 590;
const TOP: i32 = 50;
const BOTTOM: i32 = 365;

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const PALE: RGBColor = RGBColor(0x6b, 0x76, 0x84);
const RULE: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);

/// One for each line, in its order; those for the blind to some colours (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x22, 0x2b, 0x36),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

/// The picture's text.
pub fn draw(picture: &Picture) -> Result<String, Failure> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let scale = Scale::of(picture);
        write(&area, &picture.title, (LEFT, 18), HPos::Left, (17, INK))?;
        scale.rules(&area)?;
        edge(&area, picture)?;
        for (number, line) in picture.lines.iter().enumerate() {
            trace(&area, line, picture.places.len(), &scale, COLOURS[number % COLOURS.len()])?;
        }
        names(&area, picture, &scale)?;
        area.present()?;
    }
    Ok(text)
}

/// How high a value stands.
struct Scale {
    by_logarithm: bool,
    least: f64,
    most: f64,
    rules: Vec<f64>,
}

impl Scale {
    fn of(picture: &Picture) -> Scale {
        let values = || picture.lines.iter().flat_map(|line| line.values.iter().flatten().copied());
        let (least, most) =
            values().fold((f64::INFINITY, 0.0), |(low, high), value| (value.min(low), value.max(high)));
        let rules = if picture.by_logarithm { decades(least, most) } else { steps(most) };
        let (least, most) = (*rules.first().unwrap_or(&0.0), *rules.last().unwrap_or(&1.0));
        Scale { by_logarithm: picture.by_logarithm, least, most, rules }
    }

    fn height(&self, value: f64) -> i32 {
        let part = match self.by_logarithm {
            true => (value / self.least).ln() / (self.most / self.least).ln(),
            false => value / self.most,
        };
        BOTTOM - (part * f64::from(BOTTOM - TOP)).round() as i32
    }

    fn rules(&self, area: &Area<'_>) -> Result<(), Failure> {
        for &rule in &self.rules {
            let height = self.height(rule);
            area.draw(&PathElement::new([(LEFT, height), (RIGHT, height)], RULE))?;
            write(area, &rule.to_string(), (LEFT - 8, height), HPos::Right, (12, PALE))?;
        }
        Ok(())
    }
}

/// 1, 2 and 5 of each decade, from below the least to above the most.
fn decades(least: f64, most: f64) -> Vec<f64> {
    let all = (-2..7).flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade)));
    let all: Vec<f64> = all.map(|rule| (rule * 100.0).round() / 100.0).collect();
    let from = all.iter().rposition(|rule| *rule <= least).unwrap_or(0);
    let to = all.iter().position(|rule| *rule >= most).unwrap_or(all.len() - 1).max(from + 1);
    all[from..=to].to_vec()
}

/// From nothing to above the most, in some five even steps.
fn steps(most: f64) -> Vec<f64> {
    let rough = most / 5.0;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(decade * 10.0);
    (0..=(most / step).ceil() as usize).map(|number| number as f64 * step).collect()
}

fn across(number: usize, count: usize) -> i32 {
    let room = f64::from(RIGHT - LEFT);
    LEFT + ((number as f64 + 0.5) * room / count as f64).round() as i32
}

/// The places on the lower edge.
fn edge(area: &Area<'_>, picture: &Picture) -> Result<(), Failure> {
    for (number, place) in picture.places.iter().enumerate() {
        write(area, place, (across(number, picture.places.len()), BOTTOM + 16), HPos::Center, (12, PALE))?;
    }
    write(area, &picture.across, ((LEFT + RIGHT) / 2, BOTTOM + 38), HPos::Center, (13, INK))?;
    write(area, &picture.upwards, (LEFT - 50, TOP - 16), HPos::Left, (13, INK))
}

fn trace(
    area: &Area<'_>,
    line: &Line,
    places: usize,
    scale: &Scale,
    colour: RGBColor,
) -> Result<(), Failure> {
    let points = line.values.iter().enumerate();
    let points = points.filter_map(|(number, value)| Some((across(number, places), scale.height((*value)?))));
    let points: Vec<(i32, i32)> = points.collect();
    area.draw(&PathElement::new(points.clone(), colour.stroke_width(2)))?;
    points.into_iter().try_for_each(|point| Ok(area.draw(&Circle::new(point, 3, colour.filled()))?))
}

/// Each line's name beside its end, and none upon another.
fn names(area: &Area<'_>, picture: &Picture, scale: &Scale) -> Result<(), Failure> {
    const APART: i32 = 17;
    let ends = picture.lines.iter().enumerate().filter_map(|(number, line)| {
        let end = line.values.iter().rev().flatten().next()?;
        Some((scale.height(*end), number, line))
    });
    let mut ends: Vec<_> = ends.collect();
    ends.sort_by_key(|(height, number, _)| (*height, *number));
    let mut free = TOP;
    for (height, number, line) in ends {
        let height = height.max(free);
        free = height + APART;
        let colour = COLOURS[number % COLOURS.len()];
        area.draw(&Circle::new((RIGHT + 12, height), 4, colour.filled()))?;
        write(area, &line.name, (RIGHT + 24, height), HPos::Left, (13, colour))?;
    }
    Ok(())
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    horizontal: HPos,
    (size, colour): (u32, RGBColor),
) -> Result<(), Failure> {
    let style =
        ("sans-serif", size).into_text_style(area).color(&colour).pos(Pos::new(horizontal, VPos::Center));
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_lie_between_the_rules() {
        assert_eq!(decades(12.0, 480.0), [10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!(decades(5.0, 5.0), [5.0, 10.0]);
        assert_eq!(steps(20480.0), [0.0, 5000.0, 10000.0, 15000.0, 20000.0, 25000.0]);
        assert_eq!(steps(10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    }
}
