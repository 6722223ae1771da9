//! On which NUMA nodes a container's memory lies (runtime-spec, `linux.memoryPolicy`): the arguments of
//! `set_mempolicy(2)`.

use oci_spec::runtime::{Linux, MemoryPolicyFlagType, MemoryPolicyModeType};

use crate::error::{Error, Result};

/// The kernel is built for at most this many nodes (`CONFIG_NODES_SHIFT` 10).
const MAX_NODES: usize = 1024;

/// A policy as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    /// The mode with its flags.
    pub(crate) mode: i32,
    /// One bit a node.
    pub(crate) nodes: Vec<u64>,
}

/// What a specification says.
pub(crate) fn policy(linux: &Linux) -> Result<Option<MemoryPolicy>> {
    let Some(wanted) = linux.memory_policy() else { return Ok(None) };
    let mut mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    for flag in wanted.flags().iter().flatten() {
        mode |= match flag {
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        };
    }
    let nodes = wanted.nodes().as_deref().unwrap_or_default();
    let nodes = mask(nodes).ok_or_else(|| {
        Error::invalid(
            "linux.memoryPolicy.nodes",
            format!("invalid memory policy node: {nodes:?} is not a list such as 0-1,3"),
        )
    })?;
    Ok(Some(MemoryPolicy { mode, nodes }))
}

/// A list such as `0-1,3` as bits; an empty one has none.
fn mask(list: &str) -> Option<Vec<u64>> {
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|_| !list.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= MAX_NODES {
            return None;
        }
        for node in first..=last {
            if bits.len() <= node / 64 {
                bits.resize(node / 64 + 1, 0);
            }
            if let Some(word) = bits.get_mut(node / 64) {
                *word |= 1u64 << (node % 64);
            }
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_nodes() {
        assert_eq!(mask(""), Some(vec![]));
        assert_eq!(mask("0-1,3"), Some(vec![0b1011]));
        assert_eq!(mask("64"), Some(vec![0, 1]));
        for bad in ["x", "1-", "2-1", ",", "0-9876543210", "1024"] {
            assert_eq!(mask(bad), None, "{bad}");
        }
    }
}
