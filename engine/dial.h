// One TCP connection being made from a pod: a socket of its stash, the client shown to the app, connect, the deadline.
#ifndef AMBIENT_DIAL_H
#define AMBIENT_DIAL_H

#include "abi.h"
#include "loop.h"

struct pod;
struct worker;

// Part of the connection or tunnel that dials. Idle until dial_start; then ends by `done` or dial_cancel.
struct dial {
  struct worker *worker;
  struct source *source;                                   // the owner's; gets the descriptor
  void (*done)(struct dial *, enum amb_reason, int error); // reason AMB_OPEN: connected; error: and reset since
  struct pod *pod;                                         // whose stash is waited for, or NULL
  struct dial *prev, *next;                                // in pod->waiting
  struct timer deadline;
  struct amb_addr to, client;
  uint64_t from_pod;
  bool show_client;
  bool active;
  struct amb_client_key shown; // what was written to the clients map; port 0: nothing
};

void dial_start(struct dial *, uint64_t pod);
void dial_event(struct dial *, uint32_t events); // the owner's source is ready while the dial is active
void dial_resume(struct dial *);                 // its pod has a socket
void dial_fail(struct dial *, enum amb_reason, int error);
void dial_cancel(struct dial *); // also if idle; leaves the descriptor to the owner
void dial_hide(struct dial *);   // the connection is over: its row in the clients map goes

#endif
