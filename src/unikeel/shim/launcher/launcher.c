/* containerd-shim-unikeel-v2: what containerd executes for `start`, `delete` and `-info`.
 *
 * It asks the resident daemon one question and prints the answer: no interpreter runs on the path of a start. An ordinary container is none of
 * our business: the program that the answer names is executed in our place, with the same arguments, environment and standard input. */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef UNIKEEL_VERSION
#define UNIKEEL_VERSION "unknown"
#endif
#define NAME "containerd-shim-unikeel-v2"
#define SERVICE "unikeel.launcher.v1.Launcher"
#define SOCKET "/run/unikeel/daemon/launch.sock"
#define CHILD_OUTPUT ((size_t)1 << 20)

typedef struct {
    int count;
    char **words;
    const char *action, *namespace, *address, *id, *bundle, *containerd;
    bool info, version;
    char cwd[PATH_MAX];
} Arguments;

typedef struct {
    uint32_t exit;
    bool relay;
    Slice output, error, exec;
} Answer;

static bool write_all(int fd, const void *data, size_t size)
{
    const uint8_t *rest = data;
    while (size > 0) {
        ssize_t done = write(fd, rest, size);
        if (done < 0 && errno != EINTR)
            return false;
        if (done > 0) {
            rest += done;
            size -= (size_t)done;
        }
    }
    return true;
}

/* One line, without anything that a terminal would obey. */
static void say(int fd, const void *text, size_t size)
{
    char line[2048];
    const char *from = text;
    size_t length = size < sizeof line - 1 ? size : sizeof line - 1;
    for (size_t index = 0; index < length; index++)
        line[index] = (unsigned char)from[index] < 0x20 || from[index] == 0x7f ? ' ' : from[index];
    while (length > 0 && line[length - 1] == ' ')
        length--;
    line[length++] = '\n';
    write_all(fd, line, length);
}

/* The sentence in `trouble`, in our name; the exit code. containerd shows what `start` printed on either stream, and of `delete` standard error. */
static int give_up(int fd)
{
    char line[sizeof trouble + 64];
    int size = snprintf(line, sizeof line, NAME ": %s", trouble);
    say(fd, line, (size_t)size);
    return 1;
}

/* A number of seconds from the environment, in nanoseconds. */
static int64_t seconds(const char *name, double otherwise)
{
    const char *text = getenv(name);
    char *end = NULL;
    double value = text != NULL && *text != '\0' ? strtod(text, &end) : otherwise;
    if ((end != NULL && *end != '\0') || !(value > 0 && value <= 86400))
        value = otherwise;
    return (int64_t)(value * (double)SECOND);
}

static const char *socket_path(void)
{
    const char *path = getenv("UNIKEEL_LAUNCH_SOCKET");
    return path != NULL && *path != '\0' ? path : SOCKET;
}

/* ---- arguments ---- */

/* Where the value of a flag goes, or NULL: a flag that we do not know, or one without a value. */
static const char **place_of(Arguments *arguments, const char *name, size_t size)
{
    static const char *ignored;
    const struct {
        const char *name;
        const char **place;
    } known[] = {
        {"namespace", &arguments->namespace}, {"address", &arguments->address}, {"id", &arguments->id}, {"bundle", &arguments->bundle},
        {"publish-binary", &arguments->containerd}, {"socket", &ignored},
    };
    for (size_t index = 0; index < sizeof known / sizeof *known; index++)
        if (strlen(known[index].name) == size && memcmp(known[index].name, name, size) == 0)
            return known[index].place;
    return NULL;
}

/* Read the flags that we know, in any order; all words go to the daemon as they are. */
static void read_arguments(Arguments *arguments)
{
    for (int index = 1; index < arguments->count; index++) {
        const char *word = arguments->words[index];
        if (*word != '-') {
            if (arguments->action == NULL && (strcmp(word, "start") == 0 || strcmp(word, "delete") == 0))
                arguments->action = word;
            continue;
        }
        word += word[1] == '-' ? 2 : 1;
        const char *equals = strchr(word, '=');
        const char **place = place_of(arguments, word, equals != NULL ? (size_t)(equals - word) : strlen(word));
        if (place != NULL && equals != NULL)
            *place = equals + 1;
        else if (place != NULL && index + 1 < arguments->count)
            *place = arguments->words[++index];
        else if (strcmp(word, "info") == 0)
            arguments->info = true;
        else if (strcmp(word, "v") == 0)
            arguments->version = true;
    }
    if (arguments->namespace == NULL || *arguments->namespace == '\0')
        arguments->namespace = getenv("NAMESPACE");
    if (arguments->address == NULL || *arguments->address == '\0')
        arguments->address = getenv("GRPC_ADDRESS");
    if (getcwd(arguments->cwd, sizeof arguments->cwd) == NULL)
        arguments->cwd[0] = '\0';
    if (arguments->bundle == NULL || *arguments->bundle == '\0')
        arguments->bundle = arguments->cwd;
}

