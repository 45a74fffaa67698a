// What the agent tells the engine: one handler a message.
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "answers.h"
#include "conn.h"
#include "leave.h"
#include "listener.h"
#include "report.h"
#include "stash.h"
#include "tls.h"
#include "tunnel.h"
#include "worker.h"

static int take_fd(const struct message *m, unsigned i) {
  int fd = m->fds[i];
  m->fds[i] = -1;
  return fd;
}

// Deadlines that are 0 would refuse everything, and beyond an hour they are a unit mistaken.
static bool is_sane(uint32_t ms) { return ms > 0 && ms <= 3600 * 1000; }

static const char *on_settings(struct worker *w, const struct message *m) {
  const struct amb_settings *s = m->body;
  if (!is_sane(s->connect_ms) || !is_sane(s->handshake_ms) || !is_sane(s->request_ms) || !is_sane(s->answer_ms))
    return "SETTINGS with a deadline of nothing, or of more than an hour";
  if (!s->max_streams || !s->tunnel_idle_s || s->keepalive_s > 32767) return "SETTINGS with a number out of range";
  w->settings = *s;
  listeners_tune(w);
  control_ready(w);
  w->control.acknowledges = s->flags & AMB_ACKNOWLEDGES;
  control_flush_soon(w);
  return NULL;
}

static const char *on_clients_map(struct worker *w, const struct message *m) {
  if (w->clients_map >= 0) close(w->clients_map);
  w->clients_map = take_fd(m, 0);
  return NULL;
}

static const char *on_pod(struct worker *w, const struct message *m) { return pod_introduce(w, m->body); }

static const char *on_stash(struct worker *w, const struct message *m) {
  const struct amb_pod_ref *ref = m->body;
  struct pod *pod = pod_find(w, ref->pod);
  if (!pod) return NULL; // it left while the sockets were under way; they are closed
  for (unsigned i = 0; i < m->fd_count; i++) pod_stash(pod, take_fd(m, i));
  return NULL;
}

static const char *on_context(struct worker *w, const struct message *m) {
  const struct amb_context *c = m->body;
  uint64_t need = (uint64_t)c->cert_len + c->key_len + c->roots_len;
  if (!c->context || need > m->tail_len) return "CONTEXT whose lengths do not fit";
  const char *wrong = context_introduce(w, c, m->tail);
  explicit_bzero((void *)(uintptr_t)m->tail, m->tail_len); // the key need not lie about in the packet
  return wrong;
}

static const char *on_contexts(struct worker *w, const struct message *m) {
  const struct amb_contexts *c = m->body;
  if (m->tail_len < (uint64_t)c->count * sizeof(uint64_t)) return "CONTEXTS that names fewer than it says";
  contexts_keep(w, (const uint64_t *)(const void *)m->tail, c->count);
  return NULL;
}

static const char *on_listen(struct worker *w, const struct message *m) {
  const struct amb_listen *l = m->body;
  int listening = 0;
  socklen_t n = sizeof listening;
  if (l->role < AMB_OUTBOUND || l->role > AMB_INBOUND_PLAIN) return "LISTEN with an unknown role";
  if (!pod_find(w, l->pod)) return "LISTEN for a pod that was not introduced";
  if (getsockopt(m->fds[0], SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) || !listening)
    return "LISTEN with a descriptor that does not listen";
  struct listener *known = listener_find(w, l->listener);
  if (known && (known->role != l->role || known->pod != l->pod)) return "LISTEN changes a listener's role or pod";
  if (w->leave.over) return NULL; // for good: the other workers take it back without this one, or the engine is gone
  leave_take_back(w);
  return listener_introduce(w, l, take_fd(m, 0));
}

static const char *on_unlisten(struct worker *w, const struct message *m) {
  struct listener *l = listener_find(w, ((const struct amb_ref *)m->body)->id);
  if (l) listener_close(l); // unknown: a repetition
  return NULL;
}

static const char *on_leave(struct worker *w, const struct message *m) {
  struct pod *pod = pod_find(w, ((const struct amb_ref *)m->body)->id);
  if (pod)
    pod_leave(pod);
  else // a repetition, or another engine was told of it
    report_pod(w, AMB_IDLE, ((const struct amb_ref *)m->body)->id, 0, 0);
  return NULL;
}

static const char *on_drain(struct worker *w, const struct message *m) {
  leave_drain(w, ((const struct amb_drain *)m->body)->timeout_s);
  return NULL;
}

static const char *check_carry(const struct amb_answer *a, const struct amb_choice *choice, enum amb_type asked) {
  if (asked == AMB_TUNNEL) return "ANSWER of CARRY to a tunnel";
  for (uint32_t i = 0; i < a->choices; i++) {
    bool tunnel = choice[i].flags & AMB_VIA_TUNNEL;
    if (tunnel && asked == AMB_REQUEST) return "ANSWER that carries a request into another tunnel";
    if (tunnel && (!choice[i].target || !choice[i].context)) return "ANSWER via a tunnel without target or context";
    if (!choice[i].dial.port || choice[i].dial.port > 65535) return "ANSWER with a port out of range";
    if (tunnel && (!choice[i].authority.port || choice[i].authority.port > 65535))
      return "ANSWER with a port out of range";
  }
  return NULL;
}

