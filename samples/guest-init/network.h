/* The guest's network, configured by the old ioctls: no netlink library, no other program. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdbool.h>

/* Bring up lo, and what `ip` says: ADDRESS::GATEWAY:NETMASK:HOSTNAME:DEVICE:off, the kernel's own ip= syntax
 * (Documentation/admin-guide/nfs/nfsroot.rst), which a kernel whose network drivers are modules cannot obey itself.
 * NULL: only lo. */
void network_up(char *ip);

/* Whether a server listens on a TCP port of 127.0.0.1. */
bool accepts_connections(int port);

#endif
