//! Which CRIU it is.

/// A version of CRIU.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Version {
    /// 4 in 4.2.1.
    pub major: i32,
    /// 2 in 4.2.1.
    pub minor: i32,
    /// 1 in 4.2.1.
    pub patch: i32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.patch {
            0 => f.pad(&format!("{}.{}", self.major, self.minor)),
            patch => f.pad(&format!("{}.{}.{patch}", self.major, self.minor)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        let version = |major, minor, patch| Version { major, minor, patch };
        assert!(version(4, 2, 1) > version(4, 2, 0) && version(4, 10, 0) > version(4, 2, 1));
        assert_eq!(version(4, 2, 1).to_string(), "4.2.1");
        assert_eq!(version(4, 3, 0).to_string(), "4.3");
    }
}
