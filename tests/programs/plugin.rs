//! A library that is loaded by a program which knows nothing of selfdump, and has no Rust main.

/// What the program calls.
#[unsafe(no_mangle)]
pub extern "C" fn plugged() -> i32 {
    42
}

/// Has the program checkpointed by this copy of selfdump, whatever others there are. 0 where it is so now.
#[unsafe(no_mangle)]
pub extern "C" fn plug_in() -> i32 {
    let installed = selfdump::Config::new().name("plugged").install();
    i32::from(installed.inspect_err(|error| eprintln!("{error:?}")).is_err())
}
