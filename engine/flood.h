// What a peer may not do to us with frames that are each allowed. Resets are nghttp2's to count (stream_kit_open).
#ifndef AMBIENT_FLOOD_H
#define AMBIENT_FLOOD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tunnel;

// Looks at the head of every frame before nghttp2 gets it, which passes over some in silence (on closed streams, say).
bool flood_scan(struct tunnel *, const uint8_t *, size_t); // false: tunnel->doomed says why not

#endif
