#include "conn.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "answers.h"
#include "listener.h"
#include "pool.h"
#include "relay.h"
#include "report.h"
#include "stash.h"
#include "stream.h"
#include "tunnel.h"
#include "worker.h"

static void on_dialled(struct dial *, enum amb_reason, int);
static void on_again(struct later *);

struct conn *conn_new(struct worker *w, uint64_t listener, uint64_t pod_id, uint32_t role) {
  struct conn *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->worker = w;
  c->role = role;
  c->started = monotonic_ns();
  c->record = (struct amb_conn){.id = ++w->last_conn, .listener = listener, .start_at = (uint64_t)realtime_ns()};
  c->again.run = on_again;
  c->opener = (struct leg){.source = {.fd = -1, .ready = leg_ready}, .conn = c};
  c->server = (struct leg){.source = {.fd = -1, .ready = leg_ready}, .conn = c};
  c->dial = (struct dial){.worker = w, .source = &c->server.source, .done = on_dialled};
  DL_APPEND(w->conns, c);
  w->conn_count++;
  struct pod *pod = pod_find(w, pod_id);
  c->pod = pod ? pod->id : 0;
  if (pod) pod->conns++;
  return c;
}

static void on_again(struct later *later) {
  struct conn *c = container_of(later, struct conn, again);
  relay_from(&c->opener);
  if (c->phase == CONN_OPEN) relay_from(&c->server);
}

// ---- asking

static struct memory_key question_key(const struct conn *c) {
  struct memory_key key = {.id = c->record.listener, .role = c->role, .type = AMB_ACCEPTED};
  if (c->role == AMB_INBOUND_TUNNEL) {
    const char *authority = conn_header(c, ":authority");
    key.type = AMB_REQUEST;
    key.peer = c->peer->id;
    SHA256((const uint8_t *)authority, strlen(authority), key.digest);
    const char *host = forwarded_host(conn_header(c, "forwarded"));
    if (host) SHA256((const uint8_t *)host, strlen(host), key.host);
    return key;
  }
  key.to = c->record.to;
  if (c->role == AMB_INBOUND_PLAIN) memcpy(key.from, c->record.from.ip, sizeof key.from);
  return key;
}

static void on_no_answer(struct timer *timer) {
  struct conn *c = container_of(container_of(timer, struct question, deadline), struct conn, question);
  conn_end(c, AMB_END_NO_ANSWER, 0, NULL);
}

void conn_ask(struct conn *c) {
  struct memory_key key = question_key(c);
  struct answer *remembered = answer_recall(c->worker, &key);
  c->phase = CONN_ASKING;
  if (remembered) {
    conn_answered(c, remembered);
    answer_release(remembered);
  } else if (!question_ask(c->worker, &c->question, key.type, on_no_answer)) {
    conn_end(c, AMB_END_RESOURCES, 0, "too many questions wait for the agent");
  }
}

void conn_accept(struct listener *l, int fd, const struct amb_addr *from, const struct amb_addr *to) {
  struct worker *w = l->worker;
  struct conn *c = conn_new(w, l->id, l->pod, l->role);
  struct source lost = {.fd = fd};
  if (!c) return socket_reset(&lost);
  c->record.from = *from;
  c->record.to = *to;
  c->under_way = true;
  l->under_way++;
  c->opener.source.fd = fd;
  c->opener.readable = true; // most clients speak first, and have by now
  if (loop_watch(&w->loop, &c->opener.source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET))
    return conn_end(c, AMB_END_RESOURCES, errno, "the connection cannot be polled");
  if (l->role == AMB_OUTBOUND) worker_random(w, c->record.trace, sizeof c->record.trace);
  conn_ask(c);
}

// ---- choosing

// Weighted random among the choices not tried yet; those of weight 0 when only they are left.
static const struct amb_choice *choose(struct conn *c) {
  const struct answer *a = c->answer;
  uint64_t sum = 0, zeros = 0, draw;
  for (uint32_t i = 0; i < a->choices; i++) {
    if (c->tried & 1u << i) continue;
    sum += a->choice[i].weight;
    zeros += !a->choice[i].weight;
  }
  if (!sum && !zeros) return NULL;
  worker_random(c->worker, &draw, sizeof draw);
  draw %= sum ? sum : zeros;
  for (uint32_t i = 0; i < a->choices; i++) {
    if (c->tried & 1u << i) continue;
    uint64_t share = sum ? a->choice[i].weight : 1;
    if (draw < share) {
      c->tried |= 1u << i;
      return &a->choice[i];
    }
    draw -= share;
  }
  return NULL; // not reached: the shares add up
}

static void show_real_client(struct conn *c) {
  c->dial.show_client = c->answer->flags & AMB_SHOW_CLIENT;
  c->dial.client = c->record.from;
  const char *forwarded = c->headers ? conn_header(c, "forwarded") : NULL;
  if (forwarded) forwarded_port(forwarded, &c->dial.client.port); // the ip stays the tunnel's: a header proves nothing
}

static void try_choice(struct conn *c) {
  c->record.dialled = c->choice->dial;
  c->record.target = c->choice->target;
  if (c->choice->flags & AMB_VIA_TUNNEL) {
    c->phase = CONN_JOINING;
    return pool_join(c);
  }
  c->phase = CONN_DIALLING;
  c->dial.to = c->choice->dial;
  show_real_client(c);
  dial_start(&c->dial, c->answer->pod);
}

