//! What a client of `selfdump service` asks for, judged by the very bytes that CRIU is going to read.
//!
//! It is a list of what is allowed, on the wire: a message that has anything besides, known or not, is refused. So is
//! one that isn't written as protobuf is by everybody: a field that is there twice, say, of which one reader takes the
//! first and another the last.

use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use super::guarded::{FOLDER, LOG, PROTOCOL, check_options};
use super::revival::served;
use super::rpc::{CgroupMode, Options, Request, RequestKind, Response};
use super::version::Version;

/// No request is longer; the library's have about 200 bytes.
pub(crate) const LARGEST: usize = 16 * 1024;

/// The longest that CRIU may be told to try to stop the processes, in seconds.
const LONGEST_TIMEOUT: u32 = 60;

/// More sockets and terminals than this nobody has open to the outside.
const MOST_EXTERNAL: usize = 4096;

/// The options of a dump that may be told, by their numbers.
const ALLOWED: [u32; 27] =
    [1, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 18, 20, 21, 28, 29, 30, 34, 35, 37, 45, 46, 52, 61, 64, 67, 68];

/// What kind of refusal it is, by the number that tells it to the client (errno(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It isn't allowed (EPERM).
    Forbidden = 1,
    /// It went wrong (EIO).
    Failed = 5,
    /// Too much at a time (EBUSY).
    Busy = 16,
    /// No room (ENOSPC).
    NoSpace = 28,
    /// It took too long (ETIMEDOUT).
    Late = 110,
}

/// Why something isn't done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) why: Why,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(why: Why, reason: impl Into<String>) -> Refusal {
        Refusal { why, reason: reason.into() }
    }

    pub(crate) fn forbidden(reason: impl Into<String>) -> Refusal {
        Refusal::new(Why::Forbidden, reason)
    }
}

/// A request that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Which CRIU it is, and whether another request follows.
    Version { keep_open: bool },
    /// What this CRIU and this kernel can do, and whether another request follows.
    Features { keep_open: bool },
    /// Whether this CRIU works on this kernel.
    Check,
    /// The folder for the images of the dump that follows comes along.
    Folder,
    /// A dump of the one who asks, into that folder.
    Dump,
    /// A restore from images that come along.
    Restore,
}

impl Asked {
    /// Its name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Asked::Version { .. } => "version",
            Asked::Features { .. } => "features",
            Asked::Check => "check",
            Asked::Folder => "folder",
            Asked::Dump => "dump",
            Asked::Restore => "restore",
        }
    }

    fn kind(self) -> RequestKind {
        match self {
            Asked::Version { .. } => RequestKind::Version,
            Asked::Features { .. } => RequestKind::FeatureCheck,
            Asked::Check => RequestKind::Check,
            Asked::Folder => RequestKind::Folder,
            Asked::Dump => RequestKind::Dump,
            Asked::Restore => RequestKind::Restore,
        }
    }
}

/// Reads a request; else why it is refused.
pub(crate) fn read(bytes: &[u8]) -> Result<Asked, String> {
    let request = Request::decode(bytes)
        .ok()
        .filter(|_| !bytes.is_empty())
        .ok_or_else(|| format!("{} bytes that are no request", bytes.len()))?;
    let kind = RequestKind::try_from(request.kind).unwrap_or(RequestKind::Empty);
    let asked = match kind {
        RequestKind::Version => Asked::Version { keep_open: request.keep_open == Some(true) },
        RequestKind::FeatureCheck => Asked::Features { keep_open: request.keep_open == Some(true) },
        RequestKind::Check => Asked::Check,
        RequestKind::Folder => Asked::Folder,
        RequestKind::Dump => Asked::Dump,
        RequestKind::Restore => Asked::Restore,
        _ => return Err(unavailable(kind, request.kind)),
    };
    if asked == Asked::Dump {
        let options = request.opts.as_ref().ok_or("a dump without options")?;
        only_allowed(&options.encode_to_vec(), &ALLOWED)?;
        sensible(options)?;
    }
    if asked == Asked::Restore {
        let options = request.opts.as_ref().ok_or("a restore without options")?;
        only_allowed(&options.encode_to_vec(), &served::ALLOWED)?;
        served::sensible(options)?;
    }
    if asked == Asked::Check && request.opts.as_ref() != Some(&check_options()) {
        return Err("a check with other options than `unprivileged`".to_owned());
    }
    // All that is not in this one was not looked at.
    let (features, goes_on) = match asked {
        Asked::Features { .. } => (request.features, request.keep_open),
        Asked::Version { .. } => (None, request.keep_open),
        _ => (None, None),
    };
    let sizes = if asked == Asked::Restore { request.sizes } else { Vec::new() };
    let opts = request.opts.filter(|_| matches!(asked, Asked::Dump | Asked::Check | Asked::Restore));
    let understood =
        Request { kind: request.kind, keep_open: goes_on, opts, features, sizes, ..Request::default() };
    match understood.encode_to_vec() == bytes {
        true => Ok(asked),
        false => {
            Err(format!("more than belongs to a request for the {}, or not written plainly", asked.name()))
        }
    }
}

