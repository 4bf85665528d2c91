//! What each thread is told of its last call, and the boundary that no panic crosses.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use selfdump::{Error, ErrorKind};

/// SELFDUMP_E_PANIC.
const PANIC: c_int = 1000;

/// Why a call failed.
pub struct Failure {
    code: c_int,
    message: String,
    hint: String,
}

#[derive(Default)]
struct Said {
    error: CString,
    hint: CString,
    checkpoint: CString,
}

thread_local! {
    static SAID: RefCell<Said> = RefCell::default();
}

impl Failure {
    /// One of this boundary's own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure { code: kind as c_int, message: message.into(), hint: String::new() }
    }

    pub fn with_hint(mut self, hint: &str) -> Failure {
        hint.clone_into(&mut self.hint);
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let mut message = error.chain();
        for line in error.criu().iter().flat_map(|criu| &criu.lines) {
            message.push_str("\ncriu: ");
            message.push_str(line);
        }
        Failure { code: error.kind() as c_int, message, hint: error.hint().unwrap_or_default().to_owned() }
    }
}

/// Runs what a function of the boundary does; what went wrong is kept for the thread, and becomes a negative number.
pub fn guarded(call: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    let panicked = |_| {
        let message = "selfdump has panicked; standard error has its message".to_owned();
        Err(Failure { code: PANIC, message, hint: "please report it".to_owned() })
    };
    let done = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(panicked);
    done.unwrap_or_else(|failure| {
        keep(|said| {
            said.error = c_string(failure.message);
            said.hint = c_string(failure.hint);
        });
        -failure.code
    })
}

/// A thread that is ending, and still calls us, may have lost what is kept for it.
fn keep(change: impl FnOnce(&mut Said)) {
    let _ = SAID.try_with(|said| change(&mut said.borrow_mut()));
}

fn kept(text: impl FnOnce(&Said) -> &CString) -> *const c_char {
    SAID.try_with(|said| text(&said.borrow()).as_ptr()).unwrap_or(c"".as_ptr())
}

/// A text without the character that would end it in C.
pub fn c_string(text: impl Into<String>) -> CString {
    let mut bytes = text.into().into_bytes();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

pub fn checkpoint(id: &str) {
    keep(|said| said.checkpoint = c_string(id));
}

pub fn last_checkpoint() -> *const c_char {
    kept(|said| &said.checkpoint)
}

pub fn last_error() -> *const c_char {
    kept(|said| &said.error)
}

pub fn last_hint() -> *const c_char {
    kept(|said| &said.hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_at_the_boundary_and_is_told() {
        assert_eq!(guarded(|| panic!("a test's own")), -PANIC);
        SAID.with_borrow(|said| assert!(said.error.to_str().unwrap().contains("panicked")));
    }

    #[test]
    fn what_fails_is_a_negative_number_and_a_text() {
        assert_eq!(guarded(|| Ok(7)), 7);
        let failed = guarded(|| Err(Failure::new(ErrorKind::Held, "a\0b").with_hint("let go")));
        assert_eq!(failed, -(ErrorKind::Held as c_int));
        SAID.with_borrow(|said| assert_eq!((&*said.error, &*said.hint), (c"ab", c"let go")));
    }
}
