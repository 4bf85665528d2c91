//! The program with selfdump, which is linked and nothing else.

#[path = "../program.rs"]
mod program;

use selfdump as _;

fn main() {
    program::run();
}
