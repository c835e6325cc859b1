/* What the guest needs of file systems. */
#ifndef FILES_H
#define FILES_H

#include "settings.h"

/* /proc, /sys and /dev. */
void mount_system(void);

/* The drivers that the settings name. */
void load_modules(const struct settings *settings);

/* Have the console that the settings name as standard streams. Without one, those that the kernel has opened stay. */
void open_console(const struct settings *settings);

/* Make the disk the root; false, and said why, if that cannot be. Without a disk, nothing. */
bool enter_root(const struct settings *settings);

/* Reach the directory that has the volumes, from before the root is entered; false, and said why, if that cannot be. Without one, nothing. */
bool reach_volumes(const struct settings *settings);

/* Put the volumes where they belong; false, and said why, if one cannot be there. */
bool mount_volumes(const struct settings *settings);

/* What programs expect beneath /dev and in /etc. */
void furnish(const struct settings *settings);

/* Everything to the disk, and nothing more after it. */
void settle_files(void);

/* Make a directory, with those above it; what is there already is fine. */
void make_directories(const char *directory);

/* Write a text into a file that exists, or is made if `mode` is not 0. */
bool write_file(const char *path, const char *text, int mode);

#endif
