//! The messages that `cargo xtask codegen` generates, for those who measure them.
//!
//! In the library they are not public, and a benchmark is no reason to make them so. The files depend on little else than
//! prost, and are compiled here as they are.

#[path = "../../../src/image/images.rs"]
pub mod images;
#[path = "../../../src/criu/rpc.rs"]
pub mod rpc;
#[cfg(feature = "inspect")]
#[path = "../../../src/image/text.rs"]
mod text;
