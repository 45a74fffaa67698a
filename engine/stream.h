// HTTP/2: sessions, streams and their frames, by nghttp2. Decides nothing; what a peer may not do is in flood.c.
#ifndef AMBIENT_STREAM_H
#define AMBIENT_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "abi.h"

struct conn;
struct leg;
struct tunnel;
struct worker;

bool stream_kit_open(struct worker *); // callbacks and options, shared by the worker's sessions
void stream_kit_close(struct worker *);
bool stream_session_open(struct tunnel *);
void stream_warn(struct tunnel *);                                 // will soon take no more streams of the peer
void stream_goaway(struct tunnel *);                               // takes no more streams of the peer
ssize_t stream_collect(struct tunnel *, uint8_t *to, size_t room); // frames to send; 0: none; < 0: nghttp2's error
uint32_t stream_limit(const struct tunnel *);                      // streams that may be open or wait
uint32_t stream_room(const struct tunnel *);                       // streams that may be opened now

void stream_request(struct tunnel *, struct conn *); // CONNECT
void stream_accept(struct leg *);                    // 200, and bytes from now on
void stream_refuse(struct leg *, uint32_t status);   // and the stream is over
void stream_reset(struct leg *, uint32_t http2_error);
void stream_release(struct leg *); // it ended in good order
void stream_resume(struct leg *);  // there may be bytes for it
void stream_all_lost(struct tunnel *, enum amb_reason, const char *text);

#endif
