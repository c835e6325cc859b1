/* What the guest is to be: /unikeel.conf, texts that each end with NUL and begin with a letter and a colon (unikeel/guests/own_init.py writes them). */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>

enum { MOST_WORDS = 4096, MOST_GROUPS = 64, MOST_MODULES = 128, MOST_VOLUMES = 288 };

struct settings {
    char *console; /* c: the console, which is there once its driver is loaded; NULL: the kernel has opened it */
    char *device; /* d: the disk, or the tag of the shared directory, that is the root; NULL: this file system is */
    char *type; /* t: its file system */
    char *options; /* o: how that is mounted */
    bool read_only; /* r: */
    char *share; /* x: the file system by which the directory with the volumes is shared */
    char *share_options; /* y: how that is mounted */
    char *volumes[MOST_VOLUMES + 1]; /* v: NAME:r:TARGET or NAME:w:TARGET; of a disk NAME is DEVICE,TYPE, or DEVICE, if it is not mounted */
    char *host; /* h: */
    char *interface; /* i: ADDRESS/PREFIX of eth0 */
    char *gateway; /* g: */
    char *interface6, *gateway6; /* j: k: the same of IPv6, addresses as 32 hexadecimal digits */
    char *dns; /* n: */
    char *directory; /* w: where the program runs */
    long user, group; /* u: p: */
    int groups[MOST_GROUPS]; /* s: */
    int group_count;
    char *modules[MOST_MODULES + 1]; /* m: files in /modules, in the order of loading */
    char *variables[MOST_WORDS + 1]; /* e: NAME=VALUE */
    char *arguments[MOST_WORDS + 1]; /* a: the program and its arguments */
};

/* Read it; false, and said why, if there is something wrong. */
bool read_settings(struct settings *settings);

#endif
