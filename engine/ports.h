// Local ports for sockets that are bound before they connect: those whose client the app is to be shown.
#ifndef AMBIENT_PORTS_H
#define AMBIENT_PORTS_H

#include <stdint.h>

#include "abi.h"

// Of one pod; all zero at first. What the kernel has chosen itself is known to lie in its range, and so does what is
// between.
struct ports {
  uint16_t low, high, next;
};

int ports_bind(struct ports *, int fd, int family, struct amb_addr *own); // sets own->port; 0 or errno

#endif
