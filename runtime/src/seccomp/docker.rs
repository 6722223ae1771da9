//! Docker's default system call profile, as data.
//!
//! Calls that no line lists fail with `EPERM`; `clone3` without `CAP_SYS_ADMIN`
//! fails with `ENOSYS` so that C libraries fall back to `clone`, whose flags a
//! filter can read.

use onggi_sys::caps;

use super::compile::{Compare, Condition, Outcome};
use super::tables::Abi;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// What happens to everything else.
pub(super) const DEFAULT: u32 = ERRNO | EPERM;

/// All namespace flags of `clone`.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Always allowed; sorted, so that one pass beside a sorted table finds all.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat",
    "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64",
    "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group",
    "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir",
    "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync",
    "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64",
    "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue",
    "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "futimesat", "get_robust_list",
    "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "getegid32", "geteuid",
    "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid",
    "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid",
    "getresuid32", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid",
    "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init",
    "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents",
    "io_pgetevents_time64", "io_setup", "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32",
    "lgetxattr", "link", "linkat", "listen", "listxattr", "listxattrat", "llistxattr", "lremovexattr",
    "lseek", "lsetxattr", "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create",
    "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall",
    "mmap", "mmap2", "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
    "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal",
    "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at",
    "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal",
    "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl",
    "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "process_vm_readv",
    "process_vm_writev", "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64",
    "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
    "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid",
    "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority",
    "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
    "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat",
    "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask",
    "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statx",
    "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname",
    "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "waitpid", "write", "writev",
];

/// Allowed with any of these capabilities.
#[rustfmt::skip]
const WITH: &[(&str, &[&str])] = &[
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_SYS_ADMIN", &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
        "mount", "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd",
        "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
    ]),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// Values of `personality` that are allowed: the query, and four harmless ones.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `AF_VSOCK`: reaches the hypervisor past all namespaces.
const VSOCK: u64 = 40;

fn condition(argument: u8, compare: Compare) -> Vec<Condition> {
    vec![Condition { argument, compare }]
}

/// The calls of one ABI that don't get [`DEFAULT`], sorted by number, for a
/// process with these capabilities.
pub(super) fn calls(abi: Abi, capabilities: caps::Set) -> Vec<(u32, Outcome)> {
    let mut calls = Vec::with_capacity(ALWAYS.len() + 40);
    let mut table = abi.calls().iter().peekable();
    for name in ALWAYS {
        while table.next_if(|(known, _)| known < name).is_some() {}
        if let Some((_, number)) = table.next_if(|(known, _)| known == name) {
            calls.push((abi.in_data(*number), Outcome::plain(ALLOW)));
        }
    }
    let mut add = |name: &str, outcome: Outcome| {
        if let Some(number) = abi.number(name) {
            calls.push((number, outcome));
        }
    };
    let admin = caps::number("CAP_SYS_ADMIN").is_some_and(|number| capabilities.has(number));
    for (capability, names) in WITH {
        if caps::number(capability).is_some_and(|number| capabilities.has(number)) {
            for name in *names {
                add(name, Outcome::plain(ALLOW));
            }
        }
    }
    let branches = PERSONALITIES.iter().map(|value| (condition(0, Compare::Equal(*value)), ALLOW)).collect();
    add("personality", Outcome { branches, fallback: DEFAULT });
    let branches = vec![(condition(0, Compare::NotEqual(VSOCK)), ALLOW)];
    add("socket", Outcome { branches, fallback: DEFAULT });
    if !admin {
        let branches = vec![(condition(0, Compare::Masked { mask: CLONE_NAMESPACES, value: 0 }), ALLOW)];
        add("clone", Outcome { branches, fallback: DEFAULT });
        add("clone3", Outcome::plain(ERRNO | ENOSYS));
    }
    match abi {
        // The x32 and 32-bit calls of a 64-bit host follow the host's lines.
        Abi::X86_64 | Abi::X32 | Abi::X86 => {
            add("arch_prctl", Outcome::plain(ALLOW));
            add("modify_ldt", Outcome::plain(ALLOW));
        }
        Abi::Aarch64 => add("sync_file_range2", Outcome::plain(ALLOW)),
    }
    calls.sort_by_key(|(number, _)| *number);
    // Two capabilities may allow the same call.
    calls.dedup_by_key(|(number, _)| *number);
    calls
}

#[cfg(test)]
mod tests {
    use super::super::tables::known;
    use super::*;

    #[test]
    fn names_are_sorted_and_known() {
        assert!(ALWAYS.is_sorted_by(|a, b| a < b));
        // On architectures that have no table here, or reserved.
        let elsewhere = ["clock_getres_time64", "recv", "send", "time64", "utimensat_time64"];
        for name in ALWAYS.iter().chain(WITH.iter().flat_map(|(_, names)| *names)) {
            assert!(known(name) || elsewhere.contains(name), "{name}");
        }
    }

    #[test]
    fn capabilities_open_calls() {
        let allowed = |set: caps::Set, name: &str| {
            let number = Abi::X86_64.number(name).unwrap();
            calls(Abi::X86_64, set).iter().any(|(n, o)| *n == number && *o == Outcome::plain(ALLOW))
        };
        let admin = caps::Set::EMPTY.with("CAP_SYS_ADMIN").unwrap();
        assert!(!allowed(caps::Set::EMPTY, "mount"));
        assert!(allowed(admin, "mount"));
        assert!(allowed(admin, "clone3"));
        assert!(!allowed(caps::Set::EMPTY, "clone3"));
        assert!(allowed(caps::Set::EMPTY, "openat2"));
        assert!(!allowed(caps::Set::ALL, "io_uring_setup"));
    }
}
