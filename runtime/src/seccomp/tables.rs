//! Architectures and their system call numbers.

mod aarch64;
mod x32;
mod x86;
mod x86_64;

use oci_spec::runtime::Arch;

/// One way into the kernel: an architecture value of `struct seccomp_data` and
/// its call numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X32,
    X86,
    Aarch64,
}

/// Bit 30 of the number tells an x32 call from a 64-bit one.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Abi {
    /// The ABI of this program.
    pub(super) const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// The ABIs that Docker's default profile covers on this machine.
    pub(super) const DEFAULT: &'static [Self] =
        if cfg!(target_arch = "aarch64") { &[Self::Aarch64] } else { &[Self::X86_64, Self::X86, Self::X32] };

    /// The ABI of a name in a profile; `None` for one that can't run here or that
    /// there is no table for, whose calls are refused like those of any ABI that
    /// a filter doesn't list.
    pub(super) fn of(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(Self::NATIVE),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_…`.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// All calls, sorted by name.
    pub(super) const fn calls(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::X86_64 => x86_64::CALLS,
            Self::X32 => x32::CALLS,
            Self::X86 => x86::CALLS,
            Self::Aarch64 => aarch64::CALLS,
        }
    }

    /// The number of a call, as it stands in `struct seccomp_data`.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let calls = self.calls();
        let position = calls.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        calls.get(position).map(|(_, number)| self.in_data(*number))
    }

    /// A number of the table as it stands in `struct seccomp_data`.
    pub(super) const fn in_data(self, number: u32) -> u32 {
        match self {
            Self::X32 => number | X32_BIT,
            _ => number,
        }
    }
}

/// Whether any of the tables has this name: a profile may list calls of other
/// architectures, but a name that nobody knows is a mistake.
#[cfg(test)]
pub(super) fn known(name: &str) -> bool {
    [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64].iter().any(|abi| abi.number(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64] {
            assert!(abi.calls().is_sorted_by(|a, b| a.0 < b.0), "{abi:?}");
        }
        assert_eq!(Abi::X86_64.number("execve"), Some(59));
        assert_eq!(Abi::X86.number("execve"), Some(11));
        assert_eq!(Abi::X32.number("execve"), Some(0x208 | X32_BIT));
        assert_eq!(Abi::Aarch64.number("execve"), Some(221));
        assert_eq!(Abi::X86_64.number("waitpid"), None);
    }
}