static void try_next(struct conn *c, enum amb_reason reason, int error, const char *text) {
  c->choice = c->attempts <= c->worker->settings.retries ? choose(c) : NULL;
  if (!c->choice) return conn_end(c, reason, error, text);
  c->attempts++;
  c->rejoins = 0;
  try_choice(c);
}

void conn_answered(struct conn *c, struct answer *a) {
  struct memory_key key = c->question.id && a->flags & AMB_REMEMBER ? question_key(c) : (struct memory_key){0};
  question_drop(c->worker, &c->question);
  answer_hold(a);
  c->answer = a;
  c->record.answer = a->id;
  a->opened++;
  DL_APPEND2(a->conns, c, in_answer.prev, in_answer.next);
  if (key.id) answer_remember(a, &key);
  if (a->verdict == AMB_REFUSE) return conn_end(c, AMB_END_REFUSED, (int)a->status, NULL);
  try_next(c, AMB_END_DIAL, 0, "the answer names no choice");
}

// ---- what becomes of a choice

static void undo_choice(struct conn *c) {
  loop_disarm(&c->deadline);
  dial_cancel(&c->dial);
  pool_leave(c);
  relay_close_leg(&c->server, false, NGHTTP2_CANCEL);
  if (c->early) c->record.sent -= c->early; // another choice gets these bytes
  c->early = 0;
  c->server.eof = c->server.fin = c->server.shut = c->server.deferred = c->server.readable = c->server.hung_up = false;
  c->server.moved = 0;
}

void conn_failed(struct conn *c, enum amb_reason reason, int error, const char *text) {
  struct amb_dial_failed notice = {.answer = c->answer->id, .target = c->choice->target, .dial = c->choice->dial};
  notice.reason = reason;
  notice.error = (uint32_t)error;
  undo_choice(c);
  report_dial_failed(c->worker, &notice);
  try_next(c, reason, error, text);
}

void conn_rejoin(struct conn *c, enum amb_reason reason, const char *text) {
  if (c->rejoins >= REJOINS_MAX) return conn_failed(c, reason, 0, text);
  c->rejoins++;
  undo_choice(c);
  try_choice(c);
}

static void on_dialled(struct dial *d, enum amb_reason reason, int error) {
  struct conn *c = container_of(d, struct conn, dial);
  if (reason != AMB_OPEN) return conn_failed(c, reason, error, NULL);
  relay_open(c, error);
}

void conn_status(struct conn *c, uint32_t status) {
  if (status == 200) return relay_open(c, 0);
  if (status == 503) return conn_failed(c, AMB_END_PEER_REFUSED, 503, NULL);
  conn_end(c, AMB_END_PEER_REFUSED, (int)status, NULL);
}

// ---- the end

void conn_settled(struct conn *c) {
  if (c->under_way) listener_eased(c->worker, c->record.listener);
  c->under_way = false;
}

// What the peer's proxy is told about a request that never opened; 0: the stream is reset instead.
static uint32_t refusal(const struct conn *c, enum amb_reason reason, int error) {
  switch (reason) {
  case AMB_END_REFUSED:
  case AMB_END_BAD_REQUEST:
    return error ? (uint32_t)error : 400;
  case AMB_END_RESET_CLIENT:
  case AMB_END_TUNNEL_LOST:
  case AMB_END_PROTOCOL:
    return 0;
  case AMB_END_CUT:
    return 401;
  default:
    return c->phase == CONN_READING ? 0 : 503;
  }
}

static void release(struct garbage *garbage) {
  struct conn *c = container_of(garbage, struct conn, garbage);
  free(c->headers);
  free(c);
}

void conn_end(struct conn *c, enum amb_reason reason, int error, const char *text) {
  struct worker *w = c->worker;
  bool clean = reason == AMB_END_CLOSED;
  if (c->phase == CONN_ENDED) return;
  uint32_t status = c->opener.tunnel && c->phase != CONN_OPEN ? refusal(c, reason, error) : 0;
  question_drop(w, &c->question);
  loop_disarm(&c->deadline);
  loop_forget(&w->loop, &c->again);
  dial_cancel(&c->dial);
  dial_hide(&c->dial);
  pool_leave(c);
  c->phase = CONN_ENDED;
  conn_settled(c);
  if (status) stream_refuse(&c->opener, status);
  relay_close_leg(&c->opener, clean, NGHTTP2_CONNECT_ERROR);
  relay_close_leg(&c->server, clean, NGHTTP2_CANCEL);
  c->record.duration_ns = (uint64_t)(monotonic_ns() - c->started);
  c->record.reason = reason;
  c->record.error = (uint32_t)error;
  report_ended(w, &c->record, c->answer, text);
  if (c->answer) {
    c->answer->closed++;
    c->answer->sent += c->record.sent;
    c->answer->received += c->record.received;
    DL_DELETE2(c->answer->conns, c, in_answer.prev, in_answer.next);
    answer_release(c->answer);
  }
  if (c->peer) answer_release(c->peer);
  DL_DELETE(w->conns, c);
  w->conn_count--;
  struct pod *pod = pod_find(w, c->pod);
  if (pod && pod->conns) pod_conn_gone(pod);
  loop_bury(&w->loop, &c->garbage, release);
}
