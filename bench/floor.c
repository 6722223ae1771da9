// The floor for starting a container: what the kernel itself takes.
//
//   floor LOWER SCRATCH all|no-net PROGRAM [ARGUMENT…]     (as root)
//
// One process in new mount, pid, ipc, uts, net (but with no-net) and cgroup namespaces, on an overlay over LOWER with an upper
// directory in SCRATCH, a fresh /proc, pivot_root, exec; the parent waits, removes the upper directory and passes
// the exit status on. No user namespace, capabilities, seccomp, devices or masks: nothing can be faster and be a
// container, and onggi does all of these.

#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(125);
    }
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: floor LOWER SCRATCH all|no-net PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    char upper[4096], work[4096], inner[4200], merged[4096], options[13000];
    snprintf(upper, sizeof upper, "%s/%d.upper", argv[2], (int)getpid());
    snprintf(work, sizeof work, "%s/%d.work", argv[2], (int)getpid());
    snprintf(inner, sizeof inner, "%s/work", work);
    snprintf(merged, sizeof merged, "%s/%d.merged", argv[2], (int)getpid());
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], upper, work);
    check(mkdir(upper, 0755), "mkdir upper");
    check(mkdir(work, 0755), "mkdir work");
    check(mkdir(merged, 0755), "mkdir merged");

    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP |
                 (strcmp(argv[3], "no-net") ? CLONE_NEWNET : 0),
        .exit_signal = SIGCHLD,
    };
    pid_t child = syscall(SYS_clone3, &args, sizeof args);
    check(child, "clone3");
    if (child == 0) {
        check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
        check(mount("overlay", merged, "overlay", 0, options), "overlay");
        check(chdir(merged), "chdir");
        check(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
        check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
        check(umount2(".", MNT_DETACH), "umount");
        check(chdir("/"), "chdir /");
        execvp(argv[4], argv + 4);
        check(-1, argv[4]);
    }
    int status = 0;
    check(waitpid(child, &status, 0), "waitpid");
    rmdir(inner);
    rmdir(work);
    rmdir(upper);
    rmdir(merged);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
