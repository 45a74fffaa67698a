// What ends several tunnels at once: expired certificates, a pod that leaves, an answer that is cut.
#include "answers.h"
#include "tls.h"
#include "tunnel.h"
#include "worker.h"

// Ending one tunnel may end or start others, so the walk starts over after each.
static struct tunnel *next_of(struct worker *w, bool (*concerns)(const struct tunnel *, uint64_t), uint64_t what) {
  for (struct tunnel *t = w->tunnels; t; t = t->next)
    if (concerns(t, what)) return t;
  return NULL;
}

static bool is_expired(const struct tunnel *t, uint64_t now) {
  uint64_t until = t->expires_at ? t->expires_at : t->context ? t->context->expires_at : UINT64_MAX;
  return until <= now;
}

void tunnels_expire(struct worker *w, uint64_t now) {
  for (struct tunnel *t; (t = next_of(w, is_expired, now));)
    tunnel_end(t, AMB_END_EXPIRED, 0, "a certificate of the tunnel expired");
  for (struct tunnel *t = w->tunnels; t; t = t->next)
    if (!t->inbound && t->phase == TUNNEL_OPEN && t->retires_at <= now) tunnel_drain(t);
}

static bool is_of_pod(const struct tunnel *t, uint64_t pod) { return t->pod == pod; }

void tunnels_leave(struct worker *w, uint64_t pod, bool at_once) {
  if (at_once)
    for (struct tunnel *t; (t = next_of(w, is_of_pod, pod));) tunnel_end(t, AMB_END_CLOSED, 0, NULL);
  else
    for (struct tunnel *t = w->tunnels; t; t = t->next)
      if (t->pod == pod) tunnel_drain(t);
}

static bool is_under(const struct tunnel *t, uint64_t answer) { return t->peer && t->peer->id == answer; }

void tunnels_cut(struct worker *w, struct answer *a, enum amb_reason reason) {
  for (struct tunnel *t; (t = next_of(w, is_under, a->id));) tunnel_end(t, reason, 0, "the agent cut the tunnel");
}
