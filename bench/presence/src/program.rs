//! What both programs do: they say that they have begun, and wait for the end of their input.

use std::io::Write;

/// Allocates and prints something, as a program does, so that what the standard library brings for it is in both.
pub fn run() {
    let text = format!("begun, as process {}", std::process::id());
    println!("{text}");
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().lines().count();
}
