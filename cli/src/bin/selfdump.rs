//! The `selfdump` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    selfdump_cli::run(std::env::args_os())
}
