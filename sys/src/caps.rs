//! The five capability sets of a process (capabilities(7)).

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The names of all capabilities, by number.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// The empty set.
    pub const EMPTY: Self = Self(0);
    /// All that this crate has a name for.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The set with this capability too; `name` with or without `CAP_`, in any
    /// case. `None` for an unknown name.
    #[must_use]
    pub fn with(self, name: &str) -> Option<Self> {
        Some(Self(self.0 | 1 << number(name)?))
    }

    /// The set without this capability.
    #[must_use]
    pub fn without(self, name: &str) -> Option<Self> {
        Some(Self(self.0 & !(1 << number(name)?)))
    }

    /// Whether the capability of this number is in the set.
    pub const fn has(self, number: usize) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set of these bits, as the kernel numbers capabilities.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of what is in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(number, _)| self.has(*number)).map(|(_, name)| *name)
    }
}

/// The number of a capability by its name, with or without `CAP_`, in any case.
pub fn number(name: &str) -> Option<usize> {
    let bare = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("cap_") => name.get(4..)?,
        _ => name,
    };
    NAMES.iter().position(|known| known.get(4..).is_some_and(|known| known.eq_ignore_ascii_case(bare)))
}

/// The sets that a process is to have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sets {
    /// The most that any program executed from here can have.
    pub bounding: Set,
    /// What is in force.
    pub effective: Set,
    /// What could be brought into force.
    pub permitted: Set,
    /// What file capabilities may add across exec.
    pub inheritable: Set,
    /// What a program without file capabilities keeps across exec.
    pub ambient: Set,
}

/// The permitted set of the calling thread.
///
/// # Errors
/// What `capget(2)` says.
pub fn permitted() -> io::Result<Set> {
    Ok(Set(rustix::thread::capabilities(None)?.permitted.bits()))
}

/// The effective set of the calling thread.
///
/// # Errors
/// What `capget(2)` says.
pub fn effective() -> io::Result<Set> {
    Ok(Set(rustix::thread::capabilities(None)?.effective.bits()))
}

/// Drops from the bounding set all that is not in `keep`.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn limit_bounding(keep: Set) -> io::Result<()> {
    for number in 0..64 {
        if keep.has(number) {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, number) {
            Ok(()) => {}
            // Past the last capability of this kernel.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sets effective, permitted, inheritable and ambient set of the calling thread.
///
/// # Errors
/// `EPERM` for what is not permitted now, or for ambient capabilities which are
/// not both permitted and inheritable.
pub fn set(sets: &Sets) -> io::Result<()> {
    let bits = |set: Set| CapabilitySet::from_bits_retain(set.0);
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: bits(sets.effective),
            permitted: bits(sets.permitted),
            inheritable: bits(sets.inheritable),
        },
    )?;
    rustix::thread::clear_ambient_capability_set()?;
    for number in (0..64).filter(|number| sets.ambient.has(*number)) {
        // SAFETY: PR_CAP_AMBIENT takes no pointer.
        let result = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
                number as libc::c_ulong,
                0 as libc::c_ulong,
                0 as libc::c_ulong,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn prctl(option: libc::c_int, argument: usize) -> io::Result<()> {
    // SAFETY: the options used here take numbers only.
    let result = unsafe {
        libc::prctl(
            option,
            argument as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_form() {
        assert_eq!(number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(number("sys_admin"), Some(21));
        assert_eq!(number("cap_bpf"), Some(39));
        assert_eq!(number("CAP_"), None);
        assert_eq!(number("ALL"), None);
        let set = Set::EMPTY.with("chown").and_then(|set| set.with("CAP_KILL")).unwrap();
        assert_eq!(set.names().collect::<Vec<_>>(), ["CAP_CHOWN", "CAP_KILL"]);
    }
}
