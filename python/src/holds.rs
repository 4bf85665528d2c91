//! Holds belong to the thread that asked for them, so each thread has a list of its own. Python's `with` gives them back
//! in the thread that it took them in.

use std::cell::RefCell;

use selfdump::{Error, Handle, Hold};

thread_local! {
    static HOLDS: RefCell<Vec<Hold>> = const { RefCell::new(Vec::new()) };
}

pub fn hold(handle: &Handle) -> Result<(), Error> {
    let hold = handle.hold()?;
    HOLDS.with_borrow_mut(|holds| holds.push(hold));
    Ok(())
}

/// Gives back one: they are all alike.
pub fn release() {
    let hold = HOLDS.with_borrow_mut(Vec::pop);
    drop(hold);
}
