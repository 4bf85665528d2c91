//! What a callback of the program is told when it has come back.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;
use std::time::UNIX_EPOCH;

use selfdump::Restored;

use crate::said::c_string;

/// The program's function.
pub type OnRestore = extern "C" fn(*const Told, *mut c_void);

/// `struct selfdump_restored`.
#[repr(C)]
pub struct Told {
    size: usize,
    id: *const c_char,
    taken_unix_us: i64,
    age_us: u64,
    generation: u64,
    same_host: c_int,
    same_boot: c_int,
    same_pid_namespace: c_int,
    settings: *const *const c_char,
}

/// A function of the program, and what it is to be given.
pub struct Hook {
    pub call: OnRestore,
    pub data: *mut c_void,
}

// SAFETY: who registers it says by that that it can be called from selfdump's thread (selfdump.h).
unsafe impl Send for Hook {}

impl Hook {
    pub fn call(&self, restored: &Restored) {
        let id = c_string(restored.id.as_str());
        let texts: Vec<CString> = restored
            .settings()
            .iter()
            .flat_map(|(key, value)| [key, value])
            .map(String::as_str)
            .map(c_string)
            .collect();
        let settings: Vec<*const c_char> =
            texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        let taken = restored.taken.duration_since(UNIX_EPOCH).unwrap_or_default();
        let told = Told {
            size: size_of::<Told>(),
            id: id.as_ptr(),
            taken_unix_us: i64::try_from(taken.as_micros()).unwrap_or(i64::MAX),
            age_us: u64::try_from(restored.age.as_micros()).unwrap_or(u64::MAX),
            generation: restored.generation,
            same_host: restored.same_host.into(),
            same_boot: restored.same_boot.into(),
            same_pid_namespace: restored.same_pid_namespace.into(),
            settings: settings.as_ptr(),
        };
        (self.call)(&raw const told, self.data);
    }
}
