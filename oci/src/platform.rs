//! Platforms: operating system, architecture, variant (image-spec "Image Index", containerd's rules
//! for names and for which platform can run what).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, shown};

/// What an image runs on, such as `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture as Go names it: `amd64`, `arm64`, `arm`, `386`, `riscv64`…
    pub architecture: String,
    /// Operating system as Go names it.
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system (Windows).
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "crate::config::null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the CPU, such as `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform with these three parts, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, variant) = normalise(architecture, variant.unwrap_or_default());
        Self {
            architecture,
            os,
            os_version: None,
            os_features: Vec::new(),
            variant: (!variant.is_empty()).then_some(variant),
        }
    }

    /// The platform of this machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new("linux", architecture, None)
    }

    /// Whether an image of platform `image` runs where `self` is wanted.
    pub fn accepts(&self, image: &Self) -> bool {
        self.rank(image).is_some()
    }

    /// How well an image of platform `image` serves where `self` is wanted: 0 is exact, larger is
    /// an older variant or a 32-bit sibling, `None` does not run.
    pub fn rank(&self, image: &Self) -> Option<usize> {
        let image = Self::new(&image.os, &image.architecture, image.variant.as_deref());
        let wanted = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        if wanted.os != image.os {
            return None;
        }
        let offered = (image.architecture.as_str(), image.variant.as_deref().unwrap_or_default());
        wanted.candidates().iter().position(|(architecture, variant)| (*architecture, *variant) == offered)
    }

    /// Architectures and variants that run here, best first.
    fn candidates(&self) -> Vec<(&str, &str)> {
        const ARM: [(&str, &str); 4] = [("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")];
        let variant = self.variant.as_deref().unwrap_or_default();
        match self.architecture.as_str() {
            "amd64" => {
                let older = match variant {
                    "v4" => &["v4", "v3", "v2", ""][..],
                    "v3" => &["v3", "v2", ""],
                    "v2" => &["v2", ""],
                    "" => &[""],
                    other => return vec![("amd64", other)],
                };
                older.iter().map(|v| ("amd64", *v)).chain([("386", "")]).collect()
            }
            "arm" => ARM.iter().copied().skip_while(|(_, v)| *v != variant).collect(),
            "arm64" => {
                let mut all = vec![("arm64", variant)];
                if variant.is_empty() || variant.starts_with("v8") || variant.starts_with("v9") {
                    if !variant.is_empty() {
                        all.push(("arm64", ""));
                    }
                    all.extend(ARM);
                }
                all
            }
            other => vec![(other, variant)],
        }
    }
}

/// Names as Go spells them, and a variant only where it says something.
fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "i486" | "i586" | "i686" | "x86", v) => ("386", v),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "v9.0") => ("arm64", "v9"),
        ("aarch64", v) => ("arm64", v),
        ("armhf", "") | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", "") | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        (a, v) => (a, v),
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os/arch[/variant]`, or only an architecture (of linux), or only `linux` (of this host).
    fn from_str(text: &str) -> Result<Self> {
        const SYSTEMS: [&str; 10] = [
            "linux", "windows", "darwin", "macos", "freebsd", "openbsd", "netbsd", "solaris", "wasi",
            "wasip1",
        ];
        const ARCHITECTURES: [&str; 29] = [
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64",
            "ppc64le", "riscv64", "s390x", "wasm", "x86_64", "x86-64", "aarch64", "armhf", "armel", "i386",
            "i486", "i586", "i686", "x86", "sparc64", "alpha", "hppa", "m68k", "unknown",
        ];
        let bad = |problem| Error::Platform { text: shown(text), problem };
        let parts: Vec<String> = text.split('/').map(str::to_ascii_lowercase).collect();
        if parts.iter().any(|part| {
            !part.starts_with(|c: char| c.is_ascii_alphanumeric())
                || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        }) {
            return Err(bad("each part must be of letters, digits, '_', '.', '-' (as in linux/arm64/v8)"));
        }
        match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [os] if SYSTEMS.contains(&os) => {
                let host = Self::host();
                Ok(Self::new(os, &host.architecture, host.variant.as_deref()))
            }
            [architecture] if ARCHITECTURES.contains(&architecture) => {
                Ok(Self::new("linux", architecture, None))
            }
            [_] => Err(bad("unknown operating system or architecture")),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(bad("expected OS/ARCHITECTURE[/VARIANT]")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalised() {
        for (given, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(given).to_string(), normal);
        }
        for bad in ["", "linux/", "/amd64", "a/b/c/d", "linux amd64", "nosuch", "linux/../x"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn older_variants_run_on_newer_ones_and_not_the_reverse() {
        assert_eq!(platform("linux/amd64").rank(&platform("linux/amd64")), Some(0));
        assert_eq!(platform("linux/amd64/v3").rank(&platform("linux/amd64")), Some(2));
        assert_eq!(platform("linux/amd64").rank(&platform("linux/amd64/v3")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("linux/386")), Some(1));
        assert_eq!(platform("linux/arm64").rank(&platform("linux/arm64/v8")), Some(0));
        assert_eq!(platform("linux/arm/v7").rank(&platform("linux/arm/v6")), Some(1));
        assert_eq!(platform("linux/arm/v6").rank(&platform("linux/arm/v7")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("windows/amd64")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("linux/arm64")), None);
    }

    proptest! {
        #[test]
        fn text_round_trips(os in "[a-z]{1,8}", arch in "[a-z0-9]{1,8}", variant in proptest::option::of("v[0-9]")) {
            let platform = Platform::new(&os, &arch, variant.as_deref());
            prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
        }
    }
}
