//! Traces a thread of another process, as a debugger does that lets it run: `tracer TID`. It prints `tracing`;
//! when it is killed the thread is free again.

use std::ffi::c_int;
use std::ptr;

fn main() {
    let thread: i32 = std::env::args().nth(1).and_then(|id| id.parse().ok()).expect("a thread's id");
    // SAFETY: neither request writes to our memory; the addresses are ignored.
    unsafe {
        let seized = libc::ptrace(libc::PTRACE_SEIZE, thread, ptr::null_mut::<()>(), ptr::null_mut::<()>());
        assert_eq!(seized, 0, "can't trace {thread}: {}", std::io::Error::last_os_error());
        println!("tracing");
        let mut status: c_int = 0;
        while libc::waitpid(thread, &raw mut status, libc::__WALL) == thread && libc::WIFSTOPPED(status) {
            // A signal on its way to the thread goes on; a stop by an event of ptrace is only ended.
            let signal = if status >> 16 == 0 { libc::WSTOPSIG(status) } else { 0 };
            libc::ptrace(
                libc::PTRACE_CONT,
                thread,
                ptr::null_mut::<()>(),
                ptr::without_provenance_mut::<()>(signal as usize),
            );
        }
    }
}
