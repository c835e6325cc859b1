#include "running.h"
#include "files.h"
#include "sys.h"
#include "text.h"

#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <asm/signal.h>
#include <linux/input-event-codes.h>
#include <linux/time_types.h>
#include <linux/wait.h>

enum {
    PATH_SIZE = 4096,
    MOST_INPUTS = 8,
    NOT_FOUND = 127,
    NOT_EXECUTABLE = 126,
    GRACE_STEPS = 200,
    STEP_NS = 10 * 1000 * 1000,
    DIRECTORY_SIZE = 4096,
};

static const char usual_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* As the kernel hands them out (getdents64(2), signalfd(2), Documentation/input/input.rst). */
struct entry {
    uint64_t inode, offset;
    unsigned short size;
    unsigned char type;
    char name[];
};
struct news {
    uint32_t signal;
    char rest[124];
};
/* linux/input.h wants a C library's headers. */
struct input_event {
    uint64_t seconds, microseconds;
    uint16_t type, code;
    int32_t value;
};

static uint64_t bit(int signal)
{
    return 1ull << (signal - 1);
}

static const char *value_of(char *const *variables, const char *name)
{
    const char *found = NULL;
    for (; *variables; variables++)
        if (begins(*variables, name))
            found = *variables + length(name);
    return found;
}

/* Returns only if that fails. */
static long execute(const struct settings *settings)
{
    const char *program = settings->arguments[0], *directories = value_of(settings->variables, "PATH=");
    char path[PATH_SIZE];
    long result = -NO_ENTRY;
    for (const char *letter = program; *letter; letter++)
        if (*letter == '/')
            return CALL3(execve, program, settings->arguments, settings->variables);
    for (const char *from = directories ? directories : usual_path; *from; from += *from == ':') {
        size_t size = 0;
        for (; *from && *from != ':'; from++)
            if (size + 1 < sizeof path)
                path[size++] = *from;
        path[size] = 0;
        append(path, sizeof path, "/");
        append(path, sizeof path, program);
        long tried = CALL3(execve, path, settings->arguments, settings->variables);
        if (tried != -NO_ENTRY)
            result = tried;
    }
    return result;
}

/* Enter a directory that is made, with those above it, if it is not there: images name working directories that they do not have. */
static bool enter(const char *directory)
{
    if (CALL1(chdir, directory) == 0)
        return true;
    make_directories(directory);
    return CALL1(chdir, directory) == 0;
}

static bool become(const struct settings *settings)
{
    const char *directory = settings->directory ? settings->directory : "/";
    if (!enter(directory)) {
        say("init: cannot enter ", directory, NULL);
        return false;
    }
    /* Its own standard streams must be its to open again, by /dev/stdout. */
    CALL3(fchown, 1, settings->user, settings->group);
    if (CALL2(setgroups, settings->group_count, settings->groups) < 0 || CALL1(setgid, settings->group) < 0
        || CALL1(setuid, settings->user) < 0) {
        say("init: cannot become user ", digits(settings->user), NULL);
        return false;
    }
    return true;
}

static long start(const struct settings *settings, uint64_t unblocked)
{
    long child = CALL0(fork);
    if (child != 0)
        return child;
    CALL4(rt_sigprocmask, SIG_SETMASK, &unblocked, NULL, sizeof unblocked);
    CALL0(setsid);
    CALL3(ioctl, 0, TIOCSCTTY, 0);
    if (!become(settings))
        CALL1(exit_group, NOT_EXECUTABLE);
    long error = -execute(settings);
    say("init: cannot run ", settings->arguments[0], ": error ", digits(error), NULL);
    CALL1(exit_group, error == NO_ENTRY ? NOT_FOUND : NOT_EXECUTABLE);
    __builtin_unreachable();
}

/* Input devices into `watched`, one of which may be the power button; how many. */
static int open_inputs(struct pollfd *watched)
{
    char buffer[DIRECTORY_SIZE] __attribute__((aligned(8)));
    int count = 0;
    long size, directory = CALL3(open, "/dev/input", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    while (directory >= 0 && (size = CALL3(getdents64, directory, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < size;) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            at += entry->size;
            if (!begins(entry->name, "event") || count == MOST_INPUTS)
                continue;
            long device = CALL4(openat, directory, entry->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
            if (device >= 0)
                watched[count++] = (struct pollfd){.fd = (int)device, .events = POLLIN};
        }
    if (directory >= 0)
        CALL1(close, directory);
    return count;
}

static bool is_pressed(int device)
{
    struct input_event event;
    bool pressed = false;
    while (CALL3(read, device, &event, sizeof event) == (long)sizeof event)
        pressed |= event.type == EV_KEY && event.code == KEY_POWER && event.value == 1;
    return pressed;
}

/* Reap whatever ended; true, with its exit status, if the program did. */
static bool reap(long program, int *status)
{
    int result;
    bool ended = false;
    for (long child; (child = CALL4(wait4, -1, &result, WNOHANG, NULL)) > 0;) {
        if (child != program)
            continue;
        *status = result & 0x7f ? 128 + (result & 0x7f) : result >> 8 & 0xff;
        ended = true;
    }
    return ended;
}

/* Signals that reach process 1 are for the program; control, alt and delete (SIGINT) ask the guest to end. True: it is to end. */
static bool heed(long program, uint32_t signal)
{
    if (signal == SIGCHLD)
        return false;
    bool ending = signal == SIGINT || signal == SIGTERM || signal == SIGPWR;
    CALL2(kill, program, ending ? SIGTERM : signal);
    return ending;
}

int run(const struct settings *settings)
{
    uint64_t blocked = bit(SIGCHLD) | bit(SIGINT) | bit(SIGTERM) | bit(SIGPWR) | bit(SIGHUP) | bit(SIGUSR1) | bit(SIGUSR2);
    uint64_t unblocked = 0;
    struct pollfd watched[1 + MOST_INPUTS];
    struct news news;
    int status = 0;
    bool stopping = false;

    CALL4(rt_sigprocmask, SIG_SETMASK, &blocked, NULL, sizeof blocked);
    watched[0] = (struct pollfd){.fd = (int)CALL4(signalfd4, -1, &blocked, sizeof blocked, O_CLOEXEC | O_NONBLOCK), .events = POLLIN};
    long program = start(settings, unblocked);
    if (program < 0) {
        say("init: cannot start ", settings->arguments[0], NULL);
        return NOT_EXECUTABLE;
    }
    int count = 1 + open_inputs(watched + 1);
    for (;;) {
        CALL3(poll, watched, count, -1);
        while (CALL3(read, watched[0].fd, &news, sizeof news) == (long)sizeof news)
            stopping |= heed(program, news.signal);
        for (int i = 1; i < count; i++)
            if (is_pressed(watched[i].fd)) {
                stopping = true;
                CALL2(kill, program, SIGTERM);
            }
        if (reap(program, &status))
            return stopping ? -1 : status;
    }
}

void settle_processes(void)
{
    static const struct __kernel_timespec step = {.tv_nsec = STEP_NS};
    CALL2(kill, -1, SIGTERM);
    for (int count = 0; count < GRACE_STEPS; count++) {
        long ended = CALL4(wait4, -1, NULL, WNOHANG, NULL);
        if (ended < 0)
            return;
        if (ended == 0)
            CALL2(nanosleep, &step, NULL);
    }
    CALL2(kill, -1, SIGKILL);
    while (CALL4(wait4, -1, NULL, 0, NULL) > 0)
        continue;
}
