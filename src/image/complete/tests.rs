//! Images made by hand: of process 700, the copy that thread 502 of process 500 has made.

use std::collections::BTreeMap;

use prost::Message;

use super::*;
use crate::image::file::Writer;
use crate::image::images::{
    Core, DumpStats, EventFd, EventPoll, EventPollTarget, FdInfo, FileKind, FileLock, OpenFile, Pipe,
    PipeData, RegularFile, Rseq, Task, ThreadCore, X86Floats, X86Registers, X86Thread,
};
use crate::image::testing::Folder;
use crate::sys::snapshot::moment::{Contents, Descriptor, IntervalTimer, Registers, Thread};

const COPY: i32 = 700;
const LEASH: i32 = 9;
const PAUSE: Pause = Pause { freezing: Duration::from_micros(111), frozen: Duration::from_millis(2) };

const LOCKS: Image = Image { kind: Kind::FileLocks, number: 0 };
const PIPES: Image = Image { kind: Kind::PipesData, number: 0 };
const TERMINALS: Image = Image { kind: Kind::TerminalInfo, number: 0 };

/// What CRIU wrote of the copy.
fn images() -> Folder {
    let folder = Folder::new();
    let item = TreeItem { pid: 700, ppid: 0, pgid: 3, sid: 2, threads: vec![700] };
    folder.write(Image::TREE, &[item]);
    folder.write(Image::of(Kind::Core, 700_u32), &[core()]);
    folder.write(Image::of(Kind::Ids, 700_u32), &[ObjectIds { files_id: 2, ..ObjectIds::default() }]);
    for kind in [Kind::Memory, Kind::Pagemap, Kind::Place] {
        folder.overwrite(Image::of(kind, 700_u32), kind.magic()[1].to_string().as_bytes());
    }
    let dump = DumpStats { freezing_time: 7, frozen_time: 8, pages_written: 9, ..DumpStats::default() };
    folder.write(Image::DUMP_STATS, &[Stats { dump: Some(dump), ..Stats::default() }]);
    folder.write(Image::of(Kind::FdInfo, 2_u32), &table().map(|(fd, kind, id)| entry(fd, kind, id)));
    folder.write(Image::FILES, &files());
    write_pipes(&folder, &[(31, b"later"), (99, b"")]);
    folder
}

fn core() -> Core {
    let fpregs = X86Floats { st_space: vec![0; 32], xmm_space: vec![5; 64], ..X86Floats::default() };
    let gpregs = X86Registers { ip: 40, mode: Some(1), ..X86Registers::default() };
    let info = X86Thread { clear_tid_addr: 1, gpregs, fpregs, ..X86Thread::default() };
    let own = ThreadCore {
        pdeath_sig: Some(9),
        seccomp_mode: Some(2),
        rseq_entry: Some(Rseq::default()),
        ..ThreadCore::default()
    };
    let task = Task { task_state: 3, stop_signo: Some(19), loginuid: Some(8), ..Task::default() };
    Core { mtype: 1, thread_info: Some(info), tc: Some(task), thread_core: Some(own), ..Core::default() }
}

fn table() -> [(i32, FileKind, u32); 6] {
    [
        (3, FileKind::Regular, 1),
        (4, FileKind::Regular, 1),
        (5, FileKind::Pipe, 2),
        (6, FileKind::EventFd, 3),
        (7, FileKind::EventPoll, 4),
        (LEASH, FileKind::Pipe, 5),
    ]
}

