/* Runs in a monitor's place and tries what a monitor that a guest has taken over would try.
 *
 * Each attempt prints one line on standard error: "name ok" if it worked, else "name ERRNO". Arguments: files=3,5 (descriptors of shared
 * files) disk=4 (its own disk) port=N (something that listens on the host) path=P (a path of the host, any number of times), and one of
 * attack (everything), shared (only the files), eat (memory), fork (processes).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

static void say(const char *name, int at, long result)
{
    char line[128];
    int length = result < 0 ? snprintf(line, sizeof line, "%s@%d %s\n", name, at, strerrorname_np(errno))
                            : snprintf(line, sizeof line, "%s@%d ok\n", name, at);
    if (write(2, line, length) < 0)
        _exit(9);
}
#define TRY(name, call) (errno = 0, say(name, at, (long)(call)))

static void attack_file(int at, int disk)
{
    char link[64], target[64];
    int word = 0;
    loff_t zero = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    snprintf(target, sizeof target, "/tmp/link%d", at);
    TRY("fchmod", fchmod(at, 0666));
    TRY("chmod", chmod(link, 0666));
    TRY("fchmodat2", syscall(452, at, "", 0666, AT_EMPTY_PATH));
    TRY("fchown", fchown(at, getuid(), getgid()));
    TRY("open-rw", open(link, O_RDWR));
    TRY("open-w", open(link, O_WRONLY));
    TRY("open-trunc", open(link, O_WRONLY | O_TRUNC));
    TRY("open-rdonly-trunc", open(link, O_RDONLY | O_TRUNC));
    TRY("open-append", open(link, O_WRONLY | O_APPEND));
    TRY("write", write(at, "x", 1));
    TRY("pwrite", pwrite(at, "x", 1, 0));
    TRY("ftruncate", ftruncate(at, 0));
    TRY("truncate", truncate(link, 0));
    TRY("fallocate", fallocate(at, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    TRY("sendfile", sendfile(at, disk, &zero, 512));
    zero = 0;
    TRY("copy_file_range", copy_file_range(disk, &zero, at, NULL, 512, 0));
    TRY("ficlone", ioctl(at, FICLONE, disk));
    TRY("setflags", (ioctl(at, FS_IOC_GETFLAGS, &word), word ^= FS_NODUMP_FL, ioctl(at, FS_IOC_SETFLAGS, &word)));
    TRY("fifreeze", ioctl(at, _IOWR('X', 119, int), 0));
    TRY("futimens", futimens(at, NULL));
    TRY("setxattr", fsetxattr(at, "user.x", "x", 1, 0));
    TRY("linkat", linkat(at, "", AT_FDCWD, target, AT_EMPTY_PATH));
    TRY("linkat-proc", linkat(AT_FDCWD, link, AT_FDCWD, target, AT_SYMLINK_FOLLOW));
    TRY("mmap-shared-write", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, at, 0) == MAP_FAILED ? -1 : 0);
    void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, at, 0);
    TRY("mprotect", map == MAP_FAILED ? -1 : mprotect(map, 4096, PROT_READ | PROT_WRITE));
    TRY("openat-parent", openat(at, "..", O_RDONLY | O_DIRECTORY));
    TRY("upgrade-append", fcntl(at, F_SETFL, O_RDWR) < 0 || (fcntl(at, F_GETFL) & O_ACCMODE) == O_RDONLY ? (errno = errno ? errno : EACCES, -1) : 0);
}

static int connect_to(int family, int port, const char *path)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = 2};
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (path)
        strncpy(un.sun_path, path, sizeof un.sun_path - 1);
    return family == AF_UNIX ? connect(fd, (void *)&un, sizeof un) : connect(fd, (void *)&in, sizeof in);
}

static void attack_path(int at, const char *path)
{
    struct stat info;
    TRY("path-open", open(path, O_RDONLY));
    TRY("path-write", open(path, O_WRONLY));
    TRY("path-stat", stat(path, &info));
    TRY("path-connect", connect_to(AF_UNIX, 0, path));
    TRY("path-unlink", unlink(path));
}

static void attack_host(int at)
{
    static const char *const devices[] = {"/dev/mem", "/dev/kmsg", "/dev/loop-control", "/dev/loop0", "/dev/vda", "/dev/sda", "/dev/fuse", "/dev/net/tun", "/dev/kvm"};
    static const char *const places[] = {"/x", "/tmp/x", "/dev/x", "/usr/lib/x", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/sys/x"};
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
        TRY(devices[i], open(devices[i], O_RDONLY));
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
        TRY(places[i], open(places[i], O_WRONLY | O_CREAT, 0600));
    TRY("mkdir", mkdir("/tmp/d", 0700));
    TRY("mknod", mknod("/dev/y", S_IFBLK | 0600, makedev(7, 0)));
    TRY("mount-tmpfs", mount("none", "/tmp", "tmpfs", 0, NULL));
    TRY("remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    TRY("umount", umount2("/proc", MNT_DETACH));
    TRY("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    TRY("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    TRY("chroot", chroot("/tmp"));
    TRY("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    TRY("unshare-user", unshare(CLONE_NEWUSER));
    TRY("unshare-mount", unshare(CLONE_NEWNS));
    TRY("unshare-net", unshare(CLONE_NEWNET));
    TRY("setns", setns(open("/proc/1/ns/net", O_RDONLY), 0));
    TRY("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
    TRY("ptrace-attach", ptrace(PTRACE_ATTACH, getppid() ? getppid() : 2, 0, 0));
    TRY("process_vm_writev", syscall(SYS_process_vm_writev, 2, NULL, 0, NULL, 0, 0) == 0 ? (errno = EPERM, -1) : -1);
    TRY("kill-all", kill(-1, SIGTERM));
    TRY("kill-2", kill(2, SIGKILL));
    TRY("kill-keeper", kill(1234, 0));
    TRY("socket-inet", socket(AF_INET, SOCK_STREAM, 0));
    TRY("socket-inet6", socket(AF_INET6, SOCK_DGRAM, 0));
    TRY("socket-netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    TRY("socket-packet", socket(AF_PACKET, SOCK_RAW, 0));
    TRY("socket-vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    TRY("socketpair-inet", socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){0}));
    TRY("bpf", syscall(SYS_bpf, 0, NULL, 0));
    TRY("keyctl", syscall(SYS_keyctl, 0, 0));
    TRY("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    TRY("userfaultfd", syscall(SYS_userfaultfd, 0));
    TRY("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
    TRY("init_module", syscall(SYS_init_module, NULL, 0, ""));
    TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    TRY("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0));
    TRY("name_to_handle_at", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", NULL, NULL, 0));
    TRY("pidfd_getfd", syscall(SYS_pidfd_getfd, 0, 0, 0));
    TRY("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
    TRY("swapon", syscall(SYS_swapon, "/x", 0));
    TRY("iopl", syscall(SYS_iopl, 3));
    TRY("settimeofday", syscall(SYS_settimeofday, NULL, NULL));
    TRY("sethostname", sethostname("x", 1));
    TRY("quotactl", syscall(SYS_quotactl, 0, NULL, 0, NULL));
    TRY("acct", syscall(SYS_acct, "/x"));
    TRY("setuid", getuid() == 0 ? (errno = EPERM, -1) : setuid(0));
    TRY("setgid", getgid() == 0 ? (errno = EPERM, -1) : setgid(0));
    TRY("new-privileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? (errno = EPERM, -1) : 0);
    for (int capability = 0; capability < 41; capability++)
        if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1)
            TRY("capability", capability);
}

static void eat(void)
{
    for (;;) {
        char *piece = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (piece == MAP_FAILED)
            _exit(3);
        memset(piece, 1, 16 << 20);
    }
}

static void multiply(void)
{
    int at = 0;
    for (; at < 100000; at++) {
        pid_t child = fork();
        if (child < 0)
            break;
        if (child == 0)
            for (;;)
                pause();
    }
    say("fork", at, at >= 100000 ? 0 : -1);
    _exit(0);
}

int main(int argc, char **argv)
{
    int at = 0, disk = -1, files[16], count = 0, host = 0, port = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "eat"))
            eat();
        if (!strcmp(argv[i], "fork"))
            multiply();
        if (!strcmp(argv[i], "attack"))
            host = 1;
        if (!strncmp(argv[i], "disk=", 5))
            disk = atoi(argv[i] + 5);
        if (!strncmp(argv[i], "port=", 5))
            port = atoi(argv[i] + 5);
        for (char *word = strncmp(argv[i], "files=", 6) ? NULL : strtok(argv[i] + 6, ","); word; word = strtok(NULL, ","))
            files[count++] = atoi(word);
    }
    TRY("control", pwrite(disk, "x", 1, 4096)); /* its own disk it may write: so the attempts do reach the kernel */
    for (int i = 0; i < count; i++)
        attack_file(files[i], disk);
    TRY("connect-host", connect_to(AF_INET, port, NULL));
    for (int i = 1, number = 0; i < argc; i++)
        if (!strncmp(argv[i], "path=", 5))
            attack_path(number++, argv[i] + 5);
    if (host)
        attack_host(0);
    TRY("finished", 0);
    return 0;
}
