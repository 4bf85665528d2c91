//! Three ways to find out which pages of a checkpoint are as they were at the one before: `cargo bench --bench unchanged`.
//!
//! Two files of which one page in a hundred differs are in the page cache. They are compared byte by byte, which is what
//! selfdump does; or the later one alone is hashed, page by page or by 64 KiB, and compared with hashes that were kept.
//! Beside the times it says how much each would have to store.

// criterion_group! makes a public function and writes no documentation for it.
#![allow(missing_docs)]

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use xxhash_rust::xxh3::xxh3_128;

const PAGE: usize = 4 << 10;
const RUN: usize = 64 << 10;
const SIZE: usize = 256 << 20;

/// What is read at once.
const BLOCK: usize = 1 << 20;

/// One page in so many differs, wherever chance has it.
const ONE_IN: u64 = 100;

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The earlier file, and the later.
fn files() -> io::Result<[File; 2]> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let [mut earlier, mut later] = [tempfile::tempfile()?, tempfile::tempfile()?];
    let mut page = vec![0; PAGE];
    for _ in 0..SIZE / PAGE {
        page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.next().to_ne_bytes()));
        earlier.write_all(&page)?;
        page[0] ^= u8::from(random.next() % ONE_IN == 0);
        later.write_all(&page)?;
    }
    Ok([earlier, later])
}

/// Calls `with` for each block of the later file.
fn each_block(later: &File, mut with: impl FnMut(usize, &[u8])) {
    let mut block = vec![0; BLOCK];
    for at in (0..SIZE).step_by(BLOCK) {
        later.read_exact_at(&mut block, at as u64).expect("a block");
        with(at, &block);
    }
}

/// How many bytes are in pages that differ.
fn by_comparing(earlier: &File, later: &File) -> usize {
    let (mut other, mut differ) = (vec![0; BLOCK], 0);
    each_block(later, |at, block| {
        earlier.read_exact_at(&mut other, at as u64).expect("a block");
        let pages = block.chunks(PAGE).zip(other.chunks(PAGE));
        differ += pages.filter(|(one, another)| one != another).count() * PAGE;
    });
    differ
}

fn hashes(file: &File, size: usize) -> Vec<u128> {
    let mut all = Vec::with_capacity(SIZE / size);
    each_block(file, |_, block| all.extend(block.chunks(size).map(xxh3_128)));
    all
}

/// How many bytes are in pieces of this size whose hashes differ.
fn by_hashing(known: &[u128], later: &File, size: usize) -> usize {
    let now = hashes(later, size);
    known.iter().zip(&now).filter(|(one, another)| one != another).count() * size
}

fn measure(criterion: &mut Criterion) {
    let [earlier, later] = files().expect("two files");
    let [of_pages, of_runs] = [PAGE, RUN].map(|size| hashes(&earlier, size));
    for (way, differ, kept) in [
        ("comparing", by_comparing(&earlier, &later), 0),
        ("hashing pages", by_hashing(&of_pages, &later, PAGE), of_pages.len() * 16),
        ("hashing 64 KiB", by_hashing(&of_runs, &later, RUN), of_runs.len() * 16),
    ] {
        println!("{way}: {} KiB to store of {} KiB, {} KiB of hashes", differ >> 10, SIZE >> 10, kept >> 10);
    }
    let mut group = criterion.benchmark_group("256 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10);
    group.bench_function("comparing", |bencher| bencher.iter(|| black_box(by_comparing(&earlier, &later))));
    group.bench_function("hashing pages", |bencher| {
        bencher.iter(|| black_box(by_hashing(&of_pages, &later, PAGE)));
    });
    group.bench_function("hashing 64 KiB", |bencher| {
        bencher.iter(|| black_box(by_hashing(&of_runs, &later, RUN)));
    });
    group.finish();
}

criterion_group!(benches, measure);
criterion_main!(benches);
