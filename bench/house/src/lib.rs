//! The bench house: one workload, and whoever dumps it and brings it back, in turn.
//!
//! `cargo xtask bench` runs it; docs/performance.md is made of what it finds. The parts are in modules of their names; what
//! they have in common is in [`comparison`], [`workload`] and [`running`].

pub mod comparison;
pub mod running;
pub mod workload;

pub mod results;

mod around;
mod dumps;
mod keeping;
mod peers;
mod presence;
mod restores;

pub mod page;
pub mod parts;
mod pictures;
