//! How much memory the control groups of this process leave it, of both kinds of them: beyond that the kernel kills.

use std::fs;
use std::path::Path;

use crate::frozen::Bytes;

/// Where they are mounted everywhere.
const MOUNTED: &str = "/sys/fs/cgroup";

/// What is left of the tightest limit; none where there is no limit.
pub(crate) fn memory_left() -> Option<Bytes> {
    left(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new(MOUNTED))
}

/// The files of one kind of group.
struct Kind {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: what of it are files that the kernel lets go of before it kills.
    cache: &'static str,
}

const FIRST: Kind =
    Kind { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cache: "total_inactive_file" };
const SECOND: Kind = Kind { limit: "memory.max", used: "memory.current", cache: "inactive_file" };

/// `groups` is what the kernel says of a process's groups: `NUMBER:CONTROLLERS:PATH` in each line.
fn left(groups: &str, mounted: &Path) -> Option<Bytes> {
    let lines = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let limits = lines.filter_map(|(controllers, path)| match controllers {
        "" => along(mounted, path, &SECOND),
        _ if controllers.split(',').any(|name| name == "memory") => {
            along(&mounted.join("memory"), path, &FIRST)
        }
        _ => None,
    });
    limits.min()
}

/// In a container the path may be the host's, of which only the last part is there, as the root.
fn along(root: &Path, path: &str, kind: &Kind) -> Option<Bytes> {
    let folder = root.join(path.trim_start_matches('/'));
    let above = folder.ancestors().take_while(|folder| folder.starts_with(root));
    above.filter_map(|group| of_group(group, kind)).min()
}

fn of_group(group: &Path, kind: &Kind) -> Option<Bytes> {
    let number = |name| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // `max` is no number, and no limit.
    let (limit, used) = (number(kind.limit)?, number(kind.used)?);
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().find_map(|line| line.strip_prefix(kind.cache)?.trim().parse::<u64>().ok());
    Some(Bytes(limit.saturating_sub(used.saturating_sub(cache.unwrap_or(0)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(folder: &Path, kind: &Kind, limit: &str, used: u64, cache: u64) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(kind.limit), format!("{limit}\n")).unwrap();
        fs::write(folder.join(kind.used), format!("{used}\n")).unwrap();
        fs::write(folder.join("memory.stat"), format!("anon 7\n{} {cache}\n", kind.cache)).unwrap();
    }

    #[test]
    fn the_tightest_limit_of_all_groups_counts_and_cached_files_are_not_used() {
        let lab = tempfile::tempdir().unwrap();
        let root = lab.path();
        assert_eq!(left("0::/a/b\n", root), None, "nothing is limited");
        group(&root.join("a/b"), &SECOND, "max", 50, 0);
        assert_eq!(left("0::/a/b\n", root), None);
        group(&root.join("a"), &SECOND, "100", 80, 30);
        assert_eq!(left("0::/a/b\n", root), Some(Bytes(50)));
        group(&root.join("memory/c"), &FIRST, "60", 20, 0);
        assert_eq!(left("4:cpu,memory:/c\n0::/a/b\n", root), Some(Bytes(40)));
        group(&root.join("memory/c"), &FIRST, "60", 90, 0);
        assert_eq!(left("4:cpu,memory:/c\n", root), Some(Bytes(0)));
        assert_eq!(left("4:cpu:/c\nodd\n", root), None);
    }

    #[test]
    fn a_container_that_knows_only_its_own_root_finds_the_limit_there() {
        let lab = tempfile::tempdir().unwrap();
        group(lab.path(), &SECOND, "100", 10, 0);
        assert_eq!(left("0::/of/the/host\n", lab.path()), Some(Bytes(90)));
    }
}
