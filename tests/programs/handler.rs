//! A program that had a SIGUSR2 handler before, and watches what selfdump's does to the thread that it
//! interrupts: every signal is raised by the main thread itself, so the handlers run on it, in `raise`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// More than selfdump's pipe can hold, so that its handler meets a full one as well.
const RAISED: u64 = 100_000;

/// No error of the kernel's has this number.
const MAGIC: i32 = 4242;

static EARLIER: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system's allocator does the work; counting in a plain thread-local doesn't allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: as our caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

extern "C" fn earlier(_signal: libc::c_int) {
    EARLIER.fetch_add(1, Ordering::Relaxed);
}

fn main() -> Result<(), selfdump::Error> {
    // SAFETY: an all-zero sigaction has an empty mask and no flags; the handler only counts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = earlier as *const () as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
    }
    let _handle = selfdump::install()?;
    let before = ALLOCATED.get();
    let mut changed = 0;
    for _ in 0..RAISED {
        // SAFETY: errno is this thread's own; raise has no memory to take care of.
        unsafe {
            *libc::__errno_location() = MAGIC;
            libc::raise(libc::SIGUSR2);
            changed += u64::from(*libc::__errno_location() != MAGIC);
        }
    }
    let allocated = ALLOCATED.get() - before;
    let earlier = EARLIER.load(Ordering::Relaxed);
    println!("raised {RAISED} allocated {allocated} errno changed {changed} earlier handler ran {earlier}");
    loop {
        std::thread::sleep(Duration::from_millis(10));
    }
}
