//! All that a program needs: it is linked, and that is all.

use selfdump as _;

fn main() {
    for step in 0_u64.. {
        println!("step {step}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
