//! `--tmpfs`: directories in memory.

use serde::{Deserialize, Serialize};

use super::check_target;
use crate::error::{Error, Result};

/// A directory in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub target: String,
    /// Docker's defaults, then the caller's, each from the allow-list.
    pub options: Vec<String>,
    /// The words of a `--tmpfs`; `None` for a `--mount`.
    pub short: Option<String>,
}

/// Docker's defaults; a later word undoes an earlier one.
const DEFAULTS: [&str; 3] = ["nosuid", "nodev", "noexec"];

impl Tmpfs {
    /// Parses one `--tmpfs`.
    pub fn parse(text: &str) -> Result<Self> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let words = options.split(',').filter(|option| !option.is_empty());
        Ok(Self { short: Some(options.into()), ..Self::new(target, words)? })
    }

    /// One with these options.
    pub(super) fn new<'a>(target: &str, words: impl Iterator<Item = &'a str>) -> Result<Self> {
        check_target(target).map_err(|problem| Error::flag("--tmpfs", format!("{problem}: {target:?}")))?;
        let mut options = DEFAULTS.map(String::from).to_vec();
        for option in words {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let known = match key {
                "ro" | "rw" | "suid" | "nosuid" | "dev" | "nodev" | "exec" | "noexec" | "noatime"
                | "relatime" | "strictatime" | "nodiratime" => value.is_empty(),
                "size" | "nr_blocks" | "nr_inodes" => {
                    value.starts_with(|c: char| c.is_ascii_digit())
                        && value.bytes().all(|b| b.is_ascii_digit() || b"kKmMgG%".contains(&b))
                }
                "mode" => !value.is_empty() && value.bytes().all(|b| (b'0'..b'8').contains(&b)),
                "uid" | "gid" => value.parse::<u32>().is_ok(),
                _ => false,
            };
            if !known {
                return Err(Error::flag("--tmpfs", format!("invalid tmpfs option {option:?}")));
            }
            options.push(option.to_owned());
        }
        Ok(Self { target: target.to_owned(), options, short: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_tmpfs_are_from_a_list() {
        let tmpfs = Tmpfs::parse("/run:rw,size=65536k,mode=755,exec").unwrap();
        assert_eq!(tmpfs.options, ["nosuid", "nodev", "noexec", "rw", "size=65536k", "mode=755", "exec"]);
        for bad in
            ["run", "/", "/run:size=", "/run:size=1;rm", "/run:mode=9", "/run:source=x", "/run:lowerdir=/"]
        {
            assert!(Tmpfs::parse(bad).is_err(), "{bad}");
        }
    }
}
