//! `selfdump images`.

use std::path::PathBuf;

use anyhow::Result;
use selfdump::Entry;
use selfdump::inspect::{self, Content, ImageFile, ImageMessage};
use serde::Serialize;

use crate::{ReadArgs, output};

/// List the images of a checkpoint, or show all that is in them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An id from the list, a program's NAME (its newest checkpoint), or a checkpoint's FOLDER
    #[arg(value_name = "ID | NAME | FOLDER")]
    target: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Print every message of every image as JSON, by the names that CRIU has for the fields (docs/format.md)
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing {
    format_version: u32,
    id: String,
    images: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    file: ImageFile,
    messages: Vec<ImageMessage>,
}

pub fn run(args: &Args) -> Result<()> {
    let (entry, _) = args.read.newest(&args.target)?;
    let images = rows(&entry)?;
    if args.json {
        let listing = Listing { format_version: 1, id: entry.id(), images };
        println!("{}", serde_json::to_string_pretty(&listing)?);
        return Ok(());
    }
    println!("{}", entry.id());
    let mut table = output::Table::new(["IMAGE", "SIZE", "MESSAGES", "WHAT"], &[1, 2]);
    for Row { file, messages } in &images {
        let what = match file.content {
            Content::Messages => unknown(messages),
            Content::Pages => "pages of memory".to_owned(),
            Content::Foreign => "of ip, iptables, nft or tar".to_owned(),
            Content::Aside => "no image".to_owned(),
            _ => "of a kind that isn't read".to_owned(),
        };
        table.add_row([&file.name, &file.size_bytes.to_string(), &messages.len().to_string(), &what]);
    }
    table.print();
    Ok(())
}

fn rows(entry: &Entry) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in inspect::images(entry)? {
        let messages = match file.content {
            Content::Messages => inspect::messages(entry, &file.name)?,
            _ => None,
        };
        let messages = messages.into_iter().flatten().collect::<Result<_, selfdump::Error>>()?;
        rows.push(Row { file, messages });
    }
    Ok(rows)
}

/// What a newer CRIU has put into an image, if anything.
fn unknown(messages: &[ImageMessage]) -> String {
    let mut fields: Vec<&str> =
        messages.iter().flat_map(|message| &message.unknown_fields).map(String::as_str).collect();
    fields.sort_unstable();
    fields.dedup();
    if fields.is_empty() { String::new() } else { format!("unknown fields: {}", fields.join(" ")) }
}
