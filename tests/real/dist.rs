//! The Debian package, as `cargo xtask dist` makes it: installed by dpkg, with its dependencies checked, into this
//! machine as it is, seen through a layer that takes all changes. Programs are compiled, checkpointed and restored there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Lab, built, criu, succeeds};

/// The package that was built with the tests.
fn package() -> PathBuf {
    let folder = built(Path::new("")).parent().expect("target").join("dist");
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    found
        .unwrap_or_else(|| panic!("no package in {}: run `cargo xtask dist --profile dev`", folder.display()))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/dist").join(name)
}

#[test]
fn the_package_is_installed_by_dpkg_used_and_removed() {
    let lab = Lab::new();
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "bash"]).arg(script("root.sh"));
    inside.arg(lab.path("")).arg(package()).arg(criu().parent().and_then(Path::parent).expect("its folder"));
    inside.arg(script("installed.sh")).stdin(Stdio::null()).env_remove("TMPDIR");
    let said = succeeds(&mut inside);
    let sum = (1..=100_u64).fold(0, |sum, step| (sum * 31 + step) % 1_000_003);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "version: selfdump {version}\npkg-config: {version}\ncounter: sum {sum}\nrestored: 1\npreloaded: yes\n\
         completions: bash-completion/completions/selfdump\ncompletions: zsh/site-functions/_selfdump\n\
         completions: fish/vendor_completions.d/selfdump.fish\nmanual: selfdump\nmanual: selfdump-list\n\
         manual: selfdump-restore\nmanual: selfdump-run\nmanual: selfdump-setup\nmanual: selfdump-status\nleft: 0\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn it_depends_on_what_its_programs_load_and_on_nothing_else() {
    let lab = Lab::new();
    succeeds(Command::new("dpkg-deb").arg("-x").arg(package()).arg(lab.path("")));
    let mut needed: Vec<String> = ["usr/bin/selfdump", "usr/lib/libselfdump.so.0"]
        .into_iter()
        .flat_map(|file| {
            let dynamic = succeeds(Command::new("readelf").args(["--wide", "-d"]).arg(lab.path(file)));
            let names = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
            names.filter_map(|line| Some(line.split(['[', ']']).nth(1)?.to_owned())).collect::<Vec<_>>()
        })
        .collect();
    needed.sort();
    needed.dedup();
    // Of libc6 and of libgcc-s1.
    let provided = ["ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];
    assert!(needed.iter().all(|name| provided.contains(&name.as_str())), "{needed:?}");
    let depends = succeeds(Command::new("dpkg-deb").arg("-f").arg(package()).arg("Depends"));
    assert!(depends.starts_with("libc6 (>= 2.") && depends.trim().ends_with("), libgcc-s1"), "{depends}");
}
