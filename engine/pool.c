#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "answers.h"
#include "conn.h"
#include "stream.h"
#include "tls.h"
#include "tunnel.h"
#include "worker.h"

// The tunnels of one target that new streams may join. Lives while there is one.
struct target {
  UT_hash_handle hh;
  uint64_t id;
  struct tunnel *tunnels;
  uint32_t count;
};

static struct target *target_get(struct worker *w, uint64_t id) {
  struct target *target;
  HASH_FIND(hh, w->targets, &id, sizeof id, target);
  if (target || !(target = calloc(1, sizeof *target))) return target;
  target->id = id;
  HASH_ADD(hh, w->targets, id, sizeof target->id, target);
  return target;
}

void pool_remove(struct tunnel *t) {
  struct target *target = t->target;
  if (!target) return;
  DL_DELETE2(target->tunnels, t, in_target.prev, in_target.next);
  t->target = NULL;
  if (--target->count) return;
  HASH_DEL(t->worker->targets, target);
  free(target);
}

static uint32_t load(const struct tunnel *t) { return t->stream_count + t->waiting_count; }

// The fullest tunnel costs least per request (more streams in one record), so the first with room is taken.
static struct tunnel *find(struct target *target, const struct context *context) {
  struct tunnel *t, *next, *least = NULL;
  DL_FOREACH_SAFE2(target->tunnels, t, next, in_target.next) {
    if (t->context != context) continue; // an older certificate: finishes what it has
    if (!t->elephants && load(t) < stream_limit(t)) return t;
    if (!least || load(t) < load(least)) least = t;
  }
  return target->count < TUNNELS_PER_TARGET ? NULL : least;
}

static void drain_outdated(struct target *target, const struct context *context) {
  struct tunnel *t, *next; // the newest is in it, and is not outdated: the target stays
  DL_FOREACH_SAFE2(target->tunnels, t, next, in_target.next) {
    if (t->context->id == context->id && t->context != context) tunnel_drain(t);
  }
}

// Each phase of the tunnel has its own deadline; this one is for room on a tunnel that never has any.
static void on_no_room(struct timer *timer) {
  conn_failed(container_of(timer, struct conn, deadline), AMB_END_TIMEOUT, 0, "no tunnel had room for the stream");
}

static void wait_for(struct conn *c, struct tunnel *t) {
  const struct amb_settings *s = &c->worker->settings;
  c->joining = t;
  c->deadline.fire = on_no_room;
  loop_arm(&c->worker->loop, TIMER_JOIN, &c->deadline,
           (int64_t)s->connect_ms + s->handshake_ms + s->answer_ms + s->request_ms);
  if (t->phase == TUNNEL_OPEN) loop_disarm(&t->deadline); // not idle
  DL_APPEND2(t->waiting, c, in_tunnel.prev, in_tunnel.next);
  t->waiting_count++;
}

void pool_join(struct conn *c) {
  struct worker *w = c->worker;
  struct context *context = context_current(w, c->choice->context);
  struct target *target = context ? target_get(w, c->choice->target) : NULL;
  if (!context) return conn_failed(c, AMB_END_NO_CONTEXT, 0, "the certificate to present is missing or expired");
  if (!target) return conn_failed(c, AMB_END_RESOURCES, ENOMEM, NULL);
  struct tunnel *t = find(target, context);
  if (t && !t->waiting && stream_room(t)) return stream_request(t, c);
  if (t) return wait_for(c, t);
  if (!(t = tunnel_dial(w, target, c->choice, c->answer->pod, context))) {
    if (!target->count) {
      HASH_DEL(w->targets, target);
      free(target);
    }
    return conn_failed(c, AMB_END_RESOURCES, ENOMEM, NULL);
  }
  DL_APPEND2(target->tunnels, t, in_target.prev, in_target.next);
  target->count++;
  drain_outdated(target, context);
  wait_for(c, t);
  tunnel_start(t);
}

void pool_leave(struct conn *c) {
  if (!c->joining) return;
  struct tunnel *t = c->joining;
  DL_DELETE2(t->waiting, c, in_tunnel.prev, in_tunnel.next);
  t->waiting_count--;
  c->joining = NULL;
  tunnel_idle(t);
}

void pool_opened(struct tunnel *t) {
  while (t->waiting && stream_room(t)) {
    struct conn *c = t->waiting;
    pool_leave(c);
    stream_request(t, c);
  }
  if (!t->heard || t->phase != TUNNEL_OPEN) return;
  while (t->waiting && load(t) > stream_limit(t)) { // it grants less than was hoped for
    struct conn *c = t->waiting->in_tunnel.prev;
    pool_leave(c);
    pool_join(c);
    if (c->joining == t) return; // no tunnel has more room than this one
  }
}

void pool_rejoin(struct tunnel *t) {
  while (t->waiting) {
    struct conn *c = t->waiting;
    pool_leave(c);
    conn_rejoin(c, AMB_END_TUNNEL_LOST, "the peer's proxy takes no more streams");
  }
}

void pool_failed(struct tunnel *t, enum amb_reason reason, int error, const char *text) {
  while (t->waiting) {
    struct conn *c = t->waiting;
    pool_leave(c);
    conn_failed(c, reason, error, text);
  }
}
