// Listening sockets of pods: accepting, and refusing when we cannot carry.
#ifndef AMBIENT_LISTENER_H
#define AMBIENT_LISTENER_H

#include <uthash.h>

#include "abi.h"
#include "loop.h"

struct worker;

// From LISTEN until UNLISTEN or LEAVE. What was accepted refers to it by id only.
struct listener {
  UT_hash_handle hh;
  uint64_t id, pod, context;
  uint32_t role;
  uint32_t handshakes; // tunnels accepted here whose peer is not known yet
  struct source source;
  uint32_t under_way; // connections accepted here that are neither open nor over
  bool inherited;     // nothing waits any more that was there before the listening socket was tuned
  bool full;          // as many are under way as may be: not accepting
  struct timer pause; // armed: no descriptors, not accepting
  struct worker *worker;
  struct garbage garbage;
};

struct listener *listener_find(struct worker *, uint64_t id);
const char *listener_introduce(struct worker *, const struct amb_listen *,
                               int fd);            // takes the fd; NULL or what is wrong
void listeners_tune(struct worker *);              // the settings are new
void listener_eased(struct worker *, uint64_t id); // one of its connections is not under way any more
void listener_close(struct listener *);
void listeners_leave(struct worker *, uint64_t pod);
void listeners_close(struct worker *);

#endif
