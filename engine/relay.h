// Bytes between the two legs of an open connection: half-close, resets, back-pressure, counting.
#ifndef AMBIENT_RELAY_H
#define AMBIENT_RELAY_H

#include <sys/types.h>

#include "conn.h"

enum { RELAY_LATER = -1, RELAY_RESET = -2 };

struct leg *leg_other(struct leg *);
void leg_ready(struct source *, uint32_t events);        // events of a socket leg
void leg_give(struct leg *to, const uint8_t *, size_t);  // to a socket: what it does not take waits
void leg_finish(struct leg *to);                         // to a socket: the other side is done, after what waits
void relay_open(struct conn *, int error);               // both can speak from now on; error: the server's is over
void relay_from(struct leg *);                           // a socket may have something to read
ssize_t relay_fill(struct leg *from, uint8_t *, size_t); // for a stream: bytes, 0 at the end, RELAY_LATER, RELAY_RESET
void relay_stream_closed(struct leg *, uint32_t http2_error); // nghttp2 closed a leg's stream
void relay_close_leg(struct leg *, bool clean, uint32_t http2_error);

#endif
