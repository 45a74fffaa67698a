#include "flood.h"

#include "limits.h"
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

static bool carries_nothing(const nghttp2_frame_hd *frame) {
  switch (frame->type) {
  case NGHTTP2_DATA: return !frame->length && !(frame->flags & NGHTTP2_FLAG_END_STREAM);
  case NGHTTP2_SETTINGS:
  case NGHTTP2_PING: return !(frame->flags & NGHTTP2_FLAG_ACK);
  case NGHTTP2_HEADERS:
  case NGHTTP2_RST_STREAM:
  case NGHTTP2_CONTINUATION:
  case NGHTTP2_WINDOW_UPDATE: return false; // RST_STREAM and CONTINUATION have bounds of their own
  default: return true;
  }
}

bool flood_allows(struct tunnel *t, const nghttp2_frame_hd *frame) {
  t->continuations = frame->type == NGHTTP2_CONTINUATION ? t->continuations + 1 : 0;
  if (t->continuations > CONTINUATIONS_MAX)
    t->doomed = "too many CONTINUATION frames";
  else if (carries_nothing(frame) && !spend(&t->idle_frames, IDLE_FRAMES_BURST, IDLE_FRAMES_PER_S))
    t->doomed = "too many frames that carry nothing (SETTINGS, PING, PRIORITY, empty DATA)";
  else if (frame->type == NGHTTP2_RST_STREAM && !spend(&t->resets, RESETS_BURST, RESETS_PER_S))
    t->doomed = "too many resets";
  return !t->doomed;
}
