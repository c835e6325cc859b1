#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    DEBUG_EXIT_PORT = 0x501,
    HIGHEST_STATUS = 127,
    GRACE_STEPS = 200,
};

static const struct timespec grace_step = {.tv_nsec = 10 * 1000 * 1000};

void say(const char *first, ...)
{
    struct iovec parts[16];
    int count = 0;
    va_list rest;
    va_start(rest, first);
    for (const char *text = first; text && count < 15; text = va_arg(rest, const char *))
        parts[count++] = (struct iovec){(char *)text, strlen(text)};
    va_end(rest);
    parts[count++] = (struct iovec){"\n", 1};
    if (writev(STDOUT_FILENO, parts, count) < 0)
        return; /* nobody is left to be told */
}

void fail(const char *what, const char *subject)
{
    say("guest: ", what, " ", subject, ": ", strerror(errno), NULL);
    power_off();
}

bool read_text(const char *path, char *text, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t length = read(file, text, size - 1);
    close(file);
    text[length > 0 ? length : 0] = 0;
    return length >= 0;
}

static void mount_one(const char *root, const char *where, const char *type, unsigned long flags)
{
    char path[256];
    stpcpy(stpcpy(path, root), where);
    mkdir(path, 0755);
    if (mount(type, path, type, flags, NULL) && errno != EBUSY)
        say("guest: cannot mount ", path, ": ", strerror(errno), NULL);
}

void mount_system(const char *root)
{
    mount_one(root, "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
    mount_one(root, "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC);
    mount_one(root, "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC);
}

/* Cut the next word off `*rest` in place, its quotes removed; NULL at the end. */
static char *next_word(char **rest)
{
    char *from = *rest + strspn(*rest, " \n"), *word = from, *to = from, quote = 0;
    if (!*from)
        return NULL;
    for (; *from && (quote || (*from != ' ' && *from != '\n')); from++) {
        if (*from == quote)
            quote = 0;
        else if (!quote && (*from == '\'' || *from == '"'))
            quote = *from;
        else
            *to++ = *from;
    }
    *rest = *from ? from + 1 : from;
    *to = 0;
    return word;
}

void read_command_line(struct command_line *line)
{
    char **words = line->options, *rest = line->text, *word;
    int count = 0;
    if (!read_text("/proc/cmdline", line->text, sizeof line->text))
        fail("cannot read", "/proc/cmdline");
    line->arguments[0] = NULL;
    while ((word = next_word(&rest)) && count < MAX_WORDS - 1) {
        if (words == line->options && !strcmp(word, "--")) {
            words[count] = NULL;
            words = line->arguments;
            count = 0;
        } else {
            words[count++] = word;
        }
    }
    words[count] = NULL;
}

char *value_of(char *const words[], const char *name)
{
    char *value = NULL;
    size_t length = strlen(name);
    for (; *words; words++)
        if (!strncmp(*words, name, length))
            value = *words + length;
    return value;
}

void settle(void)
{
    kill(-1, SIGTERM);
    for (int step = 0; step < GRACE_STEPS; step++) {
        pid_t ended = waitpid(-1, NULL, WNOHANG);
        if (ended < 0)
            break;
        if (ended == 0)
            nanosleep(&grace_step, NULL);
    }
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        continue;
    sync();
    mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

void power_off(void)
{
    settle();
    reboot(RB_POWER_OFF);
    reboot(RB_AUTOBOOT); /* a machine that cannot power off; with -no-reboot QEMU ends here, too */
    for (;;)
        pause();
}

void exit_guest(int status)
{
    settle();
    if (!ioperm(DEBUG_EXIT_PORT, 1, 1))
        outb(status > HIGHEST_STATUS ? HIGHEST_STATUS : status, DEBUG_EXIT_PORT);
    power_off();
}
