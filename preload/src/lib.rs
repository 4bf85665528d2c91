//! libselfdump.so: selfdump for C programs, and for those that know nothing of it.
//!
//! What the functions do is told in `include/selfdump.h`. [`said`] keeps what a thread is told of its last call and
//! lets no panic through, [`restored`] is what a callback is told. As a preloaded library this is a constructor and
//! nothing else.

mod restored;
mod said;

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use selfdump::{Config, ErrorKind, Handle, Hold, Outcome};

use restored::{Hook, OnRestore};
use said::{Failure, guarded};

/// What the loader calls, once: when the library is preloaded, and when a program that links it starts.
// SAFETY: the section holds the addresses of functions of this type (System V ABI, "Initialization and Termination
// Functions").
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = selfdump::auto::construct_preloaded;

const SAVED: c_int = 1;
const RESTORED: c_int = 2;

/// What the program has installed.
static HANDLE: Mutex<Option<Handle>> = Mutex::new(None);

thread_local! {
    /// What this thread holds up, once for each call.
    static HOLDS: RefCell<Vec<Hold>> = const { RefCell::new(Vec::new()) };
}

/// One setting, as C has it.
#[repr(C)]
pub struct Setting {
    name: *const c_char,
    value: *const c_char,
}

fn handle() -> Result<Handle, Failure> {
    let handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let problem = || Failure::new(ErrorKind::NotInstalled, "the program has not installed selfdump");
    handle.ok_or_else(|| problem().with_hint("call selfdump_install() first"))
}

fn install(config: Config) -> Result<c_int, Failure> {
    let handle = config.install()?;
    *HANDLE.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    Ok(0)
}

/// A text of the program's.
///
/// # Safety
///
/// It is null or a C string, which stays as it is for as long as the result is used.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::new(ErrorKind::Config, format!("{what} is NULL")));
    }
    // SAFETY: as our caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::new(ErrorKind::Config, format!("{what} is not UTF-8: {text:?}")))
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_install() -> c_int {
    guarded(|| install(Config::new()))
}

/// See selfdump.h.
///
/// # Safety
///
/// `settings` is null or an array that ends with null pointers; all others are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn selfdump_install_with(settings: *const Setting) -> c_int {
    guarded(|| {
        let (mut config, mut next) = (Config::new(), settings);
        // SAFETY: `next` is null, or leads to an element of the array, up to its last.
        while let Some(setting) = unsafe { next.as_ref() }.filter(|setting| !setting.name.is_null()) {
            // SAFETY: they are C strings of the caller's.
            let (name, value) = unsafe {
                let name = text(setting.name, "the name of a setting")?;
                (name, text(setting.value, &format!("the value of the setting {name:?}"))?)
            };
            config = config.set(name, value)?;
            // SAFETY: it was not the last.
            next = unsafe { next.add(1) };
        }
        install(config)
    })
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_uninstall() -> c_int {
    guarded(|| {
        handle()?.uninstall()?;
        *HANDLE.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(0)
    })
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_checkpoint() -> c_int {
    guarded(|| {
        said::checkpoint("");
        match handle()?.checkpoint()? {
            Outcome::Saved(checkpoint) => {
                said::checkpoint(&checkpoint.id);
                Ok(SAVED)
            }
            Outcome::Restored(restored) => {
                said::checkpoint(&restored.id);
                Ok(RESTORED)
            }
        }
    })
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_checkpoint_id() -> *const c_char {
    said::last_checkpoint()
}

/// See selfdump.h.
///
/// # Safety
///
/// `call` is null or a function that can be called with `data` from another thread, until selfdump is taken out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn selfdump_on_restore(call: Option<OnRestore>, data: *mut c_void) -> c_int {
    guarded(|| {
        let problem = || Failure::new(ErrorKind::Config, "the callback is NULL");
        let hook = Hook { call: call.ok_or_else(problem)?, data };
        handle()?.on_restore(move |restored| hook.call(restored))?;
        Ok(0)
    })
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_hold() -> c_int {
    guarded(|| {
        let hold = handle()?.hold()?;
        HOLDS.with_borrow_mut(|holds| holds.push(hold));
        Ok(0)
    })
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_release() -> c_int {
    guarded(|| {
        // A thread that is ending has released all of them.
        let held = HOLDS.try_with(|holds| holds.borrow_mut().pop()).ok().flatten();
        let problem = || Failure::new(ErrorKind::Held, "this thread holds up no checkpoints");
        held.map(|_| 0).ok_or_else(problem)
    })
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_generation() -> u64 {
    selfdump::generation()
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_error() -> *const c_char {
    said::last_error()
}

/// See selfdump.h.
#[unsafe(no_mangle)]
pub extern "C" fn selfdump_hint() -> *const c_char {
    said::last_hint()
}
