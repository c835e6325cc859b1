/* The first virtio disk, as the virtio specification 1.2 describes it (sections 2.7, 4.1, 4.2 and 5.2). */
#ifndef DISK_H
#define DISK_H

#include "io.h"

enum { SECTOR = 512 };

/* Find the disk and make it ready. Returns how it is attached, or NULL if there is none that this driver can use. */
const char *disk_open(void);

/* Its size in sectors, at most UINT32_MAX. */
uint32_t disk_sectors(void);

/* Read into `buffer`; false if the disk reports an error or does not answer. */
bool disk_read(uint32_t sector, void *buffer, uint32_t bytes);

#endif
