//! Owns the store's folder, and knows nothing of who fills it.
//!
//! - [`layout`]: every path and file name of it, in one place.
//! - [`life`]: who writes: a run of a program between two restores, and whether it is over.
//! - `entrance`: who can have written what lies in it.
//! - [`draft`]: a checkpoint that is being written, and the rename that makes it one.
//! - `copies`: the part of it in which copies of files are made.
//! - `encrypted`: the part of it in which all is encrypted, and reading what was.
//! - `compressed`: the part of it in which pages are compressed, and reading what was.
//! - `opened`: a checkpoint with its contents in reach, however they are stored.
//! - `ahead`: the part of it in which memory is written ahead of the images.
//! - `staged`: the part of it in which all is written in memory first.
//! - [`staging`]: folders in memory for either, and for what can be read of what is encrypted.
//! - `chain`: the part of it that is unchanged since earlier checkpoints, and the same files as theirs.
//! - [`manifest`]: what a checkpoint says of itself, with a checksum for every file.
//! - `head`: as much of that as a program reads.
//! - [`retention`]: which checkpoints go.
//! - [`catalogue`]: which checkpoints there are, for those who look from outside.
//! - [`listing`]: the same at a glance, for thousands of them.
//! - [`prune`]: deleting what somebody wants to be rid of.
//! - `room`: how much several take on the disk together.
//! - [`status`]: what came of the last attempt.
//! - [`filling`]: whether the memory of a program that came back is complete.
//! - [`handover`]: what a restorer has for the program that it brings back.
//! - `work`: a folder for what is needed only for a while.
//! - [`runtime`]: the folder for what concerns processes that run now.
//!
//! The format is written down in `docs/format.md`.

mod ahead;
pub(crate) mod catalogue;
pub(crate) mod chain;
pub(crate) mod compressed;
mod copies;
pub(crate) mod draft;
mod encrypted;
pub(crate) mod entrance;
pub(crate) mod filling;
pub(crate) mod handover;
pub(crate) mod head;
pub(crate) mod layout;
pub(crate) mod life;
pub mod listing;
pub(crate) mod manifest;
mod opened;
pub mod prune;
pub(crate) mod retention;
pub(crate) mod room;
pub(crate) mod runtime;
mod staged;
pub(crate) mod staging;
pub(crate) mod status;
pub(crate) mod work;
