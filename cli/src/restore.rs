//! `selfdump restore`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use selfdump::restore::{self, Ended, FileAction, FilePlan, Filling, Guard, Revived};
use selfdump::{Entry, FilePolicy, FileRule};
use serde::Serialize;

use crate::{Front, ReadArgs};

/// The exit status where the program was not brought back: one that programs themselves seldom use.
pub const FAILURE: u8 = 125;

/// Bring a program back from its newest good checkpoint
///
/// The program gets the process id that it had, goes on from where it was, and this command stands for it: signals
/// are passed on, its exit status (or death by a signal) becomes ours. Standard streams that were pipes are connected
/// to those of this command. Where it is killed itself, the program ends with it. 125 is the exit status if the program can't be brought back.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program's NAME, an id from the list, or a FOLDER: a store, an instance or one checkpoint [default: the store]
    #[arg(value_name = "NAME | FOLDER")]
    target: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    /// Let the program run by itself, and return as soon as it runs
    #[arg(long)]
    detach: bool,
    /// Bring it back in a pid namespace of its own, in which its process ids are free whoever has them here. It ends
    /// with this command; a death by a signal is the exit status 128 and the signal's number. As root
    #[arg(long, conflicts_with = "detach")]
    pidns: bool,
    /// The program is known to have ended, though that can't be seen from the namespace that this runs in
    #[arg(long, hide = true)]
    has_ended: bool,
    /// Leave the program stopped, to look at it with a debugger from another terminal: `gdb -p PID`. `kill -CONT PID`
    /// lets it go on. This command has to stay: the kernel ends stopped programs whose parent is gone
    #[arg(long, conflicts_with = "detach")]
    stopped: bool,
    /// Pass a setting in, for the program to find in Restored::settings(). May be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// What becomes of files that have changed since the checkpoint: POLICY:PATTERN, where the policy is `rewind` (cut
    /// back to what it was; what is cut off is kept beside the checkpoint), `keep` or `fail`. May be given more than
    /// once, the first that matches counts [default: rewind what only this program wrote, keep what others append to]
    #[arg(long, value_name = "RULE", num_args = 1.., value_parser = rule)]
    files: Vec<FileRule>,
    /// Open FILE in the place of a descriptor that led to another program: a pipe, a socket, a terminal. May be given
    /// more than once [default: standard streams are connected to ours, other connections have hung up]
    #[arg(long, value_name = "FD=FILE", value_parser = inherit)]
    inherit: Vec<(i32, PathBuf)>,
    /// What becomes of TCP connections: `close` has the program see them closed, as after a crash; `keep` restores
    /// them, for whoever has kept the other end from noticing, from a checkpoint that was made with SELFDUMP_KEEP_TCP=on
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Tcp::Close)]
    tcp: Tcp,
    /// Have the program run as soon as it can, while its memory is still being filled (docs/lazy.md). Where that can't be
    /// had, or fails halfway, all of it is restored at once, which is said. With --detach this returns when it is filled
    #[arg(long, conflicts_with = "stopped")]
    lazy: bool,
    /// Go on where the program's build, the processor or the memory is not what the program needs
    #[arg(long)]
    force: bool,
    /// Restore a checkpoint that others can have written as well, as another user's: whoever can has whatever they like
    /// run with your rights
    #[arg(long)]
    trust: bool,
    /// Tell what would become of the files, and restore nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON about the restore: on standard output with --detach, else on standard error, since standard
    /// output is the program's
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    format_version: u32,
    restored: String,
    path: &'a PathBuf,
    pid: i32,
    generation: u64,
    skipped: Vec<Skipped>,
    files: &'a [FilePlan],
    /// Where what was taken from files is kept.
    cut: Option<&'a PathBuf>,
}

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct Plan<'a> {
    format_version: u32,
    checkpoint: String,
    files: &'a [FilePlan],
}

/// A newer checkpoint that is damaged.
#[derive(Serialize)]
struct Skipped {
    id: String,
    problem: String,
}

/// What becomes of TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Tcp {
    Close,
    Keep,
}

