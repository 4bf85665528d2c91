//! A program to be made setuid: it knows its CRIU and its name itself, and asks for one checkpoint.
//! `elevated CRIU NAME`; it prints `installed`, and then the error that came of it, with its hint.

use std::path::Path;

fn main() -> Result<(), selfdump::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [criu, name] = &arguments[..] else { panic!("elevated CRIU NAME") };
    let handle = selfdump::Config::new().criu(Path::new(criu)).name(name).install()?;
    println!("installed");
    match handle.checkpoint() {
        Ok(outcome) => println!("{outcome:?}"),
        Err(error) => println!("{error:?}"),
    }
    Ok(())
}
