//! Whose the processes of a dump were.

use std::path::Path;

use super::images::{Core, Credentials, Memory, TreeItem};
use super::kind::{Image, Kind};
use super::tree::{self, DEAD};
use crate::error::Result;

/// Says which process of the dump, if there is one, had more rights than an ordinary one of this user, and why: what it
/// had in its memory isn't this user's to read. That is so for the programs that others lend their rights to (setuid,
/// setgid, capabilities), and for those that have asked the kernel to let nobody look into them.
pub(crate) fn with_more_rights(images: &Path, user: u32) -> Result<Option<String>> {
    tree::check_format(images)?;
    for item in Image::TREE.read_all(images)? {
        let item: TreeItem = item?;
        if tree::task(images, item.pid)?.task_state == DEAD {
            continue;
        }
        let memory: Memory = Image::of(Kind::Memory, item.pid).read_one(images)?;
        if memory.dumpable != Some(1) {
            return Ok(Some(format!("process {} lets nobody look into it (PR_SET_DUMPABLE)", item.pid)));
        }
        for thread in tree::thread_ids(&item) {
            let image = Image::of(Kind::Core, thread);
            let core: Core = image.read_one(images)?;
            let credentials = core.thread_core.and_then(|own| own.creds);
            let credentials =
                credentials.ok_or_else(|| image.damaged(images, "it doesn't say whose thread it is"))?;
            if let Some(why) = more_rights(&credentials, user) {
                return Ok(Some(format!("process {} {why}", item.pid)));
            }
        }
    }
    Ok(None)
}

fn more_rights(of: &Credentials, user: u32) -> Option<&'static str> {
    if [of.uid, of.euid, of.suid, of.fsuid].iter().any(|&theirs| theirs != user) {
        return Some("has the rights of another user");
    }
    if [of.egid, of.sgid, of.fsgid].iter().any(|&theirs| theirs != of.gid) {
        return Some("has the rights of a group that is lent to it");
    }
    let has_some =
        [&of.cap_prm, &of.cap_eff, &of.cap_inh].iter().any(|set| set.iter().any(|&bits| bits != 0));
    has_some.then_some("has capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_process_has_its_users_rights_and_no_others() {
        let plain = Credentials {
            uid: 7,
            euid: 7,
            suid: 7,
            fsuid: 7,
            gid: 9,
            egid: 9,
            sgid: 9,
            fsgid: 9,
            cap_bnd: vec![u32::MAX; 2],
            ..Credentials::default()
        };
        assert_eq!(more_rights(&plain, 7), None);
        let table: [(&str, Credentials); 5] = [
            ("another user", Credentials { euid: 0, ..plain.clone() }),
            ("another user", Credentials { suid: 0, ..plain.clone() }),
            ("a group", Credentials { egid: 42, ..plain.clone() }),
            ("capabilities", Credentials { cap_prm: vec![0, 1 << 8], ..plain.clone() }),
            ("capabilities", Credentials { cap_inh: vec![1, 0], ..plain.clone() }),
        ];
        for (what, credentials) in table {
            assert!(more_rights(&credentials, 7).unwrap().contains(what), "{credentials:?}");
        }
        assert!(more_rights(&plain, 8).is_some());
    }
}
