// Pods, and the ready-made sockets of their network namespaces that the agent keeps us supplied with.
#ifndef AMBIENT_STASH_H
#define AMBIENT_STASH_H

#include <uthash.h>

#include "abi.h"
#include "loop.h"
#include "ports.h"

struct dial;
struct worker;

// From POD until IDLE was told after LEAVE.
struct pod {
  UT_hash_handle hh;
  uint64_t id;
  struct worker *worker;
  int family;      // of the sockets in the stash
  uint32_t least;  // the agent's word for how many to keep
  uint32_t want;   // how many are kept: more where many were taken
  uint32_t taken;  // since the last tick
  uint32_t a_tick; // taken in a busy tick; comes down within seconds
  uint32_t have, capacity;
  uint32_t expected; // asked for by STASH_LOW and not come yet
  int *sockets;
  struct ports ports;   // for those that are bound
  struct dial *waiting; // for a socket; dial.c
  uint32_t waiting_count;
  uint32_t conns; // of its listeners
  bool leaving;
};

struct pod *pod_find(struct worker *, uint64_t id);
const char *pod_introduce(struct worker *, const struct amb_pod *); // NULL or what is wrong with it
void pod_stash(struct pod *, int fd);                               // takes the socket
int pod_take(struct pod *);                                         // a socket, or -1
void pod_leave(struct pod *);
void pod_conn_gone(struct pod *);
void pods_tell_low(struct worker *); // those that are and were not told
void pods_attached(struct worker *); // the agent is new: all have to be told again
void pods_tick(struct worker *);
void pods_close(struct worker *);

#endif