static bool check_arguments(const Arguments *arguments)
{
    if (arguments->action == NULL)
        explain("there is nothing to do: containerd executes this program, with the word start or delete");
    else if (arguments->id == NULL || *arguments->id == '\0')
        explain("%s needs -id", arguments->action);
    else if (arguments->namespace == NULL || *arguments->namespace == '\0')
        explain("%s needs -namespace", arguments->action);
    else if (*arguments->bundle == '\0')
        explain("%s needs -bundle, or the bundle as its working directory", arguments->action);
    else
        return true;
    return false;
}

static Bytes launch_request(const Arguments *arguments, const Bytes *input)
{
    Bytes request = {.limit = FRAME_MAX};
    const char *version = getenv("MAX_SHIM_VERSION");
    for (int index = 1; index < arguments->count; index++)
        add_bytes(&request, 1, arguments->words[index], strlen(arguments->words[index]));
    add_text(&request, 2, arguments->cwd);
    if (input->size > 0)
        add_bytes(&request, 3, input->data, input->size);
    add_text(&request, 4, getenv("TTRPC_ADDRESS"));
    add_text(&request, 5, arguments->address);
    add_text(&request, 6, arguments->namespace);
    add_text(&request, 7, arguments->id);
    add_text(&request, 8, arguments->bundle);
    add_number(&request, 9, version != NULL ? (uint32_t)strtoul(version, NULL, 10) : 0);
    return request;
}

static bool read_answer(const Bytes *bytes, Answer *answer)
{
    Slice rest = {bytes->data, bytes->size};
    Field field;
    int more;
    memset(answer, 0, sizeof *answer);
    while ((more = next_field(&rest, &field)) > 0) {
        if (field.number == 1 && field.type == 0)
            answer->exit = (uint32_t)field.value;
        else if (field.number == 2 && field.type == 2)
            answer->output = field.bytes;
        else if (field.number == 3 && field.type == 2)
            answer->error = field.bytes;
        else if (field.number == 4 && field.type == 2)
            answer->exec = field.bytes;
        else if (field.number == 5 && field.type == 0)
            answer->relay = field.value != 0;
    }
    if (more < 0)
        explain("the daemon's answer is malformed");
    return more == 0;
}

/* ---- reaching the daemon, which is started if need be ---- */

/* The directory that `path` is in, with its slash, before `name`. */
static bool beside(const char *path, const char *name, char *found)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    return slash != NULL && snprintf(found, PATH_MAX, "%.*s%s", (int)(slash - path + 1), path, name) < PATH_MAX && access(found, X_OK) == 0;
}

static bool on_path(const char *name, char *found)
{
    const char *from = getenv("PATH");
    while (from != NULL && *from != '\0') {
        size_t size = strcspn(from, ":");
        if (*from == '/' && snprintf(found, PATH_MAX, "%.*s/%s", (int)size, from, name) < PATH_MAX && access(found, X_OK) == 0)
            return true;
        from += size + (from[size] == ':');
    }
    return false;
}

/* The command that starts it: $UNIKEEL_COMMAND, on the PATH, or beside ourselves. */
static bool find_command(char *path)
{
    const char *given = getenv("UNIKEEL_COMMAND");
    char ourselves[PATH_MAX];
    if (given != NULL && *given != '\0')
        return snprintf(path, PATH_MAX, "%s", given) < PATH_MAX;
    ssize_t size = readlink("/proc/self/exe", ourselves, sizeof ourselves - 1);
    ourselves[size > 0 ? size : 0] = '\0';
    return on_path("unikeel", path) || beside(ourselves, "unikeel", path);
}

