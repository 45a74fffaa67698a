#include "flood.h"

#include <nghttp2/nghttp2.h>

#include "bounds.h"
#include "tunnel.h"

static bool spend(struct allowance *a, int64_t burst, int64_t per_s) {
  int64_t now = monotonic_ns();
  if (!a->refilled_at) *a = (struct allowance){.left = burst, .refilled_at = now};
  int64_t fresh = (now - a->refilled_at) * per_s / 1000000000;
  if (fresh) {
    a->left = a->left + fresh < burst ? a->left + fresh : burst;
    a->refilled_at = now;
  }
  return a->left-- > 0;
}

struct frame_head {
  uint32_t length;
  uint8_t type, flags;
};

static bool carries_nothing(const struct frame_head *frame) {
  switch (frame->type) {
  case NGHTTP2_DATA:
    return !frame->length && !(frame->flags & NGHTTP2_FLAG_END_STREAM);
  case NGHTTP2_SETTINGS:
  case NGHTTP2_PING:
    return !(frame->flags & NGHTTP2_FLAG_ACK);
  case NGHTTP2_HEADERS:
  case NGHTTP2_RST_STREAM:
  case NGHTTP2_CONTINUATION:
  case NGHTTP2_WINDOW_UPDATE:
    return false; // RST_STREAM and CONTINUATION have bounds of their own
  default:
    return true;
  }
}

static bool allows(struct tunnel *t, const struct frame_head *frame) {
  t->continuations = frame->type == NGHTTP2_CONTINUATION ? t->continuations + 1 : 0;
  if (t->continuations > CONTINUATIONS_MAX)
    t->doomed = "too many CONTINUATION frames";
  else if (carries_nothing(frame) && !spend(&t->idle_frames, IDLE_FRAMES_BURST, IDLE_FRAMES_PER_S))
    t->doomed = "too many frames that carry nothing (SETTINGS, PING, PRIORITY, empty DATA)";
  return !t->doomed;
}

bool flood_scan(struct tunnel *t, const uint8_t *bytes, size_t n) {
  while (n) {
    if (t->frame_skip) { // the preface, or a payload
      size_t k = n < t->frame_skip ? n : t->frame_skip;
      t->frame_skip -= (uint32_t)k;
      bytes += k;
      n -= k;
      continue;
    }
    t->frame_head[t->frame_have++] = *bytes++;
    n--;
    if (t->frame_have < FRAME_HEAD) continue;
    const uint8_t *h = t->frame_head;
    struct frame_head frame = {.length = (uint32_t)(h[0] << 16 | h[1] << 8 | h[2]), .type = h[3], .flags = h[4]};
    t->frame_have = 0;
    t->frame_skip = frame.length;
    if (!allows(t, &frame)) return false;
  }
  return true;
}
