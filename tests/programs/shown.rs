//! Has one of everything that can be shown, and says what: `shown FILE`, which is written to.
//!
//! Between guards lie 64 pages of its own, 4 shared ones and 2 that are leaving, all of them filled. A thread called
//! `standing` waits in `stand_here`, with a value in a register. At SIGUSR1 three of the 64 pages are written to and one
//! is given back, one of the shared ones is written to, the two leave; the file is renamed and written on, one of its
//! descriptors is closed, another is opened, and a thread comes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PAGE: usize = 4096;
const PAGES: usize = 64;
/// The page that SIGUSR1 gives back.
const GIVEN_BACK: usize = 50;
/// What SIGUSR1 writes to: a page, and how many bytes of it.
const WRITTEN: [(usize, usize); 3] = [(3, 1), (40, 100), (41, PAGE)];
/// What `stand_here` has in r15.
const IN_R15: u64 = 0x5e1f_d0b5_1234_5678;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("FILE")?;
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked))?;
    let _handle = selfdump::install()?;

    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    file.write_all(b"twelve bytes")?;
    let second = File::open(&path)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    let (one_end, other_end) = UnixStream::pair()?;
    let pages = guarded_pages(PAGES, libc::MAP_PRIVATE)?;
    let shared = guarded_pages(4, libc::MAP_SHARED)?;
    let leaving = guarded_pages(2, libc::MAP_PRIVATE)?;
    pages.fill(1);
    shared.fill(1);
    leaving.fill(1);
    std::thread::Builder::new().name("standing".into()).spawn(|| stand_here())?;
    std::thread::sleep(Duration::from_millis(50));
    let name = |what: &str, number: i32| println!("{what} {number}");
    name("file", file.as_raw_fd());
    name("second", second.as_raw_fd());
    name("listener", listener.as_raw_fd());
    name("client", client.as_raw_fd());
    name("server", server.as_raw_fd());
    name("one-end", one_end.as_raw_fd());
    name("other-end", other_end.as_raw_fd());
    println!("port {}", listener.local_addr()?.port());
    for (what, memory) in [("pages", &*pages), ("shared", shared), ("leaving", leaving)] {
        println!("{what} {}", memory.as_ptr().addr());
    }
    println!("ready");

    while !asked.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
    for (page, bytes) in WRITTEN {
        pages[page * PAGE..page * PAGE + bytes].fill(2);
    }
    shared[2 * PAGE] = 2;
    // SAFETY: both are whole pages of our own, which nothing uses afterwards.
    unsafe {
        libc::madvise(pages[GIVEN_BACK * PAGE..].as_mut_ptr().cast(), PAGE, libc::MADV_DONTNEED);
        libc::munmap(leaving.as_mut_ptr().cast(), leaving.len());
    }
    std::fs::rename(&path, format!("{path}.old"))?;
    file.write_all(b" and more")?;
    drop(second);
    let opened = File::open("/dev/zero")?;
    std::thread::Builder::new()
        .name("newcomer".into())
        .spawn(|| std::thread::sleep(Duration::from_secs(600)))?;
    std::thread::sleep(Duration::from_millis(50));
    name("opened", opened.as_raw_fd());
    println!("changed");
    std::thread::sleep(Duration::from_secs(600));
    drop((client, server, listener, one_end, other_end));
    Ok(())
}

/// Pages that can't become one mapping with their neighbours.
fn guarded_pages(count: usize, kind: libc::c_int) -> std::io::Result<&'static mut [u8]> {
    let size = count * PAGE;
    // SAFETY: the kernel chooses a place where nothing is; the middle of it is ours for good.
    unsafe {
        let flags = kind | libc::MAP_ANONYMOUS;
        let all = libc::mmap(std::ptr::null_mut(), size + 2 * PAGE, libc::PROT_NONE, flags, -1, 0);
        if all == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let middle = all.byte_add(PAGE);
        if libc::mprotect(middle, size, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(std::slice::from_raw_parts_mut(middle.cast(), size))
    }
}

/// Waits for signals, in a system call that is made right here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stand_here() -> ! {
    loop {
        // SAFETY: pause(2) touches no memory; the kernel changes the three registers that are named.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") libc::SYS_pause => _,
                in("r15") IN_R15,
                out("rcx") _,
                out("r11") _,
            );
        }
    }
}
