//! An HTTP server that survives with its state, a table of counters: `server 7878 journal.txt`.
//!
//! `POST /counters/NAME` counts one up, `GET /counters/NAME` reads one, and `GET /counters` lists them. Each change is a
//! line of the journal, where one is named.
//!
//! `kill -USR2 PID` while it serves, `kill -9 PID`, `selfdump restore server`: it listens again with every counter that
//! the checkpoint had, and its journal goes back to that as well. Connections end with the crash, as with any server;
//! clients connect anew.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

#[derive(Clone)]
struct Table(Arc<Mutex<Counters>>);

struct Counters {
    values: BTreeMap<String, u64>,
    journal: Option<File>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let handle = selfdump::install()?;
    handle
        .on_restore(|restored| println!("back from {}, generation {}", restored.id, restored.generation))?;
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().map_or(Ok(7878), |port| port.parse::<u16>())?;
    let journal = arguments.next().map(File::create).transpose()?;
    let table = Table(Arc::new(Mutex::new(Counters { values: BTreeMap::new(), journal })));
    let routes = Router::new()
        .route("/counters", get(list))
        .route("/counters/{name}", get(read).post(count_up))
        .with_state(table);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("process {} listens on {}", std::process::id(), listener.local_addr()?);
    axum::serve(listener, routes).await?;
    Ok(())
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn list(State(table): State<Table>) -> String {
    format!("{:?}", table.lock().values)
}

async fn read(State(table): State<Table>, Path(name): Path<String>) -> String {
    table.lock().values.get(&name).copied().unwrap_or(0).to_string()
}

/// The counter's new value, which is written down before it is told.
async fn count_up(State(table): State<Table>, Path(name): Path<String>) -> Result<String, StatusCode> {
    let mut counters = table.lock();
    let value = counters.values.get(&name).copied().unwrap_or(0) + 1;
    if let Some(journal) = &mut counters.journal {
        let written = journal.write_all(format!("{name} {value}\n").as_bytes());
        written.map_err(|_| StatusCode::INSUFFICIENT_STORAGE)?;
    }
    counters.values.insert(name, value);
    Ok(value.to_string())
}
