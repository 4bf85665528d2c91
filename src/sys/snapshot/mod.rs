//! A copy of this process at one moment, while it goes on.
//!
//! - [`moment`]: what the process was then, as far as its copy doesn't show it.

pub(crate) mod moment;
