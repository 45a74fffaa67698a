#include "leave.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "conn.h"
#include "listener.h"
#include "report.h"
#include "tunnel.h"
#include "worker.h"

// Nobody else may have the listening sockets yet, so nothing changes but what the agent knows.
void leave_told(struct worker *w) {
  w->leave.told = true;
  report_hello(w);
}

void leave_drain(struct worker *w, uint32_t timeout_s) {
  int64_t until = timeout_s ? monotonic_ns() + timeout_s * INT64_C(1000000000) : INT64_MAX;
  if (w->leave.draining) { // told again: it may only have to hurry
    if (until < w->leave.until) w->leave.until = until;
    return;
  }
  w->leave.draining = true;
  w->leave.until = until;
  listeners_close(w);
  for (struct tunnel *t = w->tunnels; t; t = t->next) tunnel_warn(t);
}

// Tunnels whose peers were warned go on to their ends all the same.
void leave_take_back(struct worker *w) { w->leave.draining = false; }

static void cut_what_is_left(struct worker *w) {
  while (w->conns) conn_end(w->conns, AMB_END_CUT, 0, "the drain timeout passed");
}

static void close_tunnels(struct worker *w) {
  int64_t warned_before = w->loop.now - WARNING_MS * INT64_C(1000000);
  for (struct tunnel *t = w->tunnels; t; t = t->next) {
    bool is_idle_for_ever = !t->inbound && !w->conns; // nobody is left who could open a stream on it
    if (is_idle_for_ever || (t->warned_at && t->warned_at <= warned_before)) tunnel_drain(t);
  }
}

static bool records_wait(const struct worker *w) {
  const struct control *c = &w->control;
  if (!c->endings_count) return false;
  bool nobody_comes = w->leave.told && c->agent.fd < 0;
  return !nobody_comes || w->loop.now - c->left_at < RECORDS_PATIENCE_MS * INT64_C(1000000);
}

// An engine with nothing to accept need not wait for a successor to be given it.
void leave_tick(struct worker *w) {
  if (w->leave.told && !w->listeners) leave_drain(w, 0);
  if (!w->leave.draining || w->leave.over) return;
  if (w->loop.now >= w->leave.until) cut_what_is_left(w);
  close_tunnels(w);
  if (w->conns || w->tunnels || records_wait(w)) return;
  uint64_t one = 1;
  w->leave.over = true; // for good: the other workers may have heard of it
  if (write(w->wires.finished, &one, sizeof one) != sizeof one) abort(); // it counts to 64 at most
}
