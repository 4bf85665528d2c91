//! A library that is loaded by a program which knows nothing of selfdump, and has no Rust main.

use selfdump as _;

/// What the program calls.
#[unsafe(no_mangle)]
pub extern "C" fn plugged() -> i32 {
    42
}
