//! Starting somebody else's program as our child, and telling it from all that it starts itself.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use nix::sys::signal::SigSet;

use super::process;

/// Holds the process id of the program: so it is known as such, and none of the processes that inherit the variable.
/// It is still known when it executes another program in its place, and when it is restored.
pub(crate) const ARMED: &str = "SELFDUMP_ARM";

/// How many digits the process id is written with.
const DIGITS: usize = 10;

/// The signals that a process blocks, as one value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask(SigSet);

/// What the calling thread blocks now: to be asked before any signal is held back.
pub(crate) fn mask() -> io::Result<Mask> {
    Ok(Mask(SigSet::thread_get_mask()?))
}

/// Whether the variable of this value names this process.
pub(crate) fn is_named_by(value: &OsStr) -> bool {
    value.to_str().and_then(|text| text.parse().ok()) == Some(process::id())
}

/// Starts a program with these variables besides our own and [`ARMED`], and with the signals blocked that were blocked
/// for us: what we hold back since is not held back in it. It is to be waited for by its id.
pub(crate) fn start(
    command: &[OsString],
    variables: impl IntoIterator<Item = (String, OsString)>,
    Mask(mask): Mask,
) -> io::Result<i32> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
    let mut environment = Environment::new(variables)?;
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: between fork and exec it writes to memory that is there already and makes two system calls, which are
    // async-signal-safe. The child has no other thread that could read its environment.
    unsafe {
        command.pre_exec(move || {
            environment.put_in_place();
            Ok(mask.thread_set_mask()?)
        });
    }
    // A `Child` that is dropped goes on as it is.
    Ok(command.spawn()?.id() as i32)
}

unsafe extern "C" {
    /// The environment of a program that execvp(3) starts, which `Command` calls where it is told of no variables.
    static mut environ: *const *const c_char;
}

/// An environment with a place for a process id, which is known only after the fork, when nothing can be allocated.
struct Environment {
    /// `NAME=VALUE` each. The pointers below lead to them.
    _texts: Vec<CString>,
    armed: Vec<u8>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead to what the value owns itself.
unsafe impl Send for Environment {}
// SAFETY: as above; it is changed only through `&mut`.
unsafe impl Sync for Environment {}

impl Environment {
    fn new(variables: impl IntoIterator<Item = (String, OsString)>) -> io::Result<Environment> {
        let mut all: BTreeMap<OsString, OsString> = env::vars_os().collect();
        all.extend(variables.into_iter().map(|(name, value)| (name.into(), value)));
        all.remove(OsStr::new(ARMED));
        let text = |(name, value): (OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", &value.into_vec()].concat())
        };
        let texts: Vec<CString> = all.into_iter().map(text).collect::<Result<_, _>>()?;
        let armed = format!("{ARMED}={}\0", "0".repeat(DIGITS)).into_bytes();
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([armed.as_ptr().cast(), ptr::null()]);
        Ok(Environment { pointers: pointers.collect(), _texts: texts, armed })
    }

    /// Makes it that of this process, with its own id. Async-signal-safe.
    fn put_in_place(&mut self) {
        let mut left = process::id();
        for digit in self.armed.iter_mut().rev().skip(1).take(DIGITS) {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        // SAFETY: it is a list of C strings that a null pointer ends, and lives until the exec.
        unsafe { environ = self.pointers.as_ptr() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_finds_its_own_process_id_in_its_environment_and_what_we_pass() {
        let script = r#"test "$SELFDUMP_ARM" -eq $$ && test "$GREETING" = "a b" && test -n "$PATH""#;
        let command = ["sh", "-c", script].map(OsString::from);
        let variables = [("GREETING".to_owned(), "a b".into())];
        let pid = start(&command, variables, mask().unwrap()).unwrap();
        let mut status = 0;
        // SAFETY: the status is written to a value that lives until the call returns.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);
    }

    #[test]
    fn a_process_is_named_by_its_id_alone() {
        assert!(is_named_by(OsStr::new(&format!("{:010}", process::id()))));
        assert!(!is_named_by(OsStr::new("")) && !is_named_by(OsStr::new("x")));
        assert!(!is_named_by(OsStr::new(&process::id().saturating_add(1).to_string())));
    }
}
