//! What pictures have in common: colours, letters, and where they go.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Where is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
pub const PALE: RGBColor = RGBColor(0x6b, 0x76, 0x84);
pub const LINE: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
pub const GROUND: RGBColor = RGBColor(0xe9, 0xec, 0xf0);
pub const BLUE: RGBColor = RGBColor(0x3f, 0x7c, 0xbf);
pub const ORANGE: RGBColor = RGBColor(0xe6, 0x6a, 0x2c);

/// Which point of a text is put where it is drawn.
#[derive(Clone, Copy)]
pub enum Side {
    Left,
    Right,
}

/// Draws a picture, and writes it to a file, or to standard output where that is `-`.
pub fn draw(output: &Path, size: (u32, u32), picture: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<()> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE)?;
        picture(&area)?;
        area.present()?;
    }
    match output == Path::new("-") {
        true => print!("{text}"),
        false => {
            std::fs::write(output, text).with_context(|| format!("can't write {}", output.display()))?;
            println!("{}", output.display());
        }
    }
    Ok(())
}

/// Writes a line of text beside a point, on its level.
pub fn write(area: &Area<'_>, text: &str, at: (i32, i32), side: Side, style: (u32, RGBColor)) -> Result<()> {
    written(area, text, at, side, style, "sans-serif")
}

/// The same in letters of one width.
pub fn write_even(area: &Area<'_>, text: &str, at: (i32, i32), style: (u32, RGBColor)) -> Result<()> {
    written(area, text, at, Side::Left, style, "monospace")
}

fn written(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    side: Side,
    (size, colour): (u32, RGBColor),
    family: &str,
) -> Result<()> {
    let horizontal = match side {
        Side::Left => HPos::Left,
        Side::Right => HPos::Right,
    };
    let style = (family, size).into_text_style(area).color(&colour).pos(Pos::new(horizontal, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

/// Fills a rectangle, from one corner to the other.
pub fn fill(area: &Area<'_>, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<()> {
    area.draw(&Rectangle::new([from, to], colour.filled()))?;
    Ok(())
}
