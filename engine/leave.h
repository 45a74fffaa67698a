// Leaving without a cut: when an engine may end, and what happens until then.
#ifndef AMBIENT_LEAVE_H
#define AMBIENT_LEAVE_H

#include <stdint.h>

struct worker;

void leave_told(struct worker *);                      // SIGTERM: the agent hears of it, and may have a successor
void leave_drain(struct worker *, uint32_t timeout_s); // DRAIN: there is one
void leave_take_back(struct worker *);                 // LISTEN: there is none any more
void leave_tick(struct worker *);

#endif
