//! redis-server, as the tests run it.

use std::net::TcpListener;
use std::process::Command;

use crate::harness::succeeds;

/// One, at a port that was free a moment ago.
pub struct Redis {
    port: String,
}

impl Redis {
    pub fn new() -> Redis {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        Redis { port: free.port().to_string() }
    }

    /// What starts it, in a folder, where it is to keep nothing by itself.
    pub fn command<'a>(&'a self, folder: &'a str) -> [&'a str; 9] {
        ["redis-server", "--port", &self.port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    }

    /// What it answers.
    pub fn client(&self, arguments: &[&str]) -> String {
        succeeds(Command::new("redis-cli").args(["-p", &self.port]).args(arguments)).trim().to_owned()
    }
}
