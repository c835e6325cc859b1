/* /init of an initrd which is only a loader: load the drivers, mount the disk, become the disk's init.
 *
 * From the kernel's command line: root=DEVICE (default /dev/vda), ro, init=PROGRAM (default /sbin/init), and the
 * program's arguments after " -- ". The modules to load, in order, are the lines of /modules/list.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DEVICE_STEPS = 5000 };

static const struct timespec device_step = {.tv_nsec = 1000 * 1000};

static void load_module(const char *name)
{
    char path[256] = "/modules/";
    strncat(path, name, sizeof path - sizeof "/modules/");
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST))
        say("guest: cannot load module ", name, ": ", strerror(errno), NULL);
    if (file >= 0)
        close(file);
}

static void load_modules(void)
{
    char list[2048], *rest = list, *name;
    if (!read_text("/modules/list", list, sizeof list))
        fail("cannot read", "/modules/list");
    while ((name = strsep(&rest, "\n")))
        if (*name)
            load_module(name);
}

static void wait_for(const char *device)
{
    struct stat found;
    for (int step = 0; stat(device, &found) && step < DEVICE_STEPS; step++)
        nanosleep(&device_step, NULL);
}

static bool is_read_only(char *const options[])
{
    bool read_only = false;
    for (; *options; options++) {
        if (!strcmp(*options, "ro"))
            read_only = true;
        else if (!strcmp(*options, "rw"))
            read_only = false;
    }
    return read_only;
}

/* Make /root the root. The initrd's files stay in memory, but they are few. */
static void switch_root(void)
{
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    char target[16] = "/root";
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        strcpy(target + sizeof "/root" - 1, moved[i]);
        mkdir(target, 0755);
        if (mount(moved[i], target, NULL, MS_MOVE, NULL))
            say("guest: cannot move ", moved[i], ": ", strerror(errno), NULL);
    }
    if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        fail("cannot make the root of", "/root");
}

int main(void)
{
    static struct command_line line;
    char *argv[MAX_WORDS + 1], *device, *program;

    mount_system("");
    read_command_line(&line);
    load_modules();

    if (!(device = value_of(line.options, "root=")))
        device = "/dev/vda";
    if (!(program = value_of(line.options, "init=")))
        program = "/sbin/init";
    wait_for(device);
    mkdir("/root", 0755);
    if (mount(device, "/root", "ext4", is_read_only(line.options) ? MS_RDONLY : 0, NULL))
        fail("cannot mount", device);
    switch_root();

    argv[0] = program;
    memcpy(argv + 1, line.arguments, sizeof line.arguments);
    execv(program, argv);
    fail("cannot run", program);
}
