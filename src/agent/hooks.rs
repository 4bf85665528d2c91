//! What the program wants called around its checkpoints, in selfdump's thread, in the order in which it was added.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Cause, Report, Restored};

type Before = Box<dyn FnMut(&Cause) -> Result<(), String> + Send>;
type After = Box<dyn FnMut(&Report) + Send>;
type OnRestore = Box<dyn FnMut(&Restored) + Send>;

/// The hooks of a program.
#[derive(Default)]
pub(super) struct Hooks {
    before: Chain<Before>,
    after: Chain<After>,
    on_restore: Chain<OnRestore>,
}

impl Hooks {
    pub(super) fn add_before(&self, hook: Before) {
        lock(&self.before.0).push(hook);
    }

    pub(super) fn add_after(&self, hook: After) {
        lock(&self.after.0).push(hook);
    }

    pub(super) fn add_on_restore(&self, hook: OnRestore) {
        lock(&self.on_restore.0).push(hook);
    }

    /// Asks each hook, until one says no.
    pub(super) fn before(&self, cause: &Cause) -> Result<()> {
        let mut verdict = Ok(());
        self.before.each(|hook| {
            if verdict.is_ok() {
                verdict = ask(hook, cause);
            }
        });
        verdict
    }

    pub(super) fn after(&self, report: &Report) {
        self.after.each(|hook| {
            if catch_unwind(AssertUnwindSafe(|| hook(report))).is_err() {
                log::error!("a hook for the time after a checkpoint panicked");
            }
        });
    }

    pub(super) fn on_restore(&self, restored: &Restored) {
        self.on_restore.each(|hook| {
            if catch_unwind(AssertUnwindSafe(|| hook(restored))).is_err() {
                log::error!("a hook for restores panicked");
            }
        });
    }
}

/// A hook that panics has not said yes.
fn ask(hook: &mut Before, cause: &Cause) -> Result<()> {
    match catch_unwind(AssertUnwindSafe(|| hook(cause))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => {
            Err(Error::new(ErrorKind::Vetoed, format!("the program doesn't want a checkpoint now: {reason}"))
                .with_hint("a hook of the program (before_checkpoint) said so; ask again later"))
        }
        Err(_) => Err(Error::new(
            ErrorKind::Vetoed,
            "a hook of the program for the time before a checkpoint panicked",
        )
        .with_hint("the panic's message says where")),
    }
}

/// Hooks of one kind. They are taken out while they run, so that a hook can add another one without waiting for
/// itself.
struct Chain<H>(Mutex<Vec<H>>);

impl<H> Default for Chain<H> {
    fn default() -> Chain<H> {
        Chain(Mutex::default())
    }
}

impl<H> Chain<H> {
    fn each(&self, call: impl FnMut(&mut H)) {
        let mut hooks = std::mem::take(&mut *lock(&self.0));
        hooks.iter_mut().for_each(call);
        let mut left = lock(&self.0);
        hooks.append(&mut left);
        *left = hooks;
    }
}
