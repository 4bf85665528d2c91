//! The program without selfdump.

#[path = "../program.rs"]
mod program;

fn main() {
    program::run();
}