/// Splits `FD=FILE`.
fn inherit(text: &str) -> Result<(i32, PathBuf), String> {
    let split = text.split_once('=').filter(|(_, file)| !file.is_empty());
    let parsed = split.and_then(|(fd, file)| Some((fd.parse().ok().filter(|&fd| fd >= 0)?, file.into())));
    parsed.ok_or_else(|| "it is written as FD=FILE, such as 0=/dev/null".to_owned())
}

/// A rule for files; its error with the form.
fn rule(text: &str) -> Result<FileRule, String> {
    text.parse().map_err(|error: selfdump::Error| error.hint().unwrap_or_default().to_owned())
}

/// Splits `KEY=VALUE`; the value may hold any more `=`.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is written as KEY=VALUE".to_owned()),
    }
}

/// `arguments` are those that this command was given.
pub fn run(args: &Args, front: &Front, arguments: &[OsString]) -> Result<()> {
    let again = front.again(arguments);
    let (store, mut options) = args.read.options()?;
    options.stopped = args.stopped;
    options.settings = args.set.iter().cloned().collect();
    options.inherit = args.inherit.iter().cloned().collect();
    options.detached = args.detach;
    options.has_ended = args.has_ended;
    (options.force, options.trust) = (args.force, args.trust);
    options.keep_tcp = args.tcp == Tcp::Keep;
    options.files.splice(0..0, args.files.iter().cloned());
    options.lazy = args.lazy;
    let (store, target) = (store.as_path(), args.target.as_deref());
    if args.dry_run {
        return dry_run(&restore::newest_good(store, target, &mut passed_over)?, &options, args.json);
    }
    // Also where the program is left to itself: one that came halfway would be of no use.
    restore::hold_signals()?;
    if !args.detach {
        if args.pidns {
            let newest = restore::newest_good(store, target, &mut passed_over)?;
            restore::end_alike(restore::in_a_pid_namespace(inside(&again, &newest, &options)?)?);
        }
        if args.inherit.is_empty() && restore::needs_a_terminal(store, target)? {
            restore::end_alike(restore::at_a_terminal(ourselves(&again)?)?);
        }
    }
    // One whose memory isn't whole yet can't be left to itself.
    options.guard = if args.detach && !args.lazy { None } else { guard(front) };
    let ended = loop {
        match once(args, store, target, &options)? {
            Stay::Ended(ended) => break ended,
            Stay::LeftAlone => return Ok(()),
            Stay::Lost(error) => {
                eprintln!("selfdump: {}; it is restored once more, all of it at once", error.chain());
                options.lazy = false;
            }
        }
    };
    drop(options);
    restore::end_alike(ended)
}

/// How a program's stay with this command ended.
enum Stay {
    Ended(Ended),
    /// It goes on by itself.
    LeftAlone,
    /// It had to be ended, since its memory couldn't be filled.
    Lost(selfdump::Error),
}

/// Brings the program back and stays with it.
fn once(args: &Args, store: &Path, target: Option<&Path>, options: &restore::Options) -> Result<Stay> {
    let mut skipped = Vec::new();
    let mut skip = |entry: &Entry, error: &selfdump::Error| {
        passed_over(entry, error);
        skipped.push(Skipped { id: entry.id(), problem: error.chain() });
    };
    let (entry, mut revived) = restore::bring_back(store, target, options, &mut skip)?;
    if args.detach {
        if let Some(Err(error)) = revived.filling.as_mut().map(Filling::wait) {
            return Ok(Stay::Lost(error));
        }
    }
    tell(args, &entry, &revived, skipped)?;
    if args.detach {
        return Ok(Stay::LeftAlone);
    }
    let ended = restore::attend(revived.pid, revived.relay, revived.keeper.as_ref())?;
    let filled = revived.filling.map_or(Ok(()), |mut filling| filling.explains(ended));
    Ok(filled.map_or_else(Stay::Lost, |()| Stay::Ended(ended)))
}

fn passed_over(entry: &Entry, error: &selfdump::Error) {
    eprintln!("selfdump: passed over {}: {}", entry.id(), error.chain());
}

