//! How a comparison is started: by cargo, and once more, by itself, as the program that is compared.

use std::process::ExitCode;

use super::Failure;
use super::plan::Plan;

/// A benchmark.
pub struct Comparison {
    pub name: &'static str,
    /// In MiB, where nothing else is said.
    pub sizes: &'static [usize],
    /// The argument by which it is the program; what that is to be follows.
    pub word: &'static str,
    pub program: fn(&[String]) -> Result<(), Failure>,
    pub compare: fn(&Plan) -> Result<ExitCode, Failure>,
}

impl Comparison {
    /// Does what the command line asks for; its failure is told on standard error.
    pub fn main(&self) -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        self.carry_out(&arguments).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            ExitCode::from(2)
        })
    }

    fn carry_out(&self, arguments: &[String]) -> Result<ExitCode, Failure> {
        match arguments {
            [word, rest @ ..] if word == self.word => (self.program)(rest)?,
            _ => {
                if let Some(plan) = Plan::of(self.name, self.sizes, arguments)? {
                    return (self.compare)(&plan);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
