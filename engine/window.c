#include "window.h"

#include "conn.h"
#include "tunnel.h"
#include "worker.h"

enum { MORE = WIDE_WINDOW - STREAM_WINDOW };

static void give_back(struct leg *leg) {
  if (leg->width == NARROW) return;
  leg->width = NARROW;
  leg->tunnel->worker->wide_windows--;
}

void window_took(struct leg *leg, size_t n) {
  struct tunnel *t = leg->tunnel;
  if (!t) return;
  leg->owed += (int32_t)n;
  if (leg->width == NARROWING && leg->owed >= 0) give_back(leg);
  // Each word of it is a record, a send() and the peer's wake-up; with half of a small window left it must not wait.
  if (leg->owed < (leg->width == WIDE ? WIDE_WINDOW / 4 : STREAM_WINDOW / 2)) return;
  nghttp2_submit_window_update(t->http2, NGHTTP2_FLAG_NONE, leg->stream, leg->owed); // fails only for want of memory
  leg->owed = 0;
  tunnel_mark(t);
}

// What the peer was promised cannot be taken back: it is not promised again.
static void narrow(struct leg *leg) {
  if (leg->width != WIDE) return;
  leg->width = NARROWING;
  leg->owed -= MORE;
}

static void widen(struct leg *leg) {
  leg->width = WIDE;
  leg->tunnel->worker->wide_windows++;
  window_took(leg, MORE);
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

void window_judge(struct leg *leg, size_t waiting) {
  struct tunnel *t = leg->tunnel;
  if (!t) return;
  if (waiting > (leg->width == WIDE ? STREAM_WINDOW : STREAM_WINDOW / 2)) { // the app does not keep up
    narrow(leg);
    t->alone = 0;
  } else if (leg->width == NARROW && t->alone >= ALONE && t->worker->wide_windows < WIDE_WINDOWS) {
    widen(leg);
  }
}

void window_close(struct leg *leg) {
  give_back(leg);
  leg->owed = 0;
  if (leg->tunnel->mover == leg) leg->tunnel->mover = NULL;
}
