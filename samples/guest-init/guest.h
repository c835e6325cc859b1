/* What the programs that run as a Linux guest's process 1 share. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>

enum { MAX_WORDS = 64 };

/* One line to the console: the texts one after another, NULL ends them. */
void say(const char *first, ...) __attribute__((sentinel));

/* Say what failed and why (errno), then power off: process 1 must not return. */
void fail(const char *what, const char *subject) __attribute__((noreturn));

/* A whole small file as text, cut at `size` - 1 bytes; false if it cannot be read. */
bool read_text(const char *path, char *text, size_t size);

/* /proc, /sys and /dev below `root` ("" for the root itself); what is mounted already stays. */
void mount_system(const char *root);

/* The kernel's command line, split at spaces outside of quotes ('…' or "…"). */
struct command_line {
    char text[4096];
    char *options[MAX_WORDS]; /* before " -- " */
    char *arguments[MAX_WORDS]; /* after it; both end with NULL */
};
void read_command_line(struct command_line *line);

/* The value of NAME=VALUE among words, or NULL; `name` includes the equals sign. The last one counts. */
char *value_of(char *const words[], const char *name);

/* End the guest: no process but this one, the root file system clean. */
void settle(void);
void power_off(void) __attribute__((noreturn));

/* End the guest with an exit status (0 to 127, a larger one becomes 127) that the monitor passes on: QEMU's
 * isa-debug-exit at port 0x501. Without that device: power off. */
void exit_guest(int status) __attribute__((noreturn));

#endif
