//! The picture of a process's memory: a bar for each region.

use anyhow::Result;
use selfdump::Bytes;

use super::regions::Region;
use crate::drawing::{self, Area, BLUE, GROUND, INK, LINE, ORANGE, PALE, Side};

/// How many regions have a bar of their own: those that hold most.
const MOST: usize = 60;

const WIDTH: i32 = 1000;
const MARGIN: i32 = 24;
const ADDRESS: i32 = 190;
const BAR: i32 = 304;
const LONGEST: i32 = 400;
/// Where the columns of sizes end.
const COLUMNS: [i32; 3] = [792, 884, WIDTH - MARGIN];
const TOP: i32 = 128;
const ROW: i32 = 22;
const BAR_HEIGHT: i32 = 14;

/// What stands above the bars.
pub struct Header {
    pub title: String,
    pub subtitle: String,
    /// The checkpoint that changes are counted from, if there is one.
    pub compared: Option<String>,
}

pub struct Picture {
    header: Header,
    regions: Vec<Region>,
    /// How many have no bar, their size, and what of it was dumped.
    others: (usize, u64, u64),
}

impl Picture {
    pub fn of(header: Header, mut regions: Vec<Region>) -> Picture {
        let mut rank: Vec<(u64, u64)> = regions.iter().map(|region| (region.held, region.size)).collect();
        rank.sort_unstable_by(|one, other| other.cmp(one));
        let least = rank.get(MOST).copied();
        let (mut kept, mut others) = (Vec::new(), (0, 0, 0));
        for region in regions.drain(..) {
            match least.is_some_and(|least| (region.held, region.size) <= least) {
                true => others = (others.0 + 1, others.1 + region.size, others.2 + region.held),
                false => kept.push(region),
            }
        }
        Picture { header, regions: kept, others }
    }

    pub fn size(&self) -> (u32, u32) {
        let height = TOP + ROW * self.regions.len() as i32 + 72;
        (WIDTH as u32, height as u32)
    }

    pub fn draw(&self, area: &Area<'_>) -> Result<()> {
        drawing::write(area, &self.header.title, (MARGIN, 32), Side::Left, (20, INK))?;
        drawing::write(area, &self.header.subtitle, (MARGIN, 58), Side::Left, (13, PALE))?;
        self.legend(area)?;
        self.columns(area)?;
        let largest = self.regions.iter().map(|region| region.size).max().unwrap_or(1);
        for (row, region) in (0..).zip(&self.regions) {
            self.region(area, region, TOP + ROW * row + ROW / 2, largest)?;
        }
        self.notes(area)
    }

    fn legend(&self, area: &Area<'_>) -> Result<()> {
        let mut entries =
            vec![(GROUND, "mapped, not in the checkpoint".to_owned(), 190), (BLUE, "dumped".to_owned(), 66)];
        if let Some(compared) = &self.header.compared {
            entries.push((ORANGE, format!("dumped, and changed since {compared}"), 0));
        }
        let mut left = MARGIN;
        for (colour, text, width) in entries {
            drawing::fill(area, (left, 76), (left + 14, 90), colour)?;
            drawing::write(area, &text, (left + 20, 83), Side::Left, (12, INK))?;
            left += width + 14;
        }
        Ok(())
    }

    fn columns(&self, area: &Area<'_>) -> Result<()> {
        let level = TOP - 12;
        for (text, left) in [("region", MARGIN), ("address", ADDRESS), ("from its beginning to its end", BAR)]
        {
            drawing::write(area, text, (left, level), Side::Left, (11, PALE))?;
        }
        for (text, right) in ["size", "dumped", "changed"].into_iter().zip(COLUMNS).take(self.sizes()) {
            drawing::write(area, text, (right, level), Side::Right, (11, PALE))?;
        }
        drawing::fill(area, (MARGIN, TOP - 2), (WIDTH - MARGIN, TOP - 1), LINE)
    }

    /// How many columns of sizes there are: without a checkpoint before, nothing has changed.
    fn sizes(&self) -> usize {
        if self.header.compared.is_some() { 3 } else { 2 }
    }

    fn region(&self, area: &Area<'_>, region: &Region, level: i32, largest: u64) -> Result<()> {
        drawing::write(area, &shortened(&region.name), (MARGIN, level), Side::Left, (12, INK))?;
        let start = region.parts.first().map_or(0, |part| part.start);
        drawing::write_even(area, &format!("{start:012x}"), (ADDRESS, level), (11, PALE))?;
        bar(area, region, level, largest)?;
        let sizes = [region.size, region.held, region.changed];
        for (right, bytes) in COLUMNS.into_iter().zip(sizes).take(self.sizes()) {
            let (text, colour) = match bytes {
                0 => ("–".to_owned(), PALE),
                bytes => (Bytes(bytes).to_string(), INK),
            };
            drawing::write(area, &text, (right, level), Side::Right, (12, colour))?;
        }
        Ok(())
    }

    fn notes(&self, area: &Area<'_>) -> Result<()> {
        let below = TOP + ROW * self.regions.len() as i32 + 18;
        let scale = "The length of a bar grows with the logarithm of the region's size; its height shows how much of \
                     each slice was dumped.";
        drawing::write(area, scale, (MARGIN, below), Side::Left, (11, PALE))?;
        let (count, size, held) = self.others;
        let others =
            format!("Not drawn: {count} smaller regions, {}, {} of it dumped.", Bytes(size), Bytes(held));
        let reserved = "Address space that is only reserved is left out.";
        let second = if count > 0 { format!("{others} {reserved}") } else { reserved.to_owned() };
        drawing::write(area, &second, (MARGIN, below + 18), Side::Left, (11, PALE))
    }
}

/// The bar of a region: what is dumped of each slice of it, and what has changed.
fn bar(area: &Area<'_>, region: &Region, level: i32, largest: u64) -> Result<()> {
    let [top, bottom] = [level - BAR_HEIGHT / 2, level + BAR_HEIGHT / 2];
    let length = length(region.size, largest);
    drawing::fill(area, (BAR, top), (BAR + length, bottom), GROUND)?;
    let heights: Vec<[i32; 2]> = region
        .slices(length as u32)
        .into_iter()
        .map(|(held, changed)| [height(held), height(changed)])
        .collect();
    for (which, colour) in [(0, BLUE), (1, ORANGE)] {
        let mut left = BAR;
        for same in heights.chunk_by(|one, next| one[which] == next[which]) {
            let right = left + same.len() as i32;
            if same[0][which] > 0 {
                drawing::fill(area, (left, bottom - same[0][which]), (right, bottom), colour)?;
            }
            left = right;
        }
    }
    Ok(())
}

/// A page is the shortest.
fn length(size: u64, largest: u64) -> i32 {
    const SHORTEST: f64 = 16.0;
    let pages = |bytes: u64| (bytes as f64 / 4096.0).max(1.0).log2();
    let share = if largest > 4096 { pages(size) / pages(largest) } else { 1.0 };
    (SHORTEST + share * (f64::from(LONGEST) - SHORTEST)).round() as i32
}

/// What there is of something is seen, however little it is.
fn height(share: f64) -> i32 {
    if share > 0.0 { (share * f64::from(BAR_HEIGHT)).round().max(2.0) as i32 } else { 0 }
}

fn shortened(name: &str) -> String {
    const LETTERS: usize = 24;
    match name.chars().count() > LETTERS {
        true => name.chars().take(LETTERS - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}