/* A lock beside the socket, so that one of many launchers starts the daemon: 1 we have it, 0 another has, -1 it cannot be. */
static int take_lock(void)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s", socket_path()) >= (int)sizeof path - 16)
        return -1;
    for (char *slash = path; (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
        *slash = '\0';
        mkdir(path, 0700); /* if it fails, so does the opening */
    }
    char *name = strrchr(path, '/');
    strcpy(name == NULL ? path : name + 1, "start.lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        explain("%s cannot be opened: %s", path, strerror(errno));
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 1; /* held until we end */
    close(fd);
    return 0;
}

/* Run `unikeel daemon --detach`, with none of our streams: who holds containerd's pipe would make it wait. */
static pid_t start_daemon(const char *command, int output)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    static const char *const foreign[] = {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"};
    for (size_t index = 0; index < sizeof foreign / sizeof *foreign; index++)
        unsetenv(foreign[index]);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setsid();
    if (chdir("/") == 0 && dup2(null, 0) == 0 && dup2(output, 1) == 1 && dup2(output, 2) == 2)
        execl(command, "unikeel", "daemon", "--detach", (char *)NULL);
    dprintf(output, "%s cannot be executed: %s", command, strerror(errno));
    _exit(127);
}

static void explain_failed_start(const char *command, int output)
{
    char text[600];
    ssize_t size = pread(output, text, sizeof text, 0);
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == ' '))
        size--;
    if (size > 0)
        explain("the daemon could not be started: %.*s", (int)size, text);
    else
        explain("the daemon could not be started: `%.600s daemon --detach` failed without a word", command);
}

/* A connection to the daemon, or -1. `starts`: how often it may still be started. */
static int reach(int64_t deadline, int *starts)
{
    char command[PATH_MAX] = "";
    int output = -1;
    pid_t child = 0;
    for (int64_t pause = 1;; pause = pause < 20 ? pause * 2 : 20) {
        int fd = dial(socket_path(), deadline);
        if (fd >= 0)
            return fd;
        if (errno != ENOENT && errno != ECONNREFUSED) {
            explain("the daemon's socket %s cannot be connected to: %s", socket_path(), strerror(errno));
            return -1;
        }
        int status, locked;
        if (child > 0 && waitpid(child, &status, WNOHANG) == child) {
            child = 0;
            if (status != 0) {
                explain_failed_start(command, output);
                return -1;
            }
        }
        if (now() >= deadline) {
            explain("the daemon is away: nobody listens at %s (`unikeel daemon` starts it)", socket_path());
            return -1;
        }
        if (*starts > 0 && (locked = take_lock()) != 0) {
            if (locked < 0)
                return -1;
            --*starts;
            fd = dial(socket_path(), deadline); /* another may have been quicker */
            if (fd >= 0)
                return fd;
            if (!find_command(command)) {
                explain("the daemon is away, and the command unikeel that would start it is not on the PATH (set UNIKEEL_COMMAND)");
                return -1;
            }
            output = memfd_create("unikeel-daemon-start", MFD_CLOEXEC);
            child = start_daemon(command, output);
            pause = 1;
        }
        poll(NULL, 0, (int)pause);
    }
}

/* ---- ordinary containers ---- */

/* The answer's program as a path: it is absolute, or a name that containerd would find, and not this very program. */
static bool program_path(const Arguments *arguments, Slice given, char *path)
{
    struct stat program, ourselves;
    char name[PATH_MAX];
    if (given.size == 0 || given.size >= sizeof name || memchr(given.data, 0, given.size) != NULL) {
        explain("the program to run an ordinary container with has no valid name");
        return false;
    }
    memcpy(name, given.data, given.size);
    name[given.size] = '\0';
    if (*name == '/') {
        strcpy(path, name);
    } else if (strchr(name, '/') != NULL || !(on_path(name, path) || beside(arguments->containerd, name, path))) {
        explain("%.255s, the program to run an ordinary container with, is neither on the PATH nor beside containerd", name);
        return false;
    }
    if (stat(path, &program) == 0 && stat("/proc/self/exe", &ourselves) == 0 && program.st_dev == ourselves.st_dev &&
        program.st_ino == ourselves.st_ino) {
        explain("%.900s is this program itself, and cannot run an ordinary container", path);
        return false;
    }
    return true;
}

