//! The program that is brought back: memory that nothing compresses, and a ticker that tells the time.

use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::comparison::{Failure, scene};

/// The first argument that makes this executable the program.
pub const WORD: &str = "be-the-program";

/// How finely a restore's end is seen.
const TICK: Duration = Duration::from_millis(1);

/// Holds memory, and writes at every tick how many nanoseconds have passed since 1970. Ends with its reader.
pub fn run(mebibytes: usize) -> Result<(), Failure> {
    // A session of its own, or whoever started it would be told apart from whoever brings it back.
    nix::unistd::setsid()?;
    let _ = selfdump::install()?;
    let memory = scene::random(mebibytes << 20);
    let mut output = std::io::stdout();
    loop {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        // In one piece, so that no line is half from before the checkpoint.
        output.write_all(format!("{}\n", now.as_nanos()).as_bytes())?;
        std::thread::sleep(TICK);
        std::hint::black_box(&memory);
    }
}
