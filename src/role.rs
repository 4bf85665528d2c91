//! What a process does that is a helper of a program and not the program (`sys::ourselves`).

use std::ffi::OsStr;
use std::io;
use std::panic::catch_unwind;

use crate::checkpoint::{copier, snapshot};
use crate::sys::{ourselves, process};

/// What the loader calls before main, and before the constructor that installs.
// SAFETY: the section holds the addresses of functions of this type (System V ABI, "Initialization and Termination
// Functions"), in static and dynamic programs alike.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// Does what this process is there for, and comes back only where that is to be a program.
pub(crate) extern "C" fn construct() {
    if let Some(role) = ourselves::role() {
        let done = catch_unwind(|| play(&role).is_ok()).unwrap_or(false);
        if !done {
            // Of our own helpers nobody hears it. Somebody else has set the variable for a program.
            eprintln!("selfdump: {} is set, which is for selfdump itself alone; unset it", ourselves::ROLE);
        }
        process::exit_at_once(u8::from(!done));
    }
}

fn play(role: &OsStr) -> io::Result<()> {
    let role = role.to_str().unwrap_or_default();
    match role.split_once(' ').unwrap_or((role, "")) {
        (copier::ROLE, _) => copier::copy(),
        (snapshot::ROLE, order) => snapshot::halt(order, false),
        (snapshot::ROLE_WITH_COPIES, order) => snapshot::halt(order, true),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}
