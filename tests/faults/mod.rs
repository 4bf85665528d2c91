//! Faults, one at a time and all of them: at each message to and from CRIU, at each operation on the disk, at each step
//! of a commit, and at each flush before the power goes. docs/reliability.md says what is promised for each.
//!
//! The CRIU is the real one and so is the program; into one of the two is preloaded what stands in `preload/`, which is
//! told what is to fail. Where a test is too long to be run each time it takes a part of its cases, by a seed that it
//! prints; SELFDUMP_FAULTS=all has it take all.

mod comeback;
mod commit;
mod disk;
mod memory;
mod names;
mod order;
mod power;
mod recorder;
mod space;
mod talk;
mod victim;
