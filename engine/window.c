#include "window.h"

#include "conn.h"
#include "relay.h"
#include "tunnel.h"
#include "worker.h"

enum { MORE = WIDE_WINDOW - STREAM_WINDOW };

static void give_back(struct leg *leg) {
  if (leg->width == NARROW) return;
  leg->width = NARROW;
  leg->tunnel->worker->wide_windows--;
}

// What nghttp2 says that the peer may send is taken for true: it counts padding, too, which no app takes, and gives
// some of it back by itself.
void window_open(struct leg *leg) {
  struct tunnel *t = leg->tunnel;
  if (!t) return;
  int32_t promised = nghttp2_session_get_stream_local_window_size(t->http2, leg->stream);
  if (promised < 0) return; // the stream is over
  // Of a peer that has not acknowledged it yet our window is the small one that any peer may begin with.
  int32_t most = (int32_t)nghttp2_session_get_local_settings(t->http2, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
  int32_t owed = most + (leg->width == WIDE ? MORE : 0) - (int32_t)leg_other(leg)->out.bytes - promised;
  if (leg->width == NARROWING && owed >= 0) give_back(leg);
  // Each word of it is a record, a send() and the peer's wake-up; with half of a small window left it must not wait.
  if (owed < (leg->width == WIDE ? WIDE_WINDOW / 4 : STREAM_WINDOW / 2)) return;
  nghttp2_submit_window_update(t->http2, NGHTTP2_FLAG_NONE, leg->stream, owed); // fails only for want of memory
  tunnel_mark(t);
}

// What the peer was promised cannot be taken back: it is not promised again.
static void narrow(struct leg *leg) {
  if (leg->width == WIDE) leg->width = NARROWING;
}

static void widen(struct leg *leg) {
  leg->width = WIDE;
  leg->tunnel->worker->wide_windows++;
  window_open(leg);
}

void window_moved(struct leg *leg, size_t n) {
  struct tunnel *t = leg->tunnel;
  if (t->mover != leg) {
    if (t->mover) narrow(t->mover);
    t->mover = leg;
    t->alone = 0;
  }
  t->alone += n;
}

void window_judge(struct leg *leg) {
  struct tunnel *t = leg->tunnel;
  if (!t) return;
  size_t waiting = leg_other(leg)->out.bytes;
  if (waiting > (leg->width == WIDE ? STREAM_WINDOW : STREAM_WINDOW / 2)) { // the app does not keep up
    narrow(leg);
    t->alone = 0;
  } else if (leg->width == NARROW && t->alone >= ALONE && t->worker->wide_windows < WIDE_WINDOWS) {
    widen(leg);
  }
}

void window_close(struct leg *leg) {
  give_back(leg);
  if (leg->tunnel->mover == leg) leg->tunnel->mover = NULL;
}
