//! The processes of a dump.

use std::path::Path;

use super::descriptor::OpenFiles;
use super::images::{Core, Inventory, ObjectIds, Task, TreeItem};
use super::kind::{Image, Kind};
use super::memory;
use crate::error::Result;
use crate::frozen::{Bytes, Process};

/// The version of the format in which every image begins with two numbers: all that CRIU has written since 2015.
const FORMAT: u32 = 2;

/// The state of a process that has ended and was not yet waited for (`COMPEL_TASK_DEAD`).
pub(super) const DEAD: u32 = 2;

/// Reads which processes were frozen, parents before their children, and what each had.
pub(crate) fn processes(images: &Path) -> Result<Vec<Process>> {
    check_format(images)?;
    let files = OpenFiles::read(images)?;
    Image::TREE.read_all(images)?.map(|item| process(images, &files, &item?)).collect()
}

/// The process id of the root of the tree.
#[cfg(feature = "service")]
pub(crate) fn root(images: &Path) -> Result<i32> {
    check_format(images)?;
    let first: Option<Result<TreeItem>> = Image::TREE.read_all(images)?.next();
    let item = first.ok_or_else(|| Image::TREE.damaged(images, "there is no process in it"))??;
    id(images, item.pid)
}

/// Refuses images that are not in the format that is read here.
pub(super) fn check_format(images: &Path) -> Result<()> {
    let image = Image::INVENTORY;
    let inventory: Inventory = image.read_one(images)?;
    match (inventory.img_version, inventory.fdinfo_per_id) {
        (FORMAT, Some(true)) => Ok(()),
        (FORMAT, _) => Err(image.damaged(images, "its descriptors are in a format that only old CRIU wrote")),
        (version, _) => Err(image.damaged(images, format!("images of version {version} can't be read"))),
    }
}

fn process(images: &Path, files: &OpenFiles, item: &TreeItem) -> Result<Process> {
    let pid = item.pid;
    let task = task(images, pid)?;
    let ended = Process {
        pid: id(images, pid)?,
        parent: id(images, item.ppid)?,
        process_group: id(images, item.pgid)?,
        session: id(images, item.sid)?,
        name: String::from_utf8_lossy(&task.comm).into_owned(),
        threads: vec![id(images, pid)?],
        mappings: 0,
        memory_bytes: Bytes(0),
        descriptors: Vec::new(),
    };
    // A zombie has an exit status and nothing else. Even the thread that CRIU writes down for it is none: it
    // leaves that number as it found it in memory.
    if task.task_state == DEAD {
        return Ok(ended);
    }
    Ok(Process {
        threads: threads(images, item)?,
        mappings: memory::mappings(images, pid)?,
        memory_bytes: memory::stored(images, pid)?,
        descriptors: files.of_table(images, files_id(images, pid)?)?,
        ..ended
    })
}

/// What the image of the main thread says of the process.
pub(super) fn task(images: &Path, pid: u32) -> Result<Task> {
    let image = Image::of(Kind::Core, pid);
    let core: Core = image.read_one(images)?;
    core.tc.ok_or_else(|| image.damaged(images, "it is that of a thread, not of a process"))
}

/// Which table of descriptors the process uses; processes that share one have the same.
fn files_id(images: &Path, pid: u32) -> Result<u32> {
    let ids: ObjectIds = Image::of(Kind::Ids, pid).read_one(images)?;
    Ok(ids.files_id)
}

/// The threads, the main one first.
fn threads(images: &Path, item: &TreeItem) -> Result<Vec<i32>> {
    thread_ids(item).map(|thread| id(images, thread)).collect()
}

/// Their ids as they stand in the image.
pub(super) fn thread_ids(item: &TreeItem) -> impl Iterator<Item = u32> {
    let others = item.threads.iter().copied().filter(|&thread| thread != item.pid);
    std::iter::once(item.pid).chain(others)
}

/// An id of the tree, which the kernel counts in 31 bits.
pub(super) fn id(images: &Path, value: u32) -> Result<i32> {
    i32::try_from(value).map_err(|_| Image::TREE.damaged(images, format!("{value} is no process id")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;
    use crate::error::ErrorKind;

    /// The images of a tree of one zombie, which has fewer than any other process.
    fn zombie() -> Folder {
        let folder = Folder::new();
        folder.write(
            Image::INVENTORY,
            &[Inventory { img_version: FORMAT, fdinfo_per_id: Some(true), ..Default::default() }],
        );
        folder.write::<TreeItem>(Image::FILES, &[]);
        let item = TreeItem { pid: 7, ppid: 3, pgid: 3, sid: 1, threads: vec![u32::MAX] };
        folder.write(Image::TREE, &[item]);
        let task = Task { task_state: DEAD, comm: b"caf\xe9".into(), ..Default::default() };
        folder.write(Image::of(Kind::Core, 7_u32), &[Core { tc: Some(task), ..Default::default() }]);
        folder
    }

    #[test]
    fn a_zombie_has_a_name_and_nothing_else() {
        let processes = processes(zombie().path()).unwrap();
        let [process] = &*processes else { panic!("{processes:?}") };
        assert_eq!((process.pid, process.parent, process.process_group, process.session), (7, 3, 3, 1));
        assert_eq!(process.name, "caf\u{fffd}");
        assert_eq!((process.mappings, process.memory_bytes), (0, Bytes(0)));
        assert!(process.descriptors.is_empty());
        assert_eq!(process.threads, [7]);
    }

    #[test]
    fn the_main_thread_comes_first() {
        let item = TreeItem { pid: 7, threads: vec![9, 7, 8], ..Default::default() };
        assert_eq!(threads(Path::new("images"), &item).unwrap(), [7, 9, 8]);
    }

    #[test]
    fn a_process_without_its_images_is_damage() {
        let folder = zombie();
        let task = Task { task_state: 1, comm: b"alive".into(), ..Default::default() };
        folder.write(Image::of(Kind::Core, 7_u32), &[Core { tc: Some(task), ..Default::default() }]);
        assert_eq!(processes(folder.path()).unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn images_of_another_version_are_refused() {
        let folder = zombie();
        folder.write(
            Image::INVENTORY,
            &[Inventory { img_version: 1, fdinfo_per_id: Some(true), ..Default::default() }],
        );
        assert!(processes(folder.path()).unwrap_err().to_string().contains("version 1"));
    }
}
