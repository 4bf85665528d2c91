//! Whether a program can run here once more: with the programs and libraries that it runs, on this processor, in the
//! memory that there is. A pure comparison; what there is comes in as [`Here`].

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Bytes, MappedFile};

/// What a program needs, and what there is.
pub(super) struct Here<'a> {
    /// The build id of a program or library; the error where it can't be read.
    pub(super) build_id: &'a dyn Fn(&Path) -> std::io::Result<Option<String>>,
    pub(super) cpu_features: &'a [String],
    pub(super) memory: Option<Bytes>,
}

/// The error that names each thing that doesn't fit.
pub(super) fn check(
    mapped: &[MappedFile],
    cpu_features: &[String],
    memory: Bytes,
    here: &Here<'_>,
) -> Result<()> {
    let mut misfits: Vec<String> = mapped.iter().filter_map(|file| other_build(file, here)).collect();
    misfits.extend(processor(cpu_features, here));
    misfits.extend(room(memory, here));
    if misfits.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unfit, format!("the program doesn't fit here: {}", misfits.join("; ")))
        .with_hint("put back what it ran with, or restore it where that is as it was; --force goes on all the same, at the risk of a crash"))
}

fn other_build(file: &MappedFile, here: &Here<'_>) -> Option<String> {
    let path = file.path.display();
    match (&file.build_id, (here.build_id)(&file.path)) {
        (_, Err(error)) => Some(format!("{path} can't be read ({error})")),
        (Some(then), Ok(now)) if now.as_ref() != Some(then) => Some(format!("{path} is another build now")),
        _ => None,
    }
}

fn processor(then: &[String], here: &Here<'_>) -> Option<String> {
    let now: BTreeSet<&String> = here.cpu_features.iter().collect();
    let missing: Vec<&str> =
        then.iter().filter(|feature| !now.contains(feature)).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("this processor lacks {}", missing.join(" ")))
}

fn room(memory: Bytes, here: &Here<'_>) -> Option<String> {
    let free = here.memory.filter(|&free| free < memory)?;
    Some(format!("it takes {memory} of memory, and {free} are free"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(build: Option<&str>, features: &[&str], memory: u64) -> Result<()> {
        let mapped = [
            MappedFile { path: "/bin/app".into(), build_id: Some("aa".into()) },
            MappedFile { path: "/lib/plain.so".into(), build_id: None },
        ];
        let features: Vec<String> = features.iter().map(|&feature| feature.to_owned()).collect();
        let here = Here {
            build_id: &|path| match (path == Path::new("/bin/app"), build) {
                (true, None) => Err(std::io::ErrorKind::NotFound.into()),
                (true, Some(build)) => Ok(Some(build.to_owned())),
                (false, _) => Ok(None),
            },
            cpu_features: &features,
            memory: Some(Bytes(memory)),
        };
        check(&mapped, &["avx2".into(), "sse".into()], Bytes(100), &here)
    }

    #[test]
    fn what_is_as_it_was_fits() {
        assert!(checked(Some("aa"), &["sse", "avx2", "more"], 100).is_ok());
    }

    #[test]
    fn each_misfit_is_named() {
        let text = checked(Some("bb"), &["sse"], 99).unwrap_err().to_string();
        for part in ["/bin/app is another build", "lacks avx2", "takes 100 B of memory, and 99 B are free"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let gone = checked(None, &["sse", "avx2"], 100).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Unfit);
        assert!(gone.to_string().contains("/bin/app can't be read"), "{gone}");
    }
}
