//! By linking: `use selfdump as _;` alone has a program checkpointed (feature `auto`, on by default).
//!
//! The loader calls the constructor before main: of the program, or of a library that this is linked into when it is
//! loaded. It starts a thread and waits for nothing, so it doesn't matter whether main is ever reached. An
//! [`install`](crate::install()) of the program's own takes over from it, with whatever configuration. Standard streams
//! that are closed become /dev/null, as they do before the main function of a Rust program.
//!
//! Where another copy of selfdump is installed in the process already, linking leaves it at that.

use std::io::Write;
use std::panic::catch_unwind;

use crate::config::{self, Config};
use crate::error::{Error, ErrorKind};
use crate::install::By;
use crate::role;
use crate::sys::program;

/// What the loader calls.
// SAFETY: the section holds the addresses of functions of this type (System V ABI, "Initialization and Termination
// Functions"), in static and dynamic programs alike.
#[cfg(all(feature = "auto", not(test)))]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// Installs it as the SELFDUMP_* variables say. A value that a setting can't have is logged (on standard error, where
/// there is no logger yet), and the program goes on without checkpoints. For libraries with a constructor of their
/// own; programs call [`install`](crate::install()).
pub extern "C" fn construct() {
    install_before_main(By::Linking);
}

/// The same for a library that is preloaded (LD_PRELOAD): only in the program that `selfdump run` has started, of all
/// that inherit the variable, and not where that has a copy of selfdump of its own.
pub extern "C" fn construct_preloaded() {
    if config::environment(program::ARMED).is_some_and(|value| program::is_named_by(&value)) {
        install_before_main(By::Preloading);
    }
}

fn install_before_main(by: By) {
    // The loader may call us before the constructor that this is for.
    role::construct();
    // A panic may not leave a function that C calls; its message has been printed.
    let _ = catch_unwind(|| {
        if let Err(error) = Config::new().install_by(by) {
            say(&error);
        }
    });
}

/// A program that didn't ask for anything is not to be ended by a wrong value, but whoever set it wants to know.
fn say(error: &Error) {
    // The program has had no chance yet to set up a logger.
    if log::max_level() == log::LevelFilter::Off && error.kind() == ErrorKind::Config {
        // Nobody may be listening.
        let _ = writeln!(std::io::stderr(), "selfdump: there will be no checkpoints: {error:?}");
    }
    log::error!("not installed by linking: {error:?}");
}
