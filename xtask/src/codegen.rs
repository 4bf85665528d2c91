//! `cargo xtask codegen`: the Rust of our `.proto` files, and the page of errors ([`crate::errors`]).
//!
//! The result is committed, so that a build of the library needs neither protoc nor a build script, and so
//! that a change of an interface shows in review. `--check` and the test below hold the committed files to
//! the protos.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use prost_types::FileDescriptorProto;
use prost_types::field_descriptor_proto::Type;

use crate::errors;

/// One generated file: from `proto/PACKAGE.proto`, whose package is `PACKAGE`, to `file`.
struct Generated {
    package: &'static str,
    file: &'static str,
}

const GENERATED: [Generated; 2] = [
    Generated { package: "rpc", file: "src/criu/rpc.rs" },
    Generated { package: "images", file: "src/image/images.rs" },
];

/// Messages of images that only those read who look into a checkpoint.
const LOOKED_INTO: [&str; 27] = [
    "BpfMapData",
    "ClockTime",
    "ControlGroups",
    "ControlMessage",
    "GhostChunk",
    "GroupSet",
    "IdRange",
    "IpcLimits",
    "IpcMemory",
    "IpcMessage",
    "IpcObject",
    "IpcQueue",
    "IpcSemaphores",
    "KernelSetting",
    "MacvlanLink",
    "NeighbourNamespace",
    "NetworkDevice",
    "NetworkNamespace",
    "NodeNames",
    "Processors",
    "QueuedPacket",
    "Seccomp",
    "SitLink",
    "TerminalData",
    "TimeNamespace",
    "TunLink",
    "UserNamespace",
];

/// Writes the generated files, or with `check` fails if one on disk isn't what would be written.
pub fn run(check: bool) -> Result<()> {
    let root = root();
    let mut code = generate(root)?;
    for Generated { package, file } in &GENERATED {
        let code =
            code.remove(*package).with_context(|| format!("proto/{package}.proto declares nothing"))?;
        let text = formatted(root, &headed(package, &code))?;
        match check {
            true => compare(&root.join(file), package, &text)?,
            false => write(&root.join(file), &text)?,
        }
    }
    errors::run(root, check)
}

/// The folder of the workspace.
fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The Rust of every package, by the package's name.
fn generate(root: &Path) -> Result<HashMap<String, String>> {
    let folder = root.join("proto");
    let sources = GENERATED.map(|generated| folder.join(format!("{}.proto", generated.package)));
    let mut descriptors = protox::compile(sources, [&folder]).context("can't read the protos")?;
    // Headings between fields are for readers of the protos. They are no documentation, and whether they come
    // through would depend on which features of prost-build the build happens to have on.
    for file in &mut descriptors.file {
        for location in file.source_code_info.iter_mut().flat_map(|info| &mut info.location) {
            location.leading_detached_comments.clear();
        }
    }
    let mut config = prost_build::Config::new();
    // What is in an image can be shown as it stands there, by those who look into it.
    config.type_attribute(".images", looked_into("derive(serde::Serialize)"));
    for message in LOOKED_INTO {
        config.type_attribute(format!(".images.{message}"), "#[cfg(feature = \"inspect\")]");
    }
    for field in byte_fields(&descriptors.file) {
        config.field_attribute(field, looked_into("serde(serialize_with = \"super::text::serialize\")"));
    }
    let requests = descriptors
        .file
        .into_iter()
        .map(|file| (prost_build::Module::from_protobuf_package_name(file.package()), file))
        .collect();
    let modules = config.generate(requests).context("can't generate from the protos")?;
    Ok(modules
        .into_iter()
        .map(|(module, code)| (module.parts().collect::<Vec<_>>().join("."), code))
        .collect())
}

/// An attribute that is there with the feature that looking into checkpoints takes.
fn looked_into(attribute: &str) -> String {
    format!("#[cfg_attr(feature = \"inspect\", {attribute})]")
}

/// The fields of the type `bytes` of the images, which no attribute of a type reaches.
fn byte_fields(files: &[FileDescriptorProto]) -> Vec<String> {
    let images = files.iter().filter(|file| file.package() == "images");
    let messages = images.flat_map(|file| &file.message_type);
    let fields = messages.flat_map(|message| message.field.iter().map(move |field| (message, field)));
    fields
        .filter(|(_, field)| field.r#type() == Type::Bytes)
        .map(|(message, field)| format!(".images.{}.{}", message.name(), field.name()))
        .collect()
}

/// The code below the line that says where it comes from.
fn headed(package: &str, code: &str) -> String {
    format!(
        "// Generated from proto/{package}.proto by `cargo xtask codegen`. Change that, not this.\n\n{code}"
    )
}

/// The code in this repository's format: prost-build writes valid Rust, not readable Rust.
fn formatted(root: &Path, code: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("can't start rustfmt (rustup component add rustfmt)")?;
    // It reads everything before it writes anything, so neither side waits for the other. Dropping its
    // input at the end of the statement is what tells it that this was all.
    rustfmt.stdin.take().context("rustfmt has no stdin")?.write_all(code.as_bytes())?;
    let output = rustfmt.wait_with_output()?;
    ensure!(output.status.success(), "rustfmt refused the generated code: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
}

fn compare(file: &Path, package: &str, expected: &str) -> Result<()> {
    let found = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    if found != expected {
        bail!("{} isn't what proto/{package}.proto says: run `cargo xtask codegen`", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_generated_is_what_its_sources_say() {
        super::run(true).unwrap();
    }
}