fn entry(fd: i32, kind: FileKind, id: u32) -> FdInfo {
    FdInfo { id, r#type: kind.into(), fd: fd as u32, ..FdInfo::default() }
}

fn files() -> [OpenFile; 5] {
    let file = |kind: FileKind, id| OpenFile { r#type: kind.into(), id, ..OpenFile::default() };
    let regular = RegularFile { id: 1, flags: 0o104_002, pos: 80, size: Some(90), ..RegularFile::default() };
    let pipe = |id, pipe_id| Pipe { id, pipe_id, ..Pipe::default() };
    let target = EventPollTarget { tfd: 5, data: 7, dev: Some(0xf), inode: Some(31), ..Default::default() };
    [
        OpenFile { reg: Some(regular), ..file(FileKind::Regular, 1) },
        OpenFile { pipe: Some(pipe(2, 31)), ..file(FileKind::Pipe, 2) },
        OpenFile {
            efd: Some(EventFd { id: 3, counter: 1, ..EventFd::default() }),
            ..file(FileKind::EventFd, 3)
        },
        OpenFile {
            epfd: Some(EventPoll { id: 4, tfd: vec![target], ..EventPoll::default() }),
            ..file(FileKind::EventPoll, 4)
        },
        OpenFile { pipe: Some(pipe(5, 99)), ..file(FileKind::Pipe, 5) },
    ]
}

fn write_pipes(folder: &Folder, pipes: &[(u32, &[u8])]) {
    let mut writer = Writer::new(PIPES);
    for (pipe_id, contents) in pipes {
        let entry = PipeData { pipe_id: *pipe_id, bytes: contents.len() as u32, size: Some(65_536) };
        writer.put(&entry.encode_to_vec());
        writer.put_contents(contents);
    }
    folder.overwrite(PIPES, writer.bytes());
}

/// What was noted.
fn moment() -> Moment {
    let general = Some(Registers { general: (0..27).collect(), extended: vec![0; 576] });
    let thread = |tid, registers| Thread {
        tid,
        registers,
        name: format!("thread {tid}\n").into(),
        blocked: tid as u64,
        tid_address: 1_000 + tid as u64,
        waiting: vec![vec![tid as u8; 128]],
        ..Thread::default()
    };
    let noted = |fd, info: &str| Descriptor { fd, info: format!("pos:\t0\n{info}"), ..Descriptor::default() };
    let lock = "lock:\t1: POSIX  ADVISORY  WRITE 500 08:02:1234 2 6\n";
    let regular = |fd| Descriptor {
        size: Some(50),
        info: format!("pos:\t40\nflags:\t02102002\n{lock}"),
        ..noted(fd, "")
    };
    let contents = Contents { bytes: b"then".into(), capacity: 4_096 };
    Moment {
        pid: 500,
        process_group: 50,
        session: 5,
        threads: vec![thread(500, general.clone()), thread(501, general), thread(502, None)],
        waiting: vec![vec![1; 128], vec![2; 128]],
        oom_score_adj: -17,
        interval_timers: [
            IntervalTimer { value_us: 1_000_002, interval_us: 3 },
            Default::default(),
            Default::default(),
        ],
        descriptors: vec![
            regular(3),
            regular(4),
            Descriptor { contents: Some(contents), inode: 31, ..noted(5, "flags:\t04000\n") },
            noted(6, "flags:\t02\neventfd-count:               1f\n"),
            noted(
                7,
                "flags:\t02\ntfd:       88 events:        1 data:                7  pos:0 ino:1f sdev:f\n",
            ),
        ],
        ..Moment::default()
    }
}

fn completed() -> Folder {
    let folder = images();
    complete(folder.path(), COPY, LEASH, &moment(), PAUSE).unwrap();
    folder
}

fn one<M: Message + Default>(folder: &Folder, image: Image) -> M {
    image.read_one(folder.path()).unwrap()
}

fn all<M: Message + Default>(folder: &Folder, image: Image) -> Vec<M> {
    image.read_all(folder.path()).unwrap().collect::<Result<_>>().unwrap()
}

/// What stands in a folder, by name.
fn contents(folder: &Folder) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    let named =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
    named.collect()
}

/// The text of the failure, after which every image is as it was.
fn failure(folder: &Folder, moment: &Moment) -> String {
    let before = contents(folder);
    let text = complete(folder.path(), COPY, LEASH, moment, PAUSE).unwrap_err().to_string();
    let mut after = contents(folder);
    after.retain(|name, _| !name.ends_with(".new"));
    assert_eq!(before, after);
    text
}

#[test]
fn the_process_has_its_own_ids_and_threads() {
    let folder = completed();
    let expected = TreeItem { pid: 500, ppid: 0, pgid: 50, sid: 5, threads: vec![500, 501, 502] };
    assert_eq!(all::<TreeItem>(&folder, Image::TREE), [expected]);
}

#[test]
fn nothing_is_named_for_the_copy_any_more() {
    let before = images();
    let (before, after) = (contents(&before), contents(&completed()));
    assert!(after.keys().all(|name| !name.contains("700") && !name.ends_with(".new")), "{:?}", after.keys());
    for stem in ["mm", "pagemap", "fs", "ids"] {
        assert_eq!(before[&format!("{stem}-700.img")], after[&format!("{stem}-500.img")]);
    }
}

#[test]
fn each_thread_has_its_registers_and_the_maker_of_the_copy_has_the_copy_s() {
    let folder = completed();
    let infos =
        [500_u32, 501, 502].map(|tid| one::<Core>(&folder, Image::of(Kind::Core, tid)).thread_info.unwrap());
    assert_eq!(infos.each_ref().map(|info| info.gpregs.ip), [16, 16, 40]);
    assert_eq!(infos.each_ref().map(|info| info.gpregs.mode), [Some(1); 3]);
    assert_eq!(infos.each_ref().map(|info| info.fpregs.xmm_space[0]), [0, 0, 5]);
    assert_eq!(infos.each_ref().map(|info| info.clear_tid_addr), [1_500, 1_501, 1_502]);
}

#[test]
fn the_main_thread_s_image_has_what_the_process_has() {
    let folder = completed();
    let core: Core = one(&folder, Image::of(Kind::Core, 500_u32));
    let task = core.tc.unwrap();
    assert_eq!((task.task_state, task.stop_signo, task.loginuid), (1, None, Some(8)));
    assert_eq!((task.blk_sigset, &*task.comm, task.oom_score_adj), (500, &b"thread 500"[..], Some(-17)));
    assert_eq!(task.signals_s.unwrap().signals.len(), 2);
    let real = task.timers.unwrap().real;
    assert_eq!((real.isec, real.iusec, real.vsec, real.vusec), (0, 3, 1, 2));
    assert_eq!(core.thread_core.unwrap().blk_sigset, None);
}

#[test]
fn another_thread_s_image_has_only_what_is_the_thread_s() {
    let folder = completed();
    let core: Core = one(&folder, Image::of(Kind::Core, 502_u32));
    assert_eq!(core.tc, None);
    let own = core.thread_core.unwrap();
    assert_eq!((own.blk_sigset, own.comm.as_deref()), (Some(502), Some(&b"thread 502"[..])));
    assert_eq!((own.pdeath_sig, own.sched_prio, own.seccomp_mode), (None, None, Some(2)));
    assert_eq!(own.signals_p.unwrap().signals[0].siginfo, [502_i32 as u8; 128]);
}

#[test]
fn a_process_of_one_thread_makes_its_copy_itself() {
    let folder = images();
    let mut moment = moment();
    moment.threads.drain(..2);
    moment.threads[0].tid = 500;
    complete(folder.path(), COPY, LEASH, &moment, PAUSE).unwrap();
    let core: Core = one(&folder, Image::of(Kind::Core, 500_u32));
    assert_eq!((core.thread_info.unwrap().gpregs.ip, core.tc.unwrap().task_state), (40, 1));
}

#[test]
fn open_files_are_what_they_were() {
    let folder = completed();
    let files: Vec<OpenFile> = all(&folder, Image::FILES);
    let regular = files[0].reg.as_ref().unwrap();
    // O_APPEND came, O_NONBLOCK went, O_CLOEXEC is none of the file's, and the rest is CRIU's.
    assert_eq!((regular.pos, regular.size, regular.flags), (40, Some(50), 0o102_002));
    assert_eq!(files[1].pipe.unwrap().flags, 0o4_000);
    assert_eq!(files[2].efd.as_ref().unwrap().counter, 0x1f);
}

#[test]
fn a_watch_goes_by_the_descriptor_that_criu_found_for_it() {
    let folder = completed();
    let files: Vec<OpenFile> = all(&folder, Image::FILES);
    let [watch] = &*files[3].epfd.as_ref().unwrap().tfd else { panic!("one watch") };
    assert_eq!((watch.tfd, watch.events, watch.data), (5, 1, 7));
    let mut moment = moment();
    moment.descriptors[4].info = moment.descriptors[4].info.replace("data:                7", "data: 8");
    let text = failure(&images(), &moment);
    assert!(text.ends_with("epoll instance 7 watches 88, which is closed"), "{text}");
}

#[test]
fn the_leash_is_gone_with_its_pipe() {
    let folder = completed();
    let table: Vec<FdInfo> = all(&folder, Image::of(Kind::FdInfo, 2_u32));
    assert_eq!(table.iter().map(|entry| entry.fd).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    assert_eq!(all::<OpenFile>(&folder, Image::FILES).len(), 4);
}

#[test]
fn pipes_hold_what_they_held() {
    let folder = completed();
    let mut expected = Writer::new(PIPES);
    expected.put(&PipeData { pipe_id: 31, bytes: 4, size: Some(4_096) }.encode_to_vec());
    expected.put_contents(b"then");
    assert_eq!(contents(&folder)["pipes-data.img"], expected.bytes());
}

#[test]
fn a_pipe_that_was_empty_is_empty_again() {
    let (folder, mut moment) = (images(), moment());
    moment.descriptors[2].contents = None;
    complete(folder.path(), COPY, LEASH, &moment, PAUSE).unwrap();
    let entry: PipeData = one(&folder, PIPES);
    assert_eq!((entry.bytes, entry.size), (0, Some(65_536)));
}

#[test]
fn without_the_leash_s_pipe_there_is_none_with_contents() {
    let folder = images();
    write_pipes(&folder, &[(99, b"")]);
    let mut moment = moment();
    moment.descriptors[2].contents = None;
    complete(folder.path(), COPY, LEASH, &moment, PAUSE).unwrap();
    assert!(!PIPES.path(folder.path()).exists());
}

#[test]
fn a_lock_is_the_process_s_and_counts_once() {
    let lock = FileLock { flag: 1, r#type: 1, pid: 500, fd: 3, start: 2, len: 5 };
    assert_eq!(all::<FileLock>(&completed(), LOCKS), [lock]);
}

#[test]
fn a_terminal_is_the_process_s() {
    let folder = images();
    let terminal = |sid, pgrp| TerminalInfo { sid, pgrp, ..TerminalInfo::default() };
    folder.write(TERMINALS, &[terminal(700, 700), terminal(2, 3)]);
    complete(folder.path(), COPY, LEASH, &moment(), PAUSE).unwrap();
    assert_eq!(all::<TerminalInfo>(&folder, TERMINALS), [terminal(500, 500), terminal(2, 3)]);
}

#[test]
fn the_account_says_how_long_the_process_stood_still() {
    let dump = one::<Stats>(&completed(), Image::DUMP_STATS).dump.unwrap();
    assert_eq!((dump.freezing_time, dump.frozen_time, dump.pages_written), (111, 2_000, 9));
}

#[test]
fn descriptors_that_one_side_lacks_are_named() {
    let mut fewer = moment();
    fewer.descriptors.remove(0);
    assert!(failure(&images(), &fewer).ends_with("descriptor 3 was not noted"));
    let mut more = moment();
    more.descriptors.push(Descriptor { fd: 12, ..Descriptor::default() });
    assert!(failure(&images(), &more).ends_with("descriptor 12 is missing"));
}

#[test]
fn a_tree_of_more_than_the_copy_is_refused() {
    let folder = images();
    let item = |pid| TreeItem { pid, threads: vec![pid], ..TreeItem::default() };
    folder.write(Image::TREE, &[item(700), item(701)]);
    assert!(failure(&folder, &moment()).ends_with("it has 2 processes, not one"));
    folder.write(Image::TREE, &[item(701)]);
    assert!(failure(&folder, &moment()).ends_with("it isn't of process 700, with one thread"));
}

#[test]
fn an_image_with_more_than_is_known_is_refused() {
    let folder = images();
    let mut writer = Writer::new(Image::FILES);
    // Field 1000, a number.
    writer.put(&[files()[1].encode_to_vec(), vec![0xc0, 0x3e, 1]].concat());
    folder.overwrite(Image::FILES, writer.bytes());
    let text = failure(&folder, &moment());
    assert!(text.contains("files.img") && text.ends_with("holds something that is not known here"), "{text}");
}

#[test]
fn a_missing_image_is_named() {
    for name in contents(&images()).into_keys() {
        let folder = images();
        std::fs::remove_file(folder.path().join(&name)).unwrap();
        assert!(failure(&folder, &moment()).contains(&name), "{name}");
    }
}

#[test]
fn an_image_that_is_cut_is_named() {
    let is_read = |name: &str| !["mm-", "fs-", "pagemap-"].iter().any(|stem| name.starts_with(stem));
    for (name, bytes) in contents(&images()).into_iter().filter(|(name, _)| is_read(name)) {
        let folder = images();
        std::fs::write(folder.path().join(&name), &bytes[..bytes.len() - 1]).unwrap();
        assert!(failure(&folder, &moment()).contains(&name), "{name}");
    }
}

#[test]
fn what_was_noted_in_part_is_refused() {
    let mut without = moment();
    without.threads[1].registers = None;
    assert!(failure(&images(), &without).ends_with("2 threads have no registers, not one"));
    let mut unsized_file = moment();
    unsized_file.descriptors[0].size = None;
    assert!(failure(&images(), &unsized_file).ends_with("descriptor 3 has no size"));
    let mut empty = moment();
    empty.descriptors[3].info = String::new();
    assert!(failure(&images(), &empty).ends_with(r#"descriptor 6 is described as """#));
}
