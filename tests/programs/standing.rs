//! Sixty-four threads that stand still, each as deep in its functions as its number says, in one of four ways: asleep,
//! at a lock, at a socket, at a barrier. Besides, memory of each kind, of which it prints where it is and what it holds:
//! `KIND ADDRESS SIZE BYTE`.

use std::ffi::c_int;
use std::hint::black_box;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::{Barrier, Mutex, mpsc};
use std::time::Duration;

const THREADS: usize = 64;
const SIZE: usize = 64 << 10;
const FOREVER: Duration = Duration::from_secs(600);

/// What all wait for.
struct Waits {
    barrier: Barrier,
    lock: Mutex<()>,
}

fn main() -> Result<(), selfdump::Error> {
    let _ = selfdump::install()?;
    let waits: &Waits = Box::leak(Box::new(Waits { barrier: Barrier::new(THREADS), lock: Mutex::new(()) }));
    let held = waits.lock.lock();
    let (here, there) = mpsc::channel();
    for number in 0..THREADS {
        let here = here.clone();
        std::thread::spawn(move || {
            here.send(()).expect("main listens");
            deeper(number % 7, number, waits)
        });
    }
    (0..THREADS).for_each(|_| there.recv().expect("all come"));
    // Each may still be on its way to where it stands.
    std::thread::sleep(Duration::from_millis(300));
    show_memory();
    println!("ready");
    std::thread::sleep(FOREVER);
    drop(held);
    Ok(())
}

#[inline(never)]
fn deeper(depth: usize, number: usize, waits: &Waits) {
    match depth {
        0 => stand(number, waits),
        _ => deeper(depth - 1, number, waits),
    }
    black_box(depth);
}

#[inline(never)]
fn stand(number: usize, waits: &Waits) {
    match number % 4 {
        0 => stand_asleep(),
        1 => stand_at_a_lock(waits),
        2 => stand_at_a_socket(),
        _ => stand_at_a_barrier(waits),
    }
    black_box(number);
}

#[inline(never)]
fn stand_asleep() {
    std::thread::sleep(black_box(FOREVER));
}

#[inline(never)]
fn stand_at_a_lock(waits: &Waits) {
    drop(black_box(waits.lock.lock()));
}

#[inline(never)]
fn stand_at_a_socket() {
    let (mut reader, _writer) = UnixStream::pair().expect("a pair of sockets");
    let _ = black_box(reader.read(&mut [0]));
}

#[inline(never)]
fn stand_at_a_barrier(waits: &Waits) {
    black_box(waits.barrier.wait());
}

fn show_memory() {
    let anonymous = libc::MAP_ANONYMOUS;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), [0xf0; SIZE]).expect("its contents");
    // SAFETY: the name is a C string.
    let memfd = unsafe { libc::memfd_create(c"standing".as_ptr(), 0) };
    // SAFETY: the descriptor is ours.
    assert_eq!(unsafe { libc::ftruncate(memfd, SIZE as i64) }, 0);

    fill("private", map(libc::MAP_PRIVATE | anonymous, -1), 0xa1, SIZE);
    fill("shared", map(libc::MAP_SHARED | anonymous, -1), 0xa2, SIZE);
    fill("memfd", map(libc::MAP_SHARED, memfd), 0xa3, SIZE);
    let half = map(libc::MAP_PRIVATE, memfd);
    fill("memfd-changed", half, 0xa4, SIZE / 2);
    println!("memfd-kept {:#x} {} {}", half as usize + SIZE / 2, SIZE / 2, 0xa3);
    let half = map(libc::MAP_PRIVATE, file.as_raw_fd());
    fill("file-changed", half, 0xa5, SIZE / 2);
    println!("file-kept {:#x} {} {}", half as usize + SIZE / 2, SIZE / 2, 0xf0);
    println!("never-touched {:#x} {SIZE} 0", map(libc::MAP_PRIVATE | anonymous, -1) as usize);
    fill("zeros", map(libc::MAP_PRIVATE | anonymous, -1), 0, SIZE);
    // The file has to be there as long as we are: whoever ends us removes its folder.
    let _ = file.keep().expect("it stays");
}

fn map(flags: c_int, fd: c_int) -> *mut u8 {
    // SAFETY: a new mapping, wherever there is room.
    let at = unsafe { libc::mmap(ptr::null_mut(), SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED, "a mapping");
    at.cast()
}

fn fill(kind: &str, at: *mut u8, byte: u8, size: usize) {
    // SAFETY: the mapping is at least as large, and nobody else knows it.
    unsafe { ptr::write_bytes(at, byte, size) };
    println!("{kind} {:#x} {size} {byte}", at as usize);
}
