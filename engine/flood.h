// What a peer may not do to us with frames that are each allowed.
#ifndef AMBIENT_FLOOD_H
#define AMBIENT_FLOOD_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>

struct tunnel;

bool flood_allows(struct tunnel *, const nghttp2_frame_hd *); // false: tunnel->doomed says why not

#endif
