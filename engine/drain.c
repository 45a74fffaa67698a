// How a tunnel comes to its end without a loss: it carried nothing for long; or its peer is warned, it takes no more
// streams, and when the last one is over it is closed.
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "pool.h"
#include "stream.h"
#include "tunnel.h"
#include "worker.h"

static void on_idle(struct timer *timer) {
  tunnel_end(container_of(timer, struct tunnel, deadline), AMB_END_CLOSED, 0, NULL);
}

// Ours are closed after tunnel_idle_s; a peer's are the peer's to close, but not for ever.
void tunnel_idle(struct tunnel *t) {
  if (t->phase != TUNNEL_OPEN || t->stream_count || t->waiting) return;
  t->deadline.fire = on_idle;
  int64_t seconds = (int64_t)t->worker->settings.tunnel_idle_s * (t->inbound ? INBOUND_IDLE_FACTOR : 1);
  loop_arm(&t->worker->loop, t->inbound ? TIMER_INBOUND_IDLE : TIMER_IDLE, &t->deadline, seconds * 1000);
}

void tunnel_warn(struct tunnel *t) {
  if (!t->inbound || t->phase != TUNNEL_OPEN || t->warned_at || t->draining) return;
  t->warned_at = monotonic_ns();
  stream_warn(t);
  tunnel_mark(t);
}

// No new streams, ours or the peer's; the open ones finish.
void tunnel_drain(struct tunnel *t) {
  if (t->draining) return;
  t->draining = true;
  pool_remove(t);
  if (t->phase != TUNNEL_OPEN) return;
  if (t->inbound) stream_goaway(t);
  tunnel_mark(t);
}

static void on_linger(struct timer *timer) { tunnel_mark(container_of(timer, struct tunnel, deadline)); }

// The last bytes of its streams may still be on their way, and what the peer says meanwhile would meet a closed socket:
// that is answered with a reset, which takes them along. A peer that takes nothing is not waited for for ever.
void tunnel_close_empty(struct tunnel *t) {
  int unacknowledged = 0;
  if (!t->empty_at) t->empty_at = monotonic_ns();
  bool in_time = monotonic_ns() - t->empty_at < LINGER_MOST_MS * INT64_C(1000000);
  if (in_time && !ioctl(t->source.fd, SIOCOUTQ, &unacknowledged) && unacknowledged) {
    t->deadline.fire = on_linger;
    return loop_arm(&t->worker->loop, TIMER_PAUSE, &t->deadline, LINGER_MS);
  }
  tunnel_end(t, AMB_END_CLOSED, 0, NULL);
}