/* Remember the program for `delete`, in the bundle; whole or not at all. */
static bool remember(const char *bundle, const char *program)
{
    char part[PATH_MAX], path[PATH_MAX];
    bool short_enough = snprintf(part, sizeof part, "%s/.unikeel-exec.part", bundle) < (int)sizeof part;
    snprintf(path, sizeof path, "%s/unikeel-exec", bundle);
    int fd = short_enough ? open(part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600) : -1;
    bool fine = fd >= 0 && write_all(fd, program, strlen(program));
    if (fd >= 0)
        close(fd);
    if (fine && rename(part, path) == 0)
        return true;
    explain("%s cannot be written: %s", path, strerror(short_enough ? errno : ENAMETOOLONG));
    return false;
}

/* 1 and the program that `start` remembered, 0 if there is none, -1 if it cannot be read. */
static int recall(const Arguments *arguments, char *program)
{
    char path[PATH_MAX], text[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/unikeel-exec", arguments->bundle) >= (int)sizeof path)
        return 0;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    ssize_t size = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (size < 0) {
        explain("%s cannot be read: %s", path, strerror(errno));
        return -1;
    }
    close(fd);
    return program_path(arguments, (Slice){(const uint8_t *)text, (size_t)size}, program) ? 1 : -1;
}

/* Have `input` as standard input. */
static bool give_input(const Bytes *input)
{
    int fd = input->size == 0 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : memfd_create("unikeel-stdin", MFD_CLOEXEC);
    bool fine = fd >= 0 && write_all(fd, input->data, input->size) && (input->size == 0 || lseek(fd, 0, SEEK_SET) == 0) && dup2(fd, 0) == 0;
    if (!fine)
        explain("standard input cannot be given on: %s", strerror(errno));
    return fine;
}

static void become(const Arguments *arguments, char *program)
{
    arguments->words[0] = program;
    execv(program, arguments->words);
    explain("%s cannot be executed: %s", program, strerror(errno));
}

/* Run the program as a child and collect what it prints; its exit code, or -1. */
static int run_child(const Arguments *arguments, char *program, Bytes *output)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        explain("a pipe cannot be made: %s", strerror(errno));
        return -1;
    }
    pid_t child = fork();
    if (child == 0) {
        if (dup2(ends[1], 1) == 1)
            become(arguments, program);
        _exit(give_up(1));
    }
    close(ends[1]);
    uint8_t part[4096];
    ssize_t size = 0;
    while (child > 0 && ((size = read(ends[0], part, sizeof part)) > 0 || (size < 0 && errno == EINTR)))
        if (size > 0)
            add(output, part, (size_t)size);
    close(ends[0]);
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        explain("%s cannot be executed: %s", program, strerror(errno));
        return -1;
    }
    if (output->failed) {
        explain("%s printed more than %zu bytes", program, CHILD_OUTPUT);
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- start, delete, -info ---- */

/* Print an answer that is about us; the exit code. */
static int print(const Answer *answer, int errors)
{
    if (!write_all(1, answer->output.data, answer->output.size)) {
        explain("the answer cannot be written: %s", strerror(errno));
        return give_up(2);
    }
    if (answer->exit == 0)
        return 0;
    if (answer->error.size > 0)
        say(errors, answer->error.data, answer->error.size);
    return answer->exit < 256 ? (int)answer->exit : 1;
}

/* Ask the daemon, in all within `deadline`; `answer` points into `bytes`. Who was just ending is asked once more: each question may come twice. */
static Outcome ask(const char *method, const Bytes *request, int64_t reach_by, int64_t deadline, int *starts, Bytes *bytes, Answer *answer)
{
    for (bool again = false;; again = true) {
        int fd = reach(reach_by, starts);
        if (fd < 0)
            return AWAY;
        *bytes = (Bytes){.limit = FRAME_MAX};
        Outcome outcome = call(fd, SERVICE, method, request, deadline, bytes);
        close(fd);
        if (outcome != AWAY || again || now() >= reach_by)
            return outcome == ANSWERED && !read_answer(bytes, answer) ? BROKEN : outcome;
        free(bytes->data);
        poll(NULL, 0, 20);
    }
}

static int relay(const Arguments *arguments, char *program, int64_t patience)
{
    Bytes output = {.limit = CHILD_OUTPUT}, request = {.limit = FRAME_MAX}, bytes;
    Answer answer;
    int starts = 1, code = run_child(arguments, program, &output);
    if (code < 0)
        return give_up(1);
    if (code != 0) {
        write_all(1, output.data, output.size);
        return code;
    }
    add_text(&request, 1, arguments->address);
    add_text(&request, 2, arguments->namespace);
    add_text(&request, 3, arguments->id);
    add_text(&request, 4, arguments->bundle);
    add_bytes(&request, 5, output.data, output.size);
    int64_t begin = now();
    if (ask("Relay", &request, begin + seconds("UNIKEEL_DAEMON_SECONDS", 10), begin + patience, &starts, &bytes, &answer) != ANSWERED)
        return give_up(1);
    return print(&answer, 1);
}

/* Standard input, whole; it may be closed, or /dev/null. */
static bool read_input(Bytes *input)
{
    uint8_t part[16384];
    ssize_t size;
    while (!input->failed && ((size = read(0, part, sizeof part)) > 0 || (size < 0 && errno == EINTR)))
        if (size > 0)
            add(input, part, (size_t)size);
    if (input->failed)
        explain("standard input is over the limit of 4 MiB");
    return !input->failed;
}

static int start(const Arguments *arguments)
{
    Bytes input = {.limit = FRAME_MAX}, bytes;
    Answer answer;
    char program[PATH_MAX];
    int starts = 1;
    if (!read_input(&input))
        return give_up(1);
    Bytes request = launch_request(arguments, &input);
    int64_t patience = seconds("UNIKEEL_START_SECONDS", 60), begin = now();
    if (ask("Start", &request, begin + seconds("UNIKEEL_DAEMON_SECONDS", 10), begin + patience, &starts, &bytes, &answer) != ANSWERED)
        return give_up(1);
    if (answer.exit != 0 || answer.exec.size == 0)
        return print(&answer, 1);
    if (!program_path(arguments, answer.exec, program) || !remember(arguments->bundle, program) || !give_input(&input))
        return give_up(1);
    if (answer.relay)
        return relay(arguments, program, patience);
    become(arguments, program);
    return give_up(1);
}

/* What containerd takes for "it is gone, nobody knows how": exit status 255, now. */
static int answer_for_the_daemon(void)
{
    struct timespec time;
    Bytes response = {.limit = 64}, when = {.limit = 32};
    clock_gettime(CLOCK_REALTIME, &time);
    add_number(&when, 1, (uint64_t)time.tv_sec);
    add_number(&when, 2, (uint64_t)time.tv_nsec);
    add_number(&response, 2, 255);
    add_bytes(&response, 3, when.data, when.size);
    if (response.failed || when.failed || !write_all(1, response.data, response.size)) {
        explain("the answer cannot be written");
        return give_up(2);
    }
    return 0;
}

static int delete(const Arguments *arguments)
{
    char program[PATH_MAX];
    int starts = 1, found = recall(arguments, program);
    if (found > 0)
        become(arguments, program);
    if (found != 0)
        return give_up(2);
    int64_t deadline = now() + seconds("UNIKEEL_DELETE_SECONDS", 4);
    Bytes nothing = {.limit = 0}, bytes, request = launch_request(arguments, &nothing);
    Answer answer;
    for (;;) {
        Outcome outcome = ask("Delete", &request, deadline, deadline, &starts, &bytes, &answer);
        if (outcome == ANSWERED)
            return print(&answer, 2);
        if (outcome == BROKEN || outcome == REFUSED)
            return give_up(2);
        if (now() >= deadline)
            return answer_for_the_daemon();
        poll(NULL, 0, 50); /* the keeper may just be starting another daemon */
    }
}

/* containerd.types.RuntimeInfo */
static int info(void)
{
    Bytes response = {.limit = 256}, version = {.limit = 128};
    add_text(&version, 1, UNIKEEL_VERSION);
    add_text(&response, 1, "io.containerd.unikeel.v2");
    add_bytes(&response, 2, version.data, version.size);
    return write_all(1, response.data, response.size) ? 0 : 1;
}

int main(int count, char **words)
{
    Arguments arguments = {.count = count, .words = words};
    int fd;
    /* With a standard stream closed, the next file that we open would take its place. */
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2)
        continue;
    if (fd > 2)
        close(fd);
    read_arguments(&arguments);
    if (arguments.version)
        return dprintf(1, NAME ":\n  Version:  " UNIKEEL_VERSION "\n") > 0 ? 0 : 1;
    if (arguments.info)
        return info();
    if (!check_arguments(&arguments))
        return give_up(arguments.action != NULL && *arguments.action == 'd' ? 2 : 1);
    return *arguments.action == 's' ? start(&arguments) : delete(&arguments);
}