/// Says what was brought back.
fn tell(args: &Args, entry: &Entry, revived: &Revived, skipped: Vec<Skipped>) -> Result<()> {
    let pid = revived.pid;
    if args.json {
        let report = Report {
            format_version: 1,
            restored: entry.id(),
            path: &entry.path,
            pid,
            // The life that begins is one later than the one that was dumped.
            generation: entry.manifest.as_ref().map_or(0, |manifest| manifest.generation() + 1),
            skipped,
            files: &revived.files,
            cut: revived.cut.as_ref(),
        };
        let text = serde_json::to_string(&report)?;
        if args.detach { println!("{text}") } else { eprintln!("{text}") }
    } else {
        tell_of_files(revived);
        match args.detach {
            true => println!("restored {} as process {pid}", entry.id()),
            false => eprintln!("selfdump: restored {} as process {pid}", entry.id()),
        }
    }
    Ok(())
}

/// Who ends the program when this command is killed. In a pid namespace of its own, of which this is the first process,
/// the kernel does.
fn guard(front: &Front) -> Option<Arc<Guard>> {
    if std::process::id() == 1 {
        return None;
    }
    let post = || anyhow::Ok(Guard::post(command(&front.again(&["guard".into()]))?)?);
    post()
        .inspect_err(|error| {
            eprintln!("selfdump: were this command killed, the program would go on: {error:#}")
        })
        .ok()
        .map(Arc::new)
}

/// This command once more.
fn ourselves(again: &[OsString]) -> Result<Command> {
    let again: Vec<OsString> = again.iter().filter(|argument| *argument != "--pidns").cloned().collect();
    command(&again)
}

fn command(words: &[OsString]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("nobody knows how this command was started")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// This command once more, for a pid namespace from which nothing of this one can be seen: who has ended, and who else
/// writes to the program's files, is told to it.
fn inside(again: &[OsString], entry: &Entry, options: &restore::Options) -> Result<Command> {
    let mut command = ourselves(again)?;
    if restore::has_ended(entry)? {
        command.arg("--has-ended");
    }
    for file in restore::plan(entry, options)? {
        let policy = match file.action {
            FileAction::Rewind { .. } => FilePolicy::Rewind,
            FileAction::Keep { .. } => FilePolicy::Keep,
            _ => continue,
        };
        command.arg(format!("--files={}", FileRule::for_file(policy, &file.path)));
    }
    Ok(command)
}

/// Says what was done with files, where something was.
fn tell_of_files(revived: &Revived) {
    for file in &revived.files {
        let path = file.path.display();
        match &file.action {
            FileAction::Rewind { to, cut } => {
                eprintln!("selfdump: cut {path} back to {to} ({cut} off): {}", file.why)
            }
            FileAction::Recreate { size } => {
                eprintln!("selfdump: put back {path} from its copy ({size}): {}", file.why)
            }
            FileAction::SetAside => eprintln!("selfdump: moved {path} aside: {}", file.why),
            FileAction::Keep { size } => eprintln!("selfdump: kept {path} as it is ({size}): {}", file.why),
            _ => {}
        }
    }
    if let Some(folder) = &revived.cut {
        eprintln!("selfdump: what was taken from files is in {}", folder.display());
    }
}

fn dry_run(entry: &Entry, options: &restore::Options, json: bool) -> Result<()> {
    let entry = &entry.open(&options.identities)?;
    let files = restore::plan(entry, options)?;
    if json {
        let plan = Plan { format_version: 1, checkpoint: entry.id(), files: &files };
        println!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(());
    }
    println!("{} would be restored, and of its files", entry.id());
    let fits = if options.force { Ok(()) } else { restore::check_fit(entry) };
    let is_trusted = if options.trust { Ok(()) } else { restore::check_trust(entry) };
    for error in [is_trusted, fits].into_iter().filter_map(Result::err) {
        println!("  but {}", error.chain());
        println!("    help: {}", error.hint().unwrap_or_default());
    }
    for file in &files {
        let what = match &file.action {
            FileAction::Rewind { to, cut } => format!("cut back to {to}, {cut} off"),
            FileAction::Recreate { size } => format!("put back from its copy (recreate), {size}"),
            FileAction::SetAside => "moved aside".to_owned(),
            FileAction::Keep { size } => format!("kept as it is, {size}"),
            FileAction::Refuse { .. } => "the restore would be refused".to_owned(),
            _ => "left alone".to_owned(),
        };
        println!("  {}: {what}\n    {}", file.path.display(), file.why);
        if let FileAction::Refuse { remedy } = &file.action {
            println!("    help: {remedy}");
        }
    }
    Ok(())
}