// Its form first, whatever was asked; then whether the verdict fits the question.
static const char *check_form(const struct amb_answer *a, size_t tail_len, size_t *used) {
  if (!a->question || !a->answer) return "ANSWER without a question or a number";
  if (a->verdict < AMB_CARRY || a->verdict > AMB_REFUSE) return "ANSWER with an unknown verdict";
  if (a->choices > AMB_CHOICES_MAX) return "ANSWER with more than AMB_CHOICES_MAX choices";
  if (a->baggage_len > BAGGAGE_MAX || a->host_len > 255) return "ANSWER with a baggage or host too long";
  uint64_t need = (uint64_t)a->choices * sizeof(struct amb_choice) + a->label_len + a->baggage_len + a->host_len;
  if (need > tail_len) return "ANSWER whose lengths do not fit";
  *used = need;
  return NULL;
}

static const char *check_verdict(const struct amb_answer *a, const uint8_t *tail, enum amb_type asked) {
  switch (a->verdict) {
  case AMB_CARRY:
    return check_carry(a, (const struct amb_choice *)(const void *)tail, asked);
  case AMB_ACCEPT:
    return asked == AMB_TUNNEL ? NULL : "ANSWER of ACCEPT to something that is no tunnel";
  case AMB_REFUSE:
    if (asked == AMB_REQUEST && (a->status < 400 || a->status > 599))
      return "ANSWER refuses with a status that is no error";
    return NULL;
  default:
    return NULL; // check_form knows them all
  }
}

static const char *on_answer(struct worker *w, const struct message *m) {
  const struct amb_answer *told = m->body;
  size_t used;
  const char *wrong = check_form(told, m->tail_len, &used);
  if (wrong) return wrong;
  struct question *q = question_find(w, told->question);
  if (!q) return NULL; // too late: the deadline passed, or the client is gone
  if ((wrong = check_verdict(told, m->tail, q->type))) return wrong;
  struct answer *answer = answer_introduce(w, told, m->tail, used);
  if (!answer) return "ANSWER with the number of another answer";
  answer_hold(answer);
  if (q->type == AMB_TUNNEL)
    tunnel_answered(container_of(q, struct tunnel, question), answer);
  else
    conn_answered(container_of(q, struct conn, question), answer);
  answer_release(answer);
  return NULL;
}

static const char *on_forget(struct worker *w, const struct message *m) {
  uint64_t id = ((const struct amb_ref *)m->body)->id;
  struct answer *answer = answer_find(w, id);
  if (!id)
    answers_forget_all(w);
  else if (answer) // unknown: used up, or its last connection ended
    answer_forget(answer);
  return NULL;
}

static const char *on_cut(struct worker *w, const struct message *m) {
  const struct amb_cut *cut = m->body;
  struct answer *answer = answer_find(w, cut->answer);
  if (cut->reason == AMB_OPEN) return "CUT for no reason";
  if (!answer) return NULL; // nothing left under it
  // "Closed" would not be true of what is cut. And a reason of a later version is none to let anybody live.
  enum amb_reason reason =
      cut->reason == AMB_END_CLOSED || cut->reason > AMB_END_STRANGER ? AMB_END_CUT : (enum amb_reason)cut->reason;
  answer_hold(answer);
  answer_forget(answer);
  tunnels_cut(w, answer, reason);
  while (answer->conns) conn_end(answer->conns, reason, 0, NULL);
  answer_release(answer);
  return NULL;
}

static const char *on_inventory(struct worker *w, const struct message *m) {
  if (w->control.parcels_bytes >= NOTICES_MAX) return "INVENTORY while the former one is unread";
  report_inventory(w, m->body);
  return NULL;
}

static const char *on_seen(struct worker *w, const struct message *m) {
  if (!w->control.acknowledges) return "SEEN without AMB_ACKNOWLEDGES in the settings";
  report_seen(w, ((const struct amb_ref *)m->body)->id);
  return NULL;
}

static const char *on_speaks(struct worker *w, const struct message *m) {
  const struct amb_speaks *agent = m->body;
  (void)w;
  if (agent->abi < AMB_ABI_OLDEST || agent->oldest > AMB_ABI) return "it speaks no version that this engine does";
  return NULL;
}

#define BODY(name) sizeof(((union body *)0)->name)
static const struct form forms[] = {
    [AMB_SETTINGS] = {on_settings, BODY(settings), 40, 0},
    [AMB_CLIENTS_MAP] = {on_clients_map, 0, 0, 1},
    [AMB_POD] = {on_pod, BODY(pod), 16, 0},
    [AMB_STASH] = {on_stash, BODY(pod_ref), 16, -1},
    [AMB_CONTEXT] = {on_context, BODY(context), 32, 0},
    [AMB_LISTEN] = {on_listen, BODY(listen), 32, 1},
    [AMB_UNLISTEN] = {on_unlisten, BODY(ref), 8, 0},
    [AMB_LEAVE] = {on_leave, BODY(ref), 8, 0},
    [AMB_ANSWER] = {on_answer, BODY(answer), 56, 0},
    [AMB_FORGET] = {on_forget, BODY(ref), 8, 0},
    [AMB_CUT] = {on_cut, BODY(cut), 16, 0},
    [AMB_INVENTORY] = {on_inventory, BODY(inventory), 24, 0},
    [AMB_SEEN] = {on_seen, BODY(ref), 8, 0},
    [AMB_CONTEXTS] = {on_contexts, BODY(contexts), 8, 0},
    [AMB_DRAIN] = {on_drain, BODY(drain), 8, 0},
    [AMB_SPEAKS] = {on_speaks, BODY(speaks), 8, 0},
};

const struct form *message_form(uint16_t type) {
  return type < sizeof forms / sizeof *forms && forms[type].handle ? &forms[type] : NULL;
}
