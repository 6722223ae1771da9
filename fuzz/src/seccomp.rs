//! Seccomp profiles in Docker's form and the specification's: read and compiled, or refused.

use onggi_engine::run::seccomp::parse;
use onggi_runtime::seccomp::Filter;
use onggi_sys::caps::Set;

/// The longest program that the kernel takes (`BPF_MAXINSNS`); what is longer is several filters.
const MAX_PROGRAM: usize = 4096;
/// More than a kernel takes altogether (`MAX_INSNS_PER_PATH`).
const MAX_ALL: usize = 8 * MAX_PROGRAM;

/// One profile.
pub fn feed(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for bounding in [Set::EMPTY, Set::ALL] {
        match parse(text, bounding).map(|profile| Filter::compile(&profile)) {
            Ok(Ok(filter)) => assert!(filter.len() <= MAX_ALL, "{} instructions", filter.len()),
            Ok(Err(error)) => assert!(!error.to_string().is_empty()),
            Err(problem) => assert!(!problem.is_empty()),
        }
    }
}

/// Profiles with each kind of condition.
pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"archMap":[{"architecture":"SCMP_ARCH_X86_64",
            "subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],"syscalls":[{"names":["read","write","openat"],
            "action":"SCMP_ACT_ALLOW","args":[],"comment":"","includes":{},"excludes":{}},{"names":["ptrace"],"action":
            "SCMP_ACT_ALLOW","includes":{"minKernel":"4.8","caps":["CAP_SYS_PTRACE"]},"excludes":{"arches":["s390x"]}}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"flags":["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls":[{"name":"socket","action":"SCMP_ACT_ERRNO","errnoRet":22,"args":[{"index":0,"value":16,
            "valueTwo":255,"op":"SCMP_CMP_MASKED_EQ"},{"index":2,"value":9,"op":"SCMP_CMP_GT"}]},{"names":["clone3"],
            "action":"SCMP_ACT_KILL_PROCESS"},{"names":["personality"],"action":"SCMP_ACT_TRACE","args":[{"index":0,
            "value":18446744073709551615,"op":"SCMP_CMP_NE"}]}]}"#,
    ])
}