/// The same request, as it is written by us.
#[cfg(fuzzing)]
pub(crate) fn again(bytes: &[u8]) -> Vec<u8> {
    Request::decode(bytes).expect("what was read before").encode_to_vec()
}

/// Why a kind of request isn't served.
fn unavailable(kind: RequestKind, number: i32) -> String {
    let why = match kind {
        RequestKind::PreDump | RequestKind::SinglePreDump => {
            "it would have a dump build on images that nobody vouches for"
        }
        _ => "it is no part of a checkpoint",
    };
    format!("{} isn't served: {why}", kind_name(kind, number))
}

fn kind_name(kind: RequestKind, number: i32) -> String {
    match kind {
        RequestKind::Empty => format!("request {number}"),
        kind => kind.as_str_name().trim_start_matches("REQUEST_KIND_").to_owned(),
    }
}

/// Looks at the numbers of all options, also of those that we don't know.
fn only_allowed(mut options: &[u8], allowed: &[u32]) -> Result<(), String> {
    while !options.is_empty() {
        let skipped = decode_key(&mut options).and_then(|(number, kind)| {
            skip_field(kind, number, &mut options, DecodeContext::default()).map(|()| number)
        });
        let number = skipped.map_err(|_| "options that can't be read".to_owned())?;
        if !allowed.contains(&number) {
            return Err(format!("the option {} isn't allowed here", option_name(number)));
        }
    }
    Ok(())
}

/// Judges the values of options that are allowed.
fn sensible(options: &Options) -> Result<(), String> {
    let told = |is_so: bool, what: &str| if is_so { Ok(()) } else { Err(what.to_owned()) };
    let off = [
        options.link_remap,
        options.force_irmap,
        options.evasive_devices,
        options.auto_dedup,
        options.track_mem,
        options.auto_ext_mnt,
        options.ext_sharing,
        options.ext_masters,
    ];
    told(options.images_dir_fd == -1, "images_dir_fd names a descriptor of another process")?;
    told(
        options.images_dir.as_deref() == Some(FOLDER.as_bytes()),
        "images_dir names another folder than the one that was handed over",
    )?;
    told(options.leave_running == Some(true), "without leave_running it would end the program")?;
    told(options.unprivileged == Some(true), "without unprivileged")?;
    told(
        options.log_file.as_deref() == Some(LOG.as_bytes()),
        "log_file has another name than that of CRIU's log here",
    )?;
    told(
        options.log_level.is_none_or(|level| (0..=2).contains(&level)),
        "log_level isn't one of errors and warnings: a log that tells more tells of what isn't this user's",
    )?;
    told(
        options.timeout.is_none_or(|seconds| seconds <= LONGEST_TIMEOUT),
        "timeout is longer than a minute",
    )?;
    told(
        options.manage_cgroups_mode.is_none_or(|mode| mode == CgroupMode::Ignore as i32),
        "manage_cgroups_mode is for control groups that are the system's",
    )?;
    told(options.external.len() <= MOST_EXTERNAL, "external names too much")?;
    told(
        options.external.iter().all(|key| is_external(key)),
        "external names something else than a socket or a terminal",
    )?;
    told(
        off.iter().all(|option| *option != Some(true)),
        "one of link_remap, force_irmap, evasive_devices, auto_dedup, track_mem, auto_ext_mnt, ext_sharing and \
         ext_masters is on",
    )
}

/// `unix[INODE]` or `tty[RDEV:DEV]`.
pub(super) fn is_external(key: &[u8]) -> bool {
    let Ok(key) = std::str::from_utf8(key) else { return false };
    let inner = |kind: &str| key.strip_prefix(kind)?.strip_prefix('[')?.strip_suffix(']');
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let terminal = inner("tty").and_then(|inner| inner.split_once(':'));
    inner("unix").is_some_and(|inode| inode.parse::<u32>().is_ok())
        || terminal.is_some_and(|(device, file_system)| hex(device) && hex(file_system))
}

