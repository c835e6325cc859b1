"""The system calls a monitor may make; everything else fails with EPERM.

The list holds what QEMU needs to run one guest whose files, disk and sockets it inherits: memory, threads, event loops, file and
socket transfer on open descriptors, KVM's ioctls, opening files of its read-only root. Not in it: mounts, namespaces, ptrace, keys, bpf,
module loading, other processes' memory, changing owners or modes, new network sockets beyond unix ones, and starting programs
after the first.
"""

from __future__ import annotations

from functools import cache

from unikeel.lean import Final

_MEMORY: Final = (
    "brk madvise mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall munmap membarrier"
)
_THREADS: Final = (
    "arch_prctl clone clone3 exit exit_group futex futex_waitv get_robust_list set_robust_list set_tid_address rseq gettid getpid getppid "
    "sched_getaffinity sched_setaffinity sched_getattr sched_getparam sched_getscheduler sched_yield getcpu tgkill tkill kill wait4 waitid "
    "prctl prlimit64 getrlimit getrusage set_thread_area restart_syscall"
)
_SIGNALS: Final = "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack signalfd signalfd4 pause"
_EVENTS: Final = (
    "epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll ppoll pselect6 select timerfd_create "
    "timerfd_gettime timerfd_settime timer_create timer_delete timer_getoverrun timer_gettime timer_settime alarm setitimer getitimer "
    "clock_getres clock_gettime clock_nanosleep gettimeofday nanosleep time times"
)
_FILES: Final = (
    "access close close_range copy_file_range dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate fcntl fdatasync fstat fstatfs fsync "
    "ftruncate getcwd getdents getdents64 ioctl lseek lstat newfstatat open openat pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 "
    "read readahead readlink readlinkat readv sendfile splice stat statfs statx sync_file_range tee uname umask unlink unlinkat vmsplice write "
    "writev memfd_create flock chdir fchdir io_setup io_submit io_getevents io_pgetevents io_destroy io_cancel getrandom sysinfo"
)
_SOCKETS: Final = (
    "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto setsockopt shutdown "
    "socketpair"
)
_IDENTITY: Final = (
    "getuid geteuid getgid getegid getresuid getresgid getgroups capget getpgrp getpgid getsid getpriority"
)
#: QEMU confines itself further (-sandbox); a process can only ever take system calls away from itself.
_TIGHTENING: Final = "seccomp"
#: The OCI runtime itself needs these between loading the filter and starting the monitor.
_STARTING: Final = "execve execveat setuid setgid setgroups setresuid setresgid capset setsid"

_AF_UNIX: Final = 1
#: System calls that are allowed with one argument only: personality(2) with that which changes nothing, unshare(2) with CLONE_FS.
_ONE_ARGUMENT: Final = {"personality": 0xFFFFFFFF, "unshare": 0x200}


@cache
def profile(more: tuple[str, ...] = ()) -> dict[str, object]:
    """The ``linux.seccomp`` part of an OCI runtime configuration (runtime-spec 1.0, config-linux.md); the same object for all, not to be changed.

    :param more: system calls beyond the list, that one monitor needs; ``personality`` only as a question, ``unshare`` only of the current directory.
    """
    groups = (_MEMORY, _THREADS, _SIGNALS, _EVENTS, _FILES, _SOCKETS, _IDENTITY, _TIGHTENING, _STARTING)
    names = sorted({name for group in groups for name in group.split()} | (set(more) - set(_ONE_ARGUMENT)))
    asked = [
        {
            "names": [name],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
        }
        for name, value in _ONE_ARGUMENT.items()
        if name in more
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": _AF_UNIX, "op": "SCMP_CMP_EQ"}],
            },
            *asked,
        ],
    }
