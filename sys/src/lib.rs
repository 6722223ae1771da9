//! Linux, behind safe types.
//!
//! Every raw system call and every `unsafe` block of the project lives in this
//! crate; each module is one idea of the kernel. Where [`rustix`] already has a
//! safe function, callers use that one directly and nothing is wrapped here.
//!
//! | module | idea |
//! |---|---|
//! | [`clone`](mod@clone) | a child process in new namespaces, with a pidfd |
//! | [`memory`] | pages of the own program |
//! | [`mount`] | mounts as descriptors: make, clone, change, attach |
//! | [`overlay`] | overlay mounts as descriptors |
//! | [`mod@file`] | files on their way to the disk |
//! | [`path`] | path resolution that can't leave a directory |
//! | [`idmap`] | user and group id maps of user namespaces |
//! | [`caps`] | the five capability sets of a process |
//! | [`seccomp`] | installing a system call filter |
//! | [`bpf`] | programs that decide about devices |
//! | [`signal`] | signals as a descriptor, masks, dispositions |
//! | [`process`] | exec, descriptors at exec, scheduling, personality, memory policy |
//! | [`loop_device`] | a file as a block device |
//! | [`link`] | network interface flags |
//! | [`interface`] | network interfaces given to another namespace |
//!
//! The crate knows no policy: it does what it is told or says which call failed.
#![cfg(target_os = "linux")]

pub mod bpf;
pub mod caps;
pub mod clone;
pub mod file;
pub mod idmap;
pub mod interface;
pub mod link;
pub mod loop_device;
pub mod memory;
pub mod mount;
pub mod overlay;
pub mod path;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod verity;
