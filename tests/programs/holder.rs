//! Holds what CRIU has to be told about: a file lock, a large open file without a name, a datagram socket to
//! somebody outside. `holder LOCKED UNNAMED SOCKET`; it prints `still N` as long as all three are right.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// More than the 1 MiB that CRIU carries by itself.
const SIZE: usize = 8 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _handle = selfdump::install()?;
    let mut paths = std::env::args().skip(1);
    let mut path = || paths.next().ok_or("LOCKED UNNAMED SOCKET");
    let locked = File::create(path()?)?;
    // SAFETY: flock(2) on a descriptor that is open.
    assert_eq!(unsafe { libc::flock(locked.as_raw_fd(), libc::LOCK_EX) }, 0);

    let unnamed_path = path()?;
    let unnamed =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unnamed_path)?;
    unnamed.write_all_at(&vec![7; SIZE], 0)?;
    std::fs::remove_file(&unnamed_path)?;

    let socket = UnixDatagram::unbound()?;
    socket.connect(path()?)?;
    for round in 0u64.. {
        let mut last = [0; 1];
        unnamed.read_exact_at(&mut last, SIZE as u64 - 1)?;
        assert_eq!(last, [7]);
        socket.send(format!("still {round}").as_bytes())?;
        writeln!(std::io::stdout(), "still {round}")?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
