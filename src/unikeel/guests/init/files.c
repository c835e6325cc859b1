#include "files.h"
#include "sys.h"
#include "text.h"

#include <asm/fcntl.h>
#include <asm/stat.h>
#include <linux/mount.h>
#include <linux/time_types.h>

enum { PATH_SIZE = 4096, DEVICE_STEPS = 20000, STEP_NS = 1000 * 1000, STANDARD = 0755, FILE_MODE = 0644 };
enum { KIND = 0170000, DIRECTORY = 0040000 };

static const char root[] = "/newroot", volumes_tag[] = "volumes", volumes_at[] = "/volumes";

/* The directory with the volumes, shared or copied into the initrd; it is out of sight once the root is entered. */
static long volumes_directory = -1;

/* Where disks were mounted: texts of the settings. */
static const char *disks[MOST_VOLUMES + 1];

static bool mount_at(const char *type, const char *where, unsigned long flags, const char *data)
{
    CALL2(mkdir, where, STANDARD);
    long result = CALL5(mount, type, where, type, flags, data);
    if (result < 0 && result != -BUSY)
        say("init: cannot mount ", where, ": error ", digits(-result), NULL);
    return result >= 0;
}

void mount_system(void)
{
    mount_at("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, NULL);
    mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

void load_modules(const struct settings *settings)
{
    for (char *const *name = settings->modules; *name; name++) {
        char path[PATH_SIZE] = "/modules/";
        append(path, sizeof path, *name);
        long file = CALL3(open, path, O_RDONLY | O_CLOEXEC, 0);
        long result = file < 0 ? file : CALL3(finit_module, file, "", 0);
        if (result < 0 && result != -EXISTS)
            say("init: cannot load ", *name, ": error ", digits(-result), NULL);
        if (file >= 0)
            CALL1(close, file);
    }
}

static void await_device(const char *device)
{
    static const struct __kernel_timespec step = {.tv_nsec = STEP_NS};
    for (int count = 0; count < DEVICE_STEPS && CALL2(access, device, 0) < 0; count++)
        CALL2(nanosleep, &step, NULL);
}

void open_console(const struct settings *settings)
{
    if (!settings->console)
        return;
    await_device(settings->console);
    long console = CALL3(open, settings->console, O_RDWR | O_NOCTTY, 0);
    if (console < 0)
        return; /* there is nobody to tell */
    for (int stream = 0; stream <= 2; stream++)
        CALL2(dup2, console, stream);
    if (console > 2)
        CALL1(close, console);
}

static bool mount_disk(const struct settings *settings)
{
    long result = -NO_ENTRY;
    CALL2(mkdir, root, STANDARD);
    if (settings->device[0] == '/') /* else it is a tag, and the driver that was loaded knows it already */
        await_device(settings->device);
    result = CALL5(mount, settings->device, root, settings->type, settings->read_only ? MS_RDONLY : 0, settings->options);
    if (result < 0)
        say("init: cannot mount ", settings->device, " (", settings->type, "): error ", digits(-result), NULL);
    return result >= 0;
}

bool enter_root(const struct settings *settings)
{
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    if (!settings->device)
        return true;
    if (!mount_disk(settings))
        return false;
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        char target[PATH_SIZE] = "";
        append(target, sizeof target, root);
        append(target, sizeof target, moved[i]);
        CALL2(mkdir, target, STANDARD);
        if (CALL5(mount, moved[i], target, NULL, MS_MOVE, NULL) < 0)
            say("init: cannot move ", moved[i], NULL);
    }
    if (CALL1(chdir, root) < 0 || CALL5(mount, ".", "/", NULL, MS_MOVE, NULL) < 0 || CALL1(chroot, ".") < 0
        || CALL1(chdir, "/") < 0) {
        say("init: cannot enter the root file system", NULL);
        return false;
    }
    return true;
}

bool reach_volumes(const struct settings *settings)
{
    if (!settings->share) {
        volumes_directory = CALL3(open, volumes_at, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        return true;
    }
    CALL2(mkdir, volumes_at, STANDARD);
    long result = CALL5(mount, volumes_tag, volumes_at, settings->share, 0, settings->share_options);
    if (result >= 0)
        result = volumes_directory = CALL3(open, volumes_at, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (result < 0)
        say("init: cannot mount the volumes (", settings->share, "): error ", digits(-result), NULL);
    return result >= 0;
}

void make_directories(const char *directory)
{
    char path[PATH_SIZE] = "";
    for (size_t size = 0; directory[size] && size + 1 < sizeof path; size++) {
        path[size] = directory[size];
        path[size + 1] = 0;
        if (directory[size + 1] == '/' || !directory[size + 1])
            CALL2(mkdir, path, STANDARD);
    }
}

/* Something at `target` that a directory, or a file, can be mounted at. */
static void make_point(const char *target, bool is_directory)
{
    char above[PATH_SIZE] = "";
    if (is_directory) {
        make_directories(target);
        return;
    }
    append(above, sizeof above, target);
    size_t end = length(above);
    while (end && above[end - 1] != '/')
        end--;
    above[end ? end - 1 : 0] = 0;
    make_directories(above);
    long file = CALL3(open, target, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, FILE_MODE);
    if (file >= 0)
        CALL1(close, file);
}

/* Have a device under another name. */
static long name_device(const char *device, const char *name)
{
    if (same(device, name))
        return 0;
    make_point(name, false);
    CALL1(unlink, name);
    return CALL2(symlink, device, name);
}

static long mount_extra(char *name, const char *target, bool read_only)
{
    char *type = name;
    while (*type && *type != ',')
        type++;
    if (*type)
        *type++ = 0;
    await_device(name);
    if (!*type)
        return name_device(name, target);
    make_point(target, true);
    long result = CALL5(mount, name, target, type, read_only ? MS_RDONLY : 0, NULL);
    size_t count = 0;
    while (disks[count])
        count++;
    if (result >= 0)
        disks[count] = target;
    return result;
}

static long mount_entry(const char *name, const char *target, bool read_only)
{
    char source[PATH_SIZE] = "/proc/self/fd/";
    struct stat info;
    append(source, sizeof source, digits(volumes_directory));
    append(source, sizeof source, "/");
    append(source, sizeof source, name);
    long result = CALL2(stat, source, &info);
    if (result >= 0) {
        make_point(target, (info.st_mode & KIND) == DIRECTORY);
        result = CALL5(mount, source, target, NULL, MS_BIND | MS_REC, NULL);
    }
    if (result >= 0 && read_only)
        result = CALL5(mount, NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL);
    return result;
}

static bool mount_volume(const char *volume)
{
    char name[64] = "";
    size_t size = 0;
    for (; volume[size] && volume[size] != ':' && size + 1 < sizeof name; size++)
        name[size] = volume[size];
    if (volume[size] != ':' || !volume[size + 1] || volume[size + 2] != ':' || volume[size + 3] != '/') {
        say("init: not a volume: ", volume, NULL);
        return false;
    }
    bool read_only = volume[size + 1] == 'r';
    const char *target = volume + size + 3;
    long result = name[0] == '/' ? mount_extra(name, target, read_only) : mount_entry(name, target, read_only);
    if (result < 0)
        say("init: cannot mount the volume at ", target, ": error ", digits(-result), NULL);
    return result >= 0;
}

bool mount_volumes(const struct settings *settings)
{
    for (char *const *volume = settings->volumes; *volume; volume++)
        if (!mount_volume(*volume))
            return false;
    if (volumes_directory >= 0)
        CALL1(close, volumes_directory);
    return true;
}

bool write_file(const char *path, const char *text, int mode)
{
    /* Not through a link: it could lead out of the way of what is meant. */
    long file = CALL3(open, path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | (mode ? O_CREAT : 0), mode);
    if (file < 0)
        return false;
    bool done = CALL3(write, file, text, length(text)) == (long)length(text);
    CALL1(close, file);
    return done;
}

void furnish(const struct settings *settings)
{
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},
        {"/proc/self/fd/0", "/dev/stdin"},
        {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"},
    };
    mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666");
    mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        CALL2(symlink, links[i][0], links[i][1]);
    if (settings->host) {
        CALL2(sethostname, settings->host, length(settings->host));
        CALL2(mkdir, "/etc", STANDARD);
        write_file("/etc/hostname", settings->host, 0644);
    }
    if (settings->dns) {
        char text[PATH_SIZE] = "nameserver ";
        append(text, sizeof text, settings->dns);
        append(text, sizeof text, "\n");
        if (!write_file("/etc/resolv.conf", text, 0644))
            say("init: cannot write /etc/resolv.conf", NULL);
    }
}

void settle_files(void)
{
    CALL0(sync);
    for (const char *const *disk = disks; *disk; disk++)
        CALL5(mount, NULL, *disk, NULL, MS_REMOUNT | MS_RDONLY, NULL);
    CALL5(mount, NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
}
