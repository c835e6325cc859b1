/* Process 1 of a Linux guest that runs one program: guest-init PROGRAM [ARGUMENT…]
 *
 * Brings up the network as the kernel's ip= parameter says, starts the program, reports when it accepts connections on
 * port 80, passes the ACPI power button on to it as SIGTERM. When the program ends, the guest ends: with its exit
 * status, or by powering off if the button was pressed.
 */
#include "guest.h"
#include "network.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SERVICE_PORT = 80,
    MAX_INPUTS = 8,
    FIRST_PROBE_MS = 2,
    LAST_PROBE_MS = 500,
    NOT_FOUND = 127,
};

static const char *const default_program[] = {"/bin/sh", NULL};

static void mount_temporary(void)
{
    if (mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"))
        say("guest: cannot mount /run: ", strerror(errno), NULL);
    if (mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"))
        say("guest: cannot mount /tmp: ", strerror(errno), NULL);
}

static pid_t start(char *const argv[], const sigset_t *unblocked)
{
    pid_t child = fork();
    if (child < 0)
        fail("cannot start", argv[0]);
    if (child > 0)
        return child;
    sigprocmask(SIG_SETMASK, unblocked, NULL);
    setsid();
    execvp(argv[0], argv);
    say("guest: cannot run ", argv[0], ": ", strerror(errno), NULL);
    _exit(NOT_FOUND);
}

/* Input devices into `watched`, one of which is the power button; returns their number. */
static int open_inputs(struct pollfd *watched)
{
    int count = 0;
    DIR *directory = opendir("/dev/input");
    const struct dirent *entry;
    while (directory && count < MAX_INPUTS && (entry = readdir(directory))) {
        if (strncmp(entry->d_name, "event", 5))
            continue;
        int device = openat(dirfd(directory), entry->d_name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (device >= 0)
            watched[count++] = (struct pollfd){.fd = device, .events = POLLIN};
    }
    if (directory)
        closedir(directory);
    return count;
}

static bool button_pressed(int device)
{
    struct input_event event;
    bool pressed = false;
    while (read(device, &event, sizeof event) == sizeof event)
        pressed |= event.type == EV_KEY && event.code == KEY_POWER && event.value == 1;
    return pressed;
}

/* Reap whatever ended; true, with its exit status, if the program did. */
static bool reap(pid_t program, int *status)
{
    int result;
    bool ended = false;
    for (pid_t child; (child = waitpid(-1, &result, WNOHANG)) > 0;) {
        if (child != program)
            continue;
        *status = WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
        ended = true;
    }
    return ended;
}

/* Until the program has ended; returns its exit status, or -1 if it ended because of the power button. */
static int supervise(pid_t program, int signals)
{
    struct pollfd watched[1 + MAX_INPUTS] = {{.fd = signals, .events = POLLIN}};
    int count = 1 + open_inputs(watched + 1), status = 0, probe_ms = FIRST_PROBE_MS;
    bool ready = false, stopping = false;

    for (;;) {
        if (!ready && accepts_connections(SERVICE_PORT)) {
            say("guest ready", NULL);
            ready = true;
        }
        poll(watched, count, ready ? -1 : probe_ms);
        if (!ready && (probe_ms += probe_ms / 8 + 1) > LAST_PROBE_MS)
            probe_ms = LAST_PROBE_MS;

        for (int i = 1; i < count; i++)
            if (button_pressed(watched[i].fd)) {
                stopping = true;
                kill(program, SIGTERM);
            }
        struct signalfd_siginfo news;
        if (read(signals, &news, sizeof news) == sizeof news && reap(program, &status))
            return stopping ? -1 : status;
    }
}

int main(int argc, char *argv[])
{
    static struct command_line line;
    char **program = argc > 1 ? argv + 1 : (char **)default_program;
    sigset_t child, unblocked;

    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
    mount_system("");
    mount_temporary();
    read_command_line(&line);
    network_up(value_of(line.options, "ip="));

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &unblocked);
    int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);

    int status = supervise(start(program, &unblocked), signals);
    if (status < 0)
        power_off();
    exit_guest(status);
}
