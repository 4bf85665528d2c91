//! Other copies of selfdump in this process: the program's own, one in a library that it loads, a preloaded one.
//!
//! One of them is installed, and who asked for it decides which: a call comes before linking, and linking, where it is
//! there first, before preloading. So a preloaded copy leaves a program alone that has one of its own, and gives way
//! to one that is loaded later and installed by a call.

use std::sync::atomic::Ordering;

use super::{By, CHANGING, end, installed, retire};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::copies::{self, Answer, Question};
use crate::sys::process;

/// Whether another copy is the one to be installed. From here on this one answers for itself.
///
/// # Errors
///
/// [`ErrorKind::AlreadyInstalled`] for a call where the program has installed another copy by a call, or is about to.
pub(super) fn come_first(by: By) -> Result<bool> {
    copies::answer_with(answer);
    let others: Vec<Option<Answer>> =
        copies::others().into_iter().map(|copy| copy.ask(Question::Installed)).collect();
    let is_there = |answer| others.contains(&Some(answer));
    match by {
        By::Preloading => Ok(!others.is_empty()),
        By::Linking => {
            Ok(is_there(Answer::ByLinking) || is_there(Answer::ByCall) || is_there(Answer::Changing))
        }
        By::Call if is_there(Answer::ByCall) || is_there(Answer::Changing) => {
            Err(Error::new(ErrorKind::AlreadyInstalled, "another copy of selfdump is installed in this process")
                .with_hint("the program and a library of it have each linked selfdump, and installed it: let one of them do so"))
        }
        By::Call => Ok(false),
    }
}

/// Has every other copy take itself out that the program has not asked for. Our handlers are there by now, on top of
/// theirs, so no signal is lost.
pub(super) fn give_way() {
    for copy in copies::others() {
        if copy.ask(Question::GiveWay) == Some(Answer::Changing) {
            log::warn!("another copy of selfdump is being installed in this process just now");
        }
    }
}

/// What this copy says to others.
fn answer(question: Question) -> Answer {
    let mut installed = installed();
    // Not waited for: whoever is at it may be waiting for the one who asks.
    if CHANGING.load(Ordering::SeqCst) == process::id() {
        return Answer::Changing;
    }
    // What a forked child has from its parent is not there.
    let by = installed.as_ref().filter(|installed| installed.shared.is_ours()).map(|installed| installed.by);
    match (by, question) {
        (None, _) => Answer::NotInstalled,
        (Some(By::Call), _) => Answer::ByCall,
        (Some(_), Question::Installed) => Answer::ByLinking,
        (Some(_), Question::GiveWay) => {
            CHANGING.store(process::id(), Ordering::SeqCst);
            let taken = installed.take();
            drop(installed);
            if let Some(taken) = taken {
                retire(taken, None);
            }
            end(None);
            Answer::GivenWay
        }
    }
}
