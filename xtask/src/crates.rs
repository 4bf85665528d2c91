//! What comes in with the crates that are depended on: under which licences, from where, and in how many versions.
//!
//! cargo-deny does this and more, but would have to be built each time, from some hundred crates. Known vulnerabilities
//! (advisories) are not looked for: their list is a repository that has to be had from the network, and what is checked
//! here is to hold without one. `cargo deny check advisories` and `cargo audit` can be run by hand.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::cargo;

/// The licences that may come in: none asks more of a program than to name its authors, but for Unicode's data, whose
/// own licence is as free.
const LICENCES: [&str; 10] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates that may not come in, and what to take instead.
const BANNED: [(&str, &str); 3] = [
    ("openssl-sys", "it is a library of the system's: rustls"),
    ("prost-build", "it belongs into xtask alone: the library has no build script"),
    ("protobuf", "messages are prost's"),
];

/// What `cargo metadata` says, as far as it is looked at.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None where it lies in a folder.
    source: Option<String>,
}

/// Every crate of the workspace and all that they need, for tests and benchmarks too.
pub fn check() -> Result<()> {
    let metadata = cargo::read(&mut cargo::cargo(&["metadata", "--format-version", "1", "--locked"])?)?;
    let Metadata { packages } = serde_json::from_str(&metadata).context("cargo metadata is no such JSON")?;
    let wrong: Vec<String> = packages.iter().filter_map(wrong_with).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let tree = cargo::cargo(&["tree", "--locked", "-e", "normal", "-p", "selfdump", "--prefix", "none"]);
    let tree = cargo::read(&mut tree?)?;
    let twice = twice(&tree);
    ensure!(twice.is_empty(), "the library would bring more than one version of: {}", twice.join(", "));
    for (name, instead) in BANNED {
        ensure!(!tree.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} came in; {instead}");
    }
    println!("{} crates, all under licences that may come in, from where they may come", packages.len());
    Ok(())
}

/// None for a crate that may come in.
fn wrong_with(package: &Package) -> Option<String> {
    let Package { name, version, license, source } = package;
    let what = match (license, source) {
        (_, Some(source)) if !source.starts_with("registry+") => {
            format!("it comes from {source}, and not from a registry")
        }
        (None, _) => "it names no licence".to_owned(),
        (Some(license), _) if !may_come_in(license) => format!("its licence is {license}"),
        _ => return None,
    };
    Some(format!("{name} {version}: {what}"))
}

/// Whether a licence, one of several or several together, are among those that may come in.
fn may_come_in(license: &str) -> bool {
    let is_known = |asked: &spdx::LicenseReq| LICENCES.contains(&asked.to_string().as_str());
    spdx::Expression::parse_mode(license, spdx::ParseMode::LAX).is_ok_and(|said| said.evaluate(is_known))
}

/// The names that stand in a tree with more than one version.
fn twice(tree: &str) -> Vec<&str> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let Some((name, rest)) = line.split_once(' ') else { continue };
        let version = rest.split(' ').next().unwrap_or_default();
        let known = versions.entry(name).or_default();
        if !known.contains(&version) {
            known.push(version);
        }
    }
    versions.into_iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_there_may_come_in() {
        check().unwrap();
    }

    #[test]
    fn a_licence_is_enough_where_one_may_be_chosen() {
        for (license, expected) in [
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0-only OR MIT", true),
            ("GPL-3.0-only", false),
            ("MIT AND GPL-3.0-only", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("my own", false),
        ] {
            assert_eq!(may_come_in(license), expected, "{license}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let package = |license: Option<&str>, source: Option<&str>| Package {
            name: "it".to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
        };
        let wrong = |license, source| wrong_with(&package(license, source));
        assert_eq!(wrong(Some("MIT"), Some("registry+somewhere")), None);
        assert_eq!(wrong(Some("MIT"), None), None, "one of the workspace");
        assert!(
            wrong(Some("MIT"), Some("git+somewhere"))
                .is_some_and(|wrong| wrong.contains("it comes from git"))
        );
        assert!(wrong(None, None).is_some_and(|wrong| wrong.contains("no licence")));
    }

    #[test]
    fn a_crate_in_two_versions_is_found() {
        assert_eq!(twice("a v1.0.0\nb v1.0.0\na v2.0.0\nb v1.0.0 (*)\n"), ["a"]);
    }
}
