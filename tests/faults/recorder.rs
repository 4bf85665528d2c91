//! A disk that remembers every write and every flush: a file of a file system of our own (FUSE), on which a loop device
//! stands. What a program has on it can be looked at as it is after the power has failed at any moment.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::harness::{eventually, succeeds};

/// What a disk is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// These bytes are to stand at this place, sooner or later.
    Write(usize, Vec<u8>),
    /// All that was written before stays, whatever happens.
    Flush,
}

/// What was on the disk at first, and what it was told since.
struct Told {
    contents: Vec<u8>,
    events: Vec<Event>,
}

/// The disk, with the file that it is.
pub struct Recorder {
    folder: PathBuf,
    told: Arc<Mutex<Told>>,
    server: Option<JoinHandle<()>>,
}

impl Recorder {
    /// A disk that holds this at first, as a file in a folder that is there for it.
    pub fn start(folder: &Path, contents: Vec<u8>) -> Recorder {
        let told = Arc::new(Mutex::new(Told { contents, events: Vec::new() }));
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("FUSE");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Path::new("recorder"), folder, "fuse", &options);
        let serving = Arc::clone(&told);
        let server = std::thread::spawn(move || serve(device, &serving));
        Recorder { folder: folder.to_owned(), told, server: Some(server) }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// How much it has been told.
    pub fn length(&self) -> usize {
        self.told.lock().expect("no panic").events.len()
    }

    /// All that it has been told.
    pub fn events(&self) -> Vec<Event> {
        self.told.lock().expect("no panic").events.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        unmount(&self.folder);
        let ended = self.server.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "the disk panicked");
    }
}

/// A file with a file system on a loop device, until it is dropped.
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    pub fn new(file: &Path, at: &Path, options: &str) -> Mounted {
        let _ = fs::create_dir(at);
        succeeds(Command::new("mount").args(["-o", &format!("loop,{options}")]).arg(file).arg(at));
        Mounted { at: at.to_owned() }
    }
}

impl Drop for Mounted {
    /// Nothing is written to the file when this is over.
    fn drop(&mut self) {
        let unmounted = || succeeded(Command::new("umount").arg(&self.at).stderr(Stdio::null()));
        if std::thread::panicking() {
            unmount(&self.at);
        } else {
            eventually("a disk that nobody uses", || unmounted().then_some(()));
        }
    }
}

fn succeeded(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// An ext4 of so many MiB.
pub fn formatted(file: &Path, mebibytes: usize) -> Vec<u8> {
    File::create(file).and_then(|file| file.set_len((mebibytes as u64) << 20)).expect("a file");
    succeeds(Command::new("mkfs.ext4").args(["-q", "-E", "nodiscard,lazy_itable_init=0"]).arg(file));
    fs::read(file).expect("the file")
}

fn mount(what: &Path, at: &Path, kind: &str, options: &str) {
    let text = |path: &Path| CString::new(path.to_str().expect("UTF-8")).expect("no zero");
    let (what, at) = (text(what), text(at));
    let (kind, options) = (CString::new(kind).expect("no zero"), CString::new(options).expect("no zero"));
    // SAFETY: the strings end with a zero and live as long as the call.
    let done = unsafe {
        libc::mount(what.as_ptr(), at.as_ptr(), kind.as_ptr(), libc::MS_NOATIME, options.as_ptr().cast())
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn unmount(at: &Path) {
    let at = CString::new(at.to_str().expect("UTF-8")).expect("no zero");
    // SAFETY: the string ends with a zero and lives as long as the call.
    unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
}

// The rest is the kernel's protocol, of linux/fuse.h, as far as one file that is there needs it.

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

/// The most that is written at once.
const LARGEST: usize = 128 << 10;

/// The lengths of the headers of a request, of an answer, and of a write.
const HEAD: usize = 40;
const ANSWER: usize = 16;

const FOLDER: u64 = 1;
const DISK: u64 = 2;

/// Serves the kernel until the file system is unmounted.
fn serve(mut device: File, told: &Mutex<Told>) {
    let mut buffer = vec![0; LARGEST + 4096];
    // ENODEV is the end.
    while let Ok(length) = device.read(&mut buffer) {
        let request = &buffer[..length];
        let answer = match number(request, 4) as u32 {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            operation => answer(operation, request, &mut told.lock().expect("no panic")),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut message = ((ANSWER + body.len()) as u32).to_le_bytes().to_vec();
        message.extend(error.to_le_bytes());
        message.extend(&request[8..16]);
        message.extend(body);
        // A request that was given up has no use for it.
        let _ = device.write(&message);
    }
}

fn answer(operation: u32, request: &[u8], told: &mut Told) -> Result<Vec<u8>, i32> {
    let node = long(request, 16);
    let body = &request[HEAD..];
    let size = told.contents.len() as u64;
    match operation {
        INIT => Ok(numbers(&[7, 31, 0, 0, 0, LARGEST as u32, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        LOOKUP if body.starts_with(b"disk\0") => {
            Ok([longs(&[DISK, 0, 1000, 1000]), numbers(&[0, 0]), attributes(DISK, size)].concat())
        }
        LOOKUP => Err(libc::ENOENT),
        GETATTR | SETATTR => Ok([longs(&[1000, 0]), attributes(node, size)].concat()),
        OPEN => Ok(vec![0; 16]),
        READ => {
            let from = (long(body, 8) as usize).min(told.contents.len());
            let to = (from + number(body, 16) as usize).min(told.contents.len());
            Ok(told.contents[from..to].to_vec())
        }
        WRITE => {
            let (at, length) = (long(body, 8) as usize, number(body, 16) as usize);
            let bytes = &body[40..40 + length];
            told.contents[at..at + length].copy_from_slice(bytes);
            told.events.push(Event::Write(at, bytes.to_vec()));
            Ok(numbers(&[length as u32, 0]))
        }
        FSYNC => {
            told.events.push(Event::Flush);
            Ok(Vec::new())
        }
        FLUSH | RELEASE | DESTROY => Ok(Vec::new()),
        _ => Err(libc::ENOSYS),
    }
}

/// A struct fuse_attr.
fn attributes(node: u64, size: u64) -> Vec<u8> {
    let (mode, size) = if node == FOLDER { (0o40700, 0) } else { (0o100_600, size) };
    [longs(&[node, size, size / 512, 0, 0, 0]), numbers(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn numbers(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn longs(all: &[u64]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_le_bytes()).collect()
}
