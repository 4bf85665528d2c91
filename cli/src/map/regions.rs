//! What is drawn as one bar: mappings that belong together.

use std::ops::Range;

use selfdump::inspect::{Mapping, MappingKind, Memory, Thread};

use crate::output;

/// Mappings of the same thing, one after the other.
pub struct Region {
    /// The name of its file, or its kind.
    pub name: String,
    /// Its addresses, without what lies between.
    pub parts: Vec<Range<u64>>,
    /// How many bytes it has.
    pub size: u64,
    /// How many of them the checkpoint holds.
    pub held: u64,
    /// How many are different from what they were at the checkpoint before.
    pub changed: u64,
    held_at: Vec<Range<u64>>,
    changed_at: Vec<Range<u64>>,
}

/// The regions of a process, by address. What may not be touched at all holds nothing, and is left out.
pub fn regions(
    memory: &Memory,
    threads: &[Thread],
    held: &[Range<u64>],
    changed: &[Range<u64>],
) -> Vec<Region> {
    let mut regions: Vec<(&Mapping, Region)> = Vec::new();
    for mapping in memory.mappings.iter().filter(|mapping| is_of_the_program(mapping)) {
        let goes_on = regions.last().is_some_and(|(last, _)| belongs(last, mapping));
        if !goes_on {
            regions.push((mapping, Region::new(mapping)));
        }
        if let Some((last, region)) = regions.last_mut() {
            region.parts.push(mapping.start..mapping.end);
            *last = mapping;
        }
    }
    let mut regions: Vec<Region> = regions.into_iter().map(|(_, region)| region).collect();
    regions.iter_mut().for_each(|region| region.measure(held, changed));
    threads.iter().skip(1).for_each(|thread| name_stack(&mut regions, thread));
    regions
}

/// The vsyscall page is the kernel's, and no process's memory.
fn is_of_the_program(mapping: &Mapping) -> bool {
    mapping.protection != 0 && mapping.kind != MappingKind::Vsyscall
}

/// The main thread's stack is known as such; those of others are where their stack pointers lead to.
fn name_stack(regions: &mut [Region], thread: &Thread) {
    let pointer = thread.registers.stack_pointer();
    let is_its_own = |region: &&mut Region| region.parts.iter().any(|part| part.contains(&pointer));
    if let Some(region) = regions.iter_mut().find(is_its_own) {
        region.name = format!("stack of {}", thread.name);
    }
}

/// Parts of a file belong together wherever they are, other memory where it has no gap.
fn belongs(last: &Mapping, next: &Mapping) -> bool {
    last.kind == next.kind && last.path == next.path && (last.path.is_some() || last.end == next.start)
}

impl Region {
    fn new(mapping: &Mapping) -> Region {
        let name = mapping.path.as_ref().and_then(|path| path.file_name());
        Region {
            name: name
                .map_or_else(|| output::name(&mapping.kind), |name| name.to_string_lossy().into_owned()),
            parts: Vec::new(),
            size: 0,
            held: 0,
            changed: 0,
            held_at: Vec::new(),
            changed_at: Vec::new(),
        }
    }

    fn measure(&mut self, held: &[Range<u64>], changed: &[Range<u64>]) {
        self.size = length(&self.parts);
        self.held_at = self.within(held);
        self.changed_at = self.within(changed);
        self.held = length(&self.held_at);
        self.changed = length(&self.changed_at);
    }

    /// Ranges of addresses, sorted, as ranges of the bytes of this region.
    fn within(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let (mut begin, mut found) = (0, Vec::new());
        for part in &self.parts {
            let first = ranges.partition_point(|range| range.end <= part.start);
            for range in ranges[first..].iter().take_while(|range| range.start < part.end) {
                let [from, to] = [range.start.max(part.start), range.end.min(part.end)];
                found.push(begin + from - part.start..begin + to - part.start);
            }
            begin += part.end - part.start;
        }
        found
    }

    /// The shares that are held and that have changed of each of so many equal slices.
    pub fn slices(&self, count: u32) -> Vec<(f64, f64)> {
        let edge = |slice: u32| u64::from(slice) as f64 * self.size as f64 / f64::from(count);
        let slice = |number: u32| {
            let (from, to) = (edge(number), edge(number + 1));
            (share(&self.held_at, from, to), share(&self.changed_at, from, to))
        };
        (0..count).map(slice).collect()
    }
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// How much of a slice ranges cover.
fn share(ranges: &[Range<u64>], from: f64, to: f64) -> f64 {
    let first = ranges.partition_point(|range| range.end as f64 <= from);
    let near = ranges[first..].iter().take_while(|range| (range.start as f64) < to);
    near.map(|range| (range.end as f64).min(to) - (range.start as f64).max(from)).sum::<f64>() / (to - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_the_share_of_it_that_is_covered() {
        let region = Region {
            name: "x".to_owned(),
            parts: vec![0x1000..0x3000, 0x9000..0xb000],
            size: 0x4000,
            held: 0,
            changed: 0,
            held_at: vec![0x0000..0x1000, 0x2000..0x4000],
            changed_at: vec![0x3800..0x3c00, 0x3c00..0x4000],
        };
        assert_eq!(
            region.within(&[0x2000..0x9800, 0xa000..0xa001]),
            [0x1000..0x2000, 0x2000..0x2800, 0x3000..0x3001]
        );
        assert_eq!(region.slices(4), [(1.0, 0.0), (0.0, 0.0), (1.0, 0.0), (1.0, 0.5)]);
        assert_eq!(region.slices(2), [(0.5, 0.0), (1.0, 0.25)]);
    }
}
