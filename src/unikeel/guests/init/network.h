/* The guest's network: lo, and eth0 with one IPv4 address and a default route. */
#ifndef NETWORK_H
#define NETWORK_H

#include "settings.h"

void network_up(const struct settings *settings);

#endif
