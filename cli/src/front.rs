//! The front-ends of the command: how each is started, and what else it runs.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// A front-end of the command, as its own programs and users start it.
#[derive(Clone, Debug)]
pub struct Front {
    /// What starts the command: a program, and the arguments that come before the command's own.
    pub command: Vec<OsString>,
    /// What starts a script of the front-end's language with selfdump installed in it; the script and its arguments
    /// follow. None where `selfdump run` knows only programs.
    pub scripts: Option<Scripts>,
}

/// How the scripts of a language are told from programs, and what starts one.
#[derive(Clone, Debug)]
pub struct Scripts {
    /// How their names end, without the dot.
    pub extension: &'static str,
    /// The option that names a module in the place of a file.
    pub module: &'static str,
    /// What starts one, before its name.
    pub starter: Vec<OsString>,
}

/// What `selfdump run` is to start.
pub(crate) struct Started {
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
    /// The words that it was named by, from which its checkpoints have their name.
    pub(crate) named: Vec<OsString>,
}

impl Front {
    /// The command itself, as a program.
    pub fn program() -> std::io::Result<Front> {
        Ok(Front { command: vec![std::env::current_exe()?.into()], scripts: None })
    }

    /// What starts the command once more, with these arguments.
    pub(crate) fn again(&self, arguments: &[OsString]) -> Vec<OsString> {
        [self.command.as_slice(), arguments].concat()
    }

    /// What has to be started where these words stand on the command line.
    pub(crate) fn start(&self, words: &[OsString]) -> Started {
        let program = || Started { command: words.to_vec(), named: words.to_vec() };
        let Some((scripts, first)) = self.scripts.as_ref().zip(words.first()) else { return program() };
        let is_module = first == scripts.module;
        if !is_module && Path::new(first).extension() != Some(OsStr::new(scripts.extension)) {
            return program();
        }
        let named = if is_module { words.get(1..) } else { Some(words) };
        Started { command: [&scripts.starter, words].concat(), named: named.unwrap_or_default().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn scripts_and_modules_get_their_starter_and_programs_do_not() {
        let scripts = Scripts { extension: "py", module: "-m", starter: words("python -m starter") };
        let front = Front { command: words("python -m selfdump"), scripts: Some(scripts) };
        for (line, command, named) in [
            ("jobs/train.py --fast", "python -m starter jobs/train.py --fast", "jobs/train.py --fast"),
            ("-m jobs.train 7", "python -m starter -m jobs.train 7", "jobs.train 7"),
            ("./train a.py", "./train a.py", "./train a.py"),
            ("-m", "python -m starter -m", ""),
        ] {
            let started = front.start(&words(line));
            assert_eq!((started.command, started.named), (words(command), words(named)), "{line}");
        }
        let program = Front { scripts: None, ..front };
        assert_eq!(program.start(&words("train.py")).command, words("train.py"));
    }
}
