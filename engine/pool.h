// Which outbound tunnel a new stream takes: mice share, elephants ride alone.
#ifndef AMBIENT_POOL_H
#define AMBIENT_POOL_H

#include "abi.h"

struct conn;
struct tunnel;

void pool_join(struct conn *);     // onto a tunnel for its choice, now or when there is one
void pool_leave(struct conn *);    // it no longer waits; also if it does not
void pool_opened(struct tunnel *); // it can take streams: those who wait go on
void pool_remove(struct tunnel *); // it takes no new ones
void pool_rejoin(struct tunnel *); // its peer takes no new ones: those who wait go to another tunnel
void pool_failed(struct tunnel *, enum amb_reason, int error, const char *text); // those who wait try elsewhere

#endif
