//! A TCP server that survives with its state: a table of counters. `add NAME`, `get NAME` and `list` over
//! a line-based protocol on the port given (`server 7878`).
//!
//! `kill -USR2 PID` while it serves, `kill -9 PID`, `selfdump restore server`: it listens again with every
//! counter that the checkpoint had. Connections end with the crash, as with any server; clients connect anew.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

static COUNTERS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let handle = selfdump::install()?;
    handle
        .on_restore(|restored| println!("back from {}, generation {}", restored.id, restored.generation))?;
    let port = std::env::args().nth(1).map_or(Ok(7878), |port| port.parse::<u16>())?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("process {} listens on {}", std::process::id(), listener.local_addr()?);
    for client in listener.incoming() {
        // A client that is gone before it is served is no reason to end.
        let Ok(client) = client else { continue };
        std::thread::spawn(move || serve(&client));
    }
    Ok(())
}

/// Serves one client until it leaves.
fn serve(mut client: &TcpStream) {
    let lines = BufReader::new(client).lines();
    for line in lines.map_while(Result::ok) {
        let mut counters = COUNTERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("add", name) => {
                let counter = counters.entry(name.to_owned()).or_default();
                *counter += 1;
                counter.to_string()
            }
            ("get", name) => counters.get(name).copied().unwrap_or(0).to_string(),
            ("list", _) => format!("{counters:?}"),
            _ => "add NAME, get NAME or list".to_owned(),
        };
        drop(counters);
        if writeln!(client, "{answer}").is_err() {
            return;
        }
    }
}
