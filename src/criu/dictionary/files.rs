//! Files that are not at the restore what they were at the checkpoint.

use super::Rule;
use crate::error::ErrorKind;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "proc-of-another",
        line: &["Can't open file proc/", "on restore"],
        kind: ErrorKind::FileGone,
        cause: "the program had a file in /proc open of a process that has ended since",
        remedy: "close such files before the checkpoint; `selfdump restore --inherit FD=/dev/null` does without it",
    },
    Rule {
        id: "folder-gone",
        line: &["Can't open cwd"],
        kind: ErrorKind::FileGone,
        cause: "the program's working directory is gone",
        remedy: "make the folder that the line below names, then restore again",
    },
    Rule {
        id: "root-gone",
        line: &["Can't open root"],
        kind: ErrorKind::FileGone,
        cause: "the program's root directory (chroot) is gone",
        remedy: "put back the folder that the line below names, then restore again",
    },
    Rule {
        id: "wrong-build-by-id",
        line: &["has bad build-ID"],
        kind: ErrorKind::FileChanged,
        cause: "a program or library that was running is another build now",
        remedy: "put the build back that was running at the checkpoint, then restore again",
    },
    Rule {
        id: "wrong-build",
        line: &["Can't open vma"],
        kind: ErrorKind::FileChanged,
        cause: "a program, library or other mapped file is not the one that was in use at the checkpoint",
        remedy: "put back the build that was running (the lines below name the file), then restore again",
    },
    Rule {
        id: "file-size",
        line: &["has bad size"],
        kind: ErrorKind::FileChanged,
        cause: "a file that the program was writing has another size now than at the checkpoint",
        remedy: "cut the file back to the size that the line expects (`truncate -s SIZE FILE`; save the tail first), then restore again",
    },
    Rule {
        id: "file-mode",
        line: &["has bad mode"],
        kind: ErrorKind::FileChanged,
        cause: "a file that the program had open has other permissions now than at the checkpoint",
        remedy: "give the file the permissions that the line expects, then restore again",
    },
    Rule {
        id: "file-is-a-folder",
        line: &["Can't open file", "on restore: Is a directory"],
        kind: ErrorKind::FileChanged,
        cause: "there is a folder now where the program had a file open",
        remedy: "put the file back where the line names it, then restore again",
    },
    Rule {
        id: "file-on-read-only-system",
        line: &["Can't open file", "on restore: Read-only file system"],
        kind: ErrorKind::FileChanged,
        cause: "a file that the program was writing is on a file system that is read-only now",
        remedy: "mount it writable (`mount -o remount,rw`), then restore again",
    },
    Rule {
        id: "file-denied",
        line: &["Can't open file", "on restore: Operation not permitted"],
        kind: ErrorKind::FileChanged,
        cause: "a file that the program had open may not be opened so any more: it is immutable or append-only",
        remedy: "take the attribute away (`lsattr FILE`, `chattr -i FILE`), then restore again",
    },
    Rule {
        id: "file-gone",
        line: &["Can't open file", "on restore"],
        kind: ErrorKind::FileGone,
        cause: "a file that the program had open is gone, or the file system that it was on isn't mounted",
        remedy: "put the file back where the line names it, then restore again",
    },
    Rule {
        id: "fifo-gone",
        line: &["Can't open fake fifo"],
        kind: ErrorKind::FileGone,
        cause: "a named pipe that the program had open is gone",
        remedy: "make it again where the line names it (`mkfifo`), then restore again",
    },
    Rule {
        id: "link-gone",
        line: &["Can't link", "link_remap"],
        kind: ErrorKind::FileGone,
        cause: "an open file had lost its name, and the link that CRIU made for it is gone",
        remedy: "there is no way around it: go back to another checkpoint",
    },
    Rule {
        id: "watched-file-gone",
        line: &["fsnotify: Unable to open"],
        kind: ErrorKind::FileGone,
        cause: "a file or folder that the program watches by inotify is gone",
        remedy: "put it back where the line names it, then restore again",
    },
];