/// CRIU's name for an option, of those that somebody may well try.
fn option_name(number: u32) -> String {
    const NAMES: [(u32, &str); 40] = [
        (2, "pid"),
        (11, "ps"),
        (12, "notify_scripts"),
        (13, "root"),
        (14, "parent_img"),
        (17, "work_dir_fd"),
        (19, "veths"),
        (22, "exec_cmd"),
        (23, "ext_mnt"),
        (24, "manage_cgroups"),
        (25, "cg_root"),
        (26, "rst_sibling"),
        (27, "inherit_fd"),
        (31, "skip_mnt"),
        (32, "enable_fs"),
        (33, "unix_sk_ino"),
        (36, "irmap_scan_paths"),
        (37, "external"),
        (38, "empty_ns"),
        (39, "join_ns"),
        (41, "cgroup_props"),
        (42, "cgroup_props_file"),
        (43, "cgroup_dump_controller"),
        (44, "freeze_cgroup"),
        (48, "lazy_pages"),
        (49, "status_fd"),
        (50, "orphan_pts_master"),
        (51, "config_file"),
        (53, "lsm_profile"),
        (54, "tls_cacert"),
        (57, "tls_key"),
        (58, "tls"),
        (60, "cgroup_yard"),
        (62, "pidfd_store_sk"),
        (63, "lsm_mount_context"),
        (65, "mntns_compat_mode"),
        (66, "skip_file_rwx_check"),
        (68, "images_dir"),
        (69, "leave_stopped"),
        (71, "log_to_stderr"),
    ];
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("number {number}"), |(_, name)| (*name).to_owned())
}

/// The answer that all went well.
pub(crate) fn done(asked: Asked, version: Option<&Version>) -> Vec<u8> {
    let version = version.map(|version| super::rpc::Version {
        major_number: version.major,
        minor_number: version.minor,
        sublevel: Some(version.patch),
        ..Default::default()
    });
    answer(Response { kind: asked.kind() as i32, success: true, version, ..Response::default() })
}

/// The answer that it didn't, and why.
pub(crate) fn refused(asked: Option<Asked>, refusal: &Refusal) -> Vec<u8> {
    answer(Response {
        kind: asked.map_or(RequestKind::Empty, Asked::kind) as i32,
        cr_errmsg: Some(refusal.reason.clone().into_bytes()),
        cr_errno: Some(refusal.why as i32),
        ..Response::default()
    })
}

fn answer(response: Response) -> Vec<u8> {
    Response { service: Some(PROTOCOL), ..response }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::DumpOptions;
    use crate::frozen::{Needs, Outside, OutsideKind};

    fn options() -> Options {
        let outside =
            Outside { kind: OutsideKind::UnixSocket, key: "unix[4711]".into(), descriptors: vec![1] };
        let needs = Needs { unprivileged: true, outside: vec![outside], ..Needs::default() };
        DumpOptions::new(FOLDER, needs).encode().unwrap()
    }

    fn dump(options: Options) -> Vec<u8> {
        Request { kind: RequestKind::Dump as i32, opts: Some(options), ..Request::default() }.encode_to_vec()
    }

    #[test]
    fn what_the_library_asks_for_is_allowed() {
        assert_eq!(read(&dump(options())), Ok(Asked::Dump));
        let version = Request { kind: 10, keep_open: Some(true), ..Request::default() };
        assert_eq!(read(&version.encode_to_vec()), Ok(Asked::Version { keep_open: true }));
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused_wherever_it_stands() {
        let plain = dump(options());
        let outside: Vec<u8> = plain.iter().copied().chain([0x98, 0x06, 1]).collect();
        assert!(read(&outside).unwrap_err().contains("not written plainly"));
        // In the options: their length, a byte of two that follow the kind and the key, grows by three.
        let mut inside = plain;
        inside.extend([0x98, 0x06, 1]);
        inside[3] += 3;
        assert!(read(&inside).is_err());
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let mut twice = dump(options());
        twice.extend([0x08, 1]);
        assert!(read(&twice).unwrap_err().contains("not written plainly"));
    }

    #[test]
    fn only_sockets_and_terminals_are_left_outside() {
        assert!(is_external(b"unix[1]") && is_external(b"tty[8803:18]"));
        for key in ["mnt[]:m", "file[1:2]", "net[1]:x", "unix[1]x", "unix[]", "tty[:]", "tty[1]", "unix[-1]"]
        {
            assert!(!is_external(key.as_bytes()), "{key}");
        }
    }
}
