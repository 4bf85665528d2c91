//! What the comparisons with CRIU have in common: the scene that they are made in, how noise is kept out of them,
//! and what is made of the figures.
//!
//! Only the two runs of one pair are compared, since a shared machine changes its mind within minutes, and pairs
//! during which others kept the processors busy don't count. The median of the pairs' ratios is held against the
//! limits; pairs are made until it is known well enough to tell on which side of a limit it lies.

pub mod command;
pub mod entry;
pub mod memory;
pub mod noise;
pub mod options;
pub mod plan;
pub mod scene;
pub mod statistics;

/// Whatever keeps a comparison from being made.
pub type Failure = Box<dyn std::error::Error>;
