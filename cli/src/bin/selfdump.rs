//! The `selfdump` command.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match selfdump_cli::Front::program() {
        Ok(front) => selfdump_cli::run(&front, &arguments).into(),
        Err(error) => {
            eprintln!("selfdump: can't tell its own path: {error}");
            ExitCode::FAILURE
        }
    }
}
