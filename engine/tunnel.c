#include "tunnel.h"

#include <errno.h>
#include <linux/sockios.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <utlist.h>

#include "address.h"
#include "answers.h"
#include "conn.h"
#include "flood.h"
#include "listener.h"
#include "pool.h"
#include "relay.h"
#include "report.h"
#include "stream.h"
#include "tls.h"
#include "window.h"
#include "worker.h"

static void on_ready(struct source *, uint32_t);
static void on_dialled(struct dial *, enum amb_reason, int);
static void on_flush(struct later *);
static void on_turn(struct later *);

struct tunnel *tunnel_new(struct worker *w, bool inbound) {
  struct tunnel *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->worker = w;
  t->inbound = inbound;
  t->source = (struct source){.fd = -1, .ready = on_ready};
  t->dial = (struct dial){.worker = w, .source = &t->source, .done = on_dialled};
  t->flush.run = on_flush;
  t->turn.run = on_turn;
  t->started = monotonic_ns();
  t->start_at = (uint64_t)realtime_ns();
  DL_APPEND(w->tunnels, t);
  return t;
}

// ---- handshake

// Inbound, until the peer is known: its listener counts it.
static void count_handshake(struct tunnel *t, int by) {
  struct listener *l = t->inbound ? listener_find(t->worker, t->listener) : NULL;
  if (l && (by > 0 || l->handshakes)) l->handshakes += (uint32_t)by;
}

static void on_late(struct timer *timer) {
  tunnel_end(container_of(timer, struct tunnel, deadline), AMB_END_TIMEOUT, 0, "the TLS handshake took too long");
}

static void shake_hands(struct tunnel *);

static void begin_tls(struct tunnel *t) {
  struct worker *w = t->worker;
  t->phase = TUNNEL_HANDSHAKE;
  t->readable = true;
  t->handshake_started = monotonic_ns();
  t->deadline.fire = on_late;
  loop_arm(&w->loop, TIMER_HANDSHAKE, &t->deadline, w->settings.handshake_ms);
  if (!(t->ssl = tls_new(t, t->context, t->inbound)))
    return tunnel_end(t, AMB_END_RESOURCES, ENOMEM, "no memory for TLS");
  shake_hands(t);
}

void tunnel_accept(struct listener *l, int fd, const struct amb_addr *from, const struct amb_addr *to) {
  struct worker *w = l->worker;
  struct tunnel *t = tunnel_new(w, true);
  struct source lost = {.fd = fd};
  if (!t) return socket_reset(&lost);
  t->listener = l->id;
  t->pod = l->pod;
  t->from = *from;
  t->to = *to;
  t->source.fd = fd;
  t->phase = TUNNEL_HANDSHAKE;
  count_handshake(t, 1);
  if (!(t->context = context_current(w, l->context)))
    return tunnel_end(t, AMB_END_NO_CONTEXT, 0, "the listener's certificate is missing or expired");
  t->context->holders++;
  if (loop_watch(&w->loop, &t->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET))
    return tunnel_end(t, AMB_END_RESOURCES, errno, "the connection cannot be polled");
  begin_tls(t);
}

struct tunnel *tunnel_dial(struct worker *w, struct target *target, const struct amb_choice *choice, uint64_t pod,
                           struct context *context) {
  struct tunnel *t = tunnel_new(w, false);
  if (!t) return NULL;
  t->phase = TUNNEL_DIALLING;
  t->target = target;
  t->target_id = choice->target;
  t->pod = pod;
  t->to = choice->dial;
  t->context = context;
  context->holders++;
  t->dial.to = choice->dial;
  return t;
}

void tunnel_start(struct tunnel *t) { dial_start(&t->dial, t->pod); }

static void on_dialled(struct dial *d, enum amb_reason reason, int error) {
  struct tunnel *t = container_of(d, struct tunnel, dial);
  struct sockaddr_storage own;
  socklen_t n = sizeof own;
  if (reason != AMB_OPEN || error) return tunnel_end(t, reason ? reason : AMB_END_DIAL, error, NULL);
  if (!getsockname(t->source.fd, (struct sockaddr *)&own, &n)) t->from = address_of(&own);
  begin_tls(t);
}

static void on_silent(struct timer *timer) {
  tunnel_end(container_of(timer, struct tunnel, deadline), AMB_END_TIMEOUT, 0,
             "the peer did not begin to speak HTTP/2");
}

void tunnel_heard(struct tunnel *t) {
  if (t->heard) return;
  t->heard = true;
  if (!t->stream_count) loop_disarm(&t->deadline);
  tunnel_idle(t);
  pool_opened(t);
}

// ---- who is it?

static void on_no_answer(struct timer *timer) {
  struct question *q = container_of(timer, struct question, deadline);
  tunnel_end(container_of(q, struct tunnel, question), AMB_END_NO_ANSWER, 0, NULL);
}

static struct memory_key question_key(const struct tunnel *t) {
  struct memory_key key = {.type = AMB_TUNNEL, .id = t->inbound ? t->listener : t->target_id};
  key.role = t->inbound ? AMB_INBOUND_TUNNEL : 0;
  memcpy(key.from, t->from.ip, sizeof key.from);
  memcpy(key.digest, t->digest, sizeof key.digest);
  return key;
}

static void ask(struct tunnel *t) {
  t->phase = TUNNEL_ASKING;
  X509 *leaf = SSL_get0_peer_certificate(t->ssl); // there is one: verification demands it
  int n = i2d_X509(leaf, &t->der);
  if (n <= 0 || n > CERTIFICATE_MAX) return tunnel_end(t, AMB_END_HANDSHAKE, 0, "the peer's certificate is too large");
  t->der_len = (uint32_t)n;
  SHA256(t->der, t->der_len, t->digest);
  uint64_t until = tls_peer_expires_at(leaf);
  t->expires_at = until < t->context->expires_at ? until : t->context->expires_at;
  uint64_t now = (uint64_t)realtime_ns();
  t->retires_at = t->expires_at > now ? now + (t->expires_at - now) / 2 : now;
  struct memory_key key = question_key(t);
  struct answer *remembered = answer_recall(t->worker, &key);
  if (remembered) {
    tunnel_answered(t, remembered);
    answer_release(remembered);
  } else if (!question_ask(t->worker, &t->question, AMB_TUNNEL, on_no_answer)) {
    tunnel_end(t, AMB_END_RESOURCES, 0, "too many questions wait for the agent");
  }
}

static void shake_hands(struct tunnel *t) {
  char text[TEXT_MAX];
  enum tls_outcome outcome = tls_handshake(t);
  if (outcome == TLS_DONE || outcome == TLS_WAIT) {
    if (!tls_push(t)) return tunnel_end(t, AMB_END_HANDSHAKE, t->socket_error, strerror(t->socket_error));
    if (outcome == TLS_WAIT) return;
    const uint8_t *protocol;
    unsigned protocol_len;
    loop_disarm(&t->deadline);
    t->handshake_ns = (uint64_t)(monotonic_ns() - t->handshake_started);
    SSL_get0_alpn_selected(t->ssl, &protocol, &protocol_len);
    if (protocol_len != 2) return tunnel_end(t, AMB_END_HANDSHAKE, 0, "the peer does not speak h2 (ALPN)");
    return ask(t);
  }
  tls_explain(t, text, sizeof text);
  tunnel_end(t, AMB_END_HANDSHAKE, t->socket_error, text);
}

static void read_all(struct tunnel *);

void tunnel_answered(struct tunnel *t, struct answer *a) {
  struct worker *w = t->worker;
  struct memory_key key = question_key(t);
  if (t->question.id && a->flags & AMB_REMEMBER) answer_remember(a, &key);
  question_drop(w, &t->question);
  OPENSSL_free(t->der);
  t->der = NULL;
  answer_hold(a);
  a->opened++;
  t->peer = a;
  if (a->verdict != AMB_ACCEPT) {
    enum amb_reason reason = t->inbound ? AMB_END_REFUSED : AMB_END_STRANGER;
    return tunnel_end(t, reason, (int)a->status, NULL);
  }
  count_handshake(t, -1);
  t->phase = TUNNEL_OPEN;
  if (!stream_session_open(t)) return tunnel_end(t, AMB_END_RESOURCES, ENOMEM, "no memory for HTTP/2");
  tunnel_mark(t);
  if (w->leave.draining) tunnel_warn(t);
  if (t->inbound) {
    t->deadline.fire = on_silent;
    loop_arm(&w->loop, TIMER_REQUEST, &t->deadline, w->settings.request_ms);
  } else {
    tunnel_idle(t); // nobody may be waiting for it any more
  }
  pool_opened(t);
  if (t->phase == TUNNEL_OPEN) read_all(t); // the peer may have spoken long ago
}

// ---- bytes

bool tunnel_lives(const struct tunnel *t) {
  int unacknowledged = 0;
  int64_t recently = t->worker->loop.now - t->worker->settings.request_ms * INT64_C(1000000);
  return t->heard_at > recently || (!ioctl(t->source.fd, SIOCOUTQ, &unacknowledged) && !unacknowledged);
}

static void broken(struct tunnel *t, enum tls_outcome outcome) {
  char text[TEXT_MAX];
  if (outcome == TLS_CLOSED && !t->socket_error)
    snprintf(text, sizeof text, "the peer closed the tunnel");
  else
    tls_explain(t, text, sizeof text);
  // A TLS 1.3 client is done before the server has judged its certificate: the alert comes in the place of HTTP/2.
  tunnel_end(t, t->inbound || t->heard ? AMB_END_TUNNEL_LOST : AMB_END_HANDSHAKE, t->socket_error, text);
}

void tunnel_received(struct tunnel *t, const uint8_t *bytes, size_t n) {
  if (!flood_scan(t, bytes, n)) return tunnel_end(t, AMB_END_PROTOCOL, 0, t->doomed);
  ssize_t used = nghttp2_session_mem_recv(t->http2, bytes, n);
  if (used >= 0 && !t->doomed) return; // what nghttp2 finds out by itself it tells the peer first: on_flush
  tunnel_end(t, AMB_END_PROTOCOL, 0, t->doomed ? t->doomed : nghttp2_strerror((int)used));
}

static void read_all(struct tunnel *t) {
  struct worker *w = t->worker;
  for (size_t turn = 0; t->phase == TUNNEL_OPEN;) {
    size_t got;
    enum tls_outcome outcome = tls_read(t, w->batch, sizeof w->batch, &got);
    if (got) t->heard_at = w->loop.now;
    if (got) tunnel_received(t, w->batch, got);
    if (t->phase != TUNNEL_OPEN) return;
    if (outcome == TLS_CLOSED || outcome == TLS_BROKEN) return broken(t, outcome);
    tunnel_mark(t);
    turn += got;
    if (outcome == TLS_WAIT) return;
    // What was read is answered (windows open) before more is read, or the peer would wait for us, then we for it.
    if (turn >= TURN_MAX) return loop_again(&w->loop, &t->turn);
  }
}

static void on_turn(struct later *later) {
  struct tunnel *t = container_of(later, struct tunnel, turn);
  if (t->phase == TUNNEL_OPEN) read_all(t);
}

static void on_ready(struct source *source, uint32_t events) {
  struct tunnel *t = container_of(source, struct tunnel, source);
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) t->readable = true;
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) t->hung_up = true;
  if (t->phase == TUNNEL_DIALLING) return dial_event(&t->dial, events);
  if (events & EPOLLOUT && t->blocked) {
    t->blocked = false;
    tunnel_mark(t);
  }
  if (t->phase == TUNNEL_HANDSHAKE && t->readable) return shake_hands(t);
  if (t->phase == TUNNEL_OPEN && t->readable) return read_all(t);
  // ASKING: what the peer says waits in its socket; if it hangs up, that is found out after the answer
}

// Everything its streams want to say, in as few records and system calls as possible.
static void on_flush(struct later *later) {
  struct tunnel *t = container_of(later, struct tunnel, flush);
  struct worker *w = t->worker;
  for (size_t turn = 0; t->phase != TUNNEL_ENDED && t->ssl;) {
    if (!tls_push(t)) return broken(t, TLS_BROKEN);
    if (t->blocked || t->phase != TUNNEL_OPEN) return;
    if (turn >= TURN_MAX) return loop_again(&w->loop, &t->flush);
    ssize_t n = stream_collect(t, w->batch, sizeof w->batch);
    if (t->phase != TUNNEL_OPEN) return;
    if (n < 0) return tunnel_end(t, AMB_END_PROTOCOL, 0, nghttp2_strerror((int)n));
    if (n == 0) break;
    if (!tls_write(t, w->batch, (size_t)n)) return broken(t, TLS_BROKEN);
    turn += (size_t)n;
  }
  if (t->phase == TUNNEL_OPEN && t->doomed) return tunnel_end(t, AMB_END_PROTOCOL, 0, t->doomed);
  bool over = t->http2 && !nghttp2_session_want_read(t->http2) && !nghttp2_session_want_write(t->http2);
  if (t->phase == TUNNEL_OPEN && (over || (t->draining && !t->stream_count && !t->waiting))) tunnel_close_empty(t);
}

void tunnel_mark(struct tunnel *t) { loop_soon(&t->worker->loop, &t->flush); }

// ---- streams

void tunnel_add_stream(struct tunnel *t, struct leg *leg, int32_t stream) {
  leg->tunnel = t;
  leg->stream = stream;
  DL_APPEND(t->streams, leg);
  t->stream_count++;
  t->served++;
  loop_disarm(&t->deadline);
}

void tunnel_drop_stream(struct leg *leg) {
  struct tunnel *t = leg->tunnel;
  DL_DELETE(t->streams, leg);
  t->stream_count--;
  if (leg->elephant) t->elephants--;
  leg->elephant = false;
  window_close(leg);
  leg->tunnel = NULL;
  if (t->phase != TUNNEL_OPEN) return;
  tunnel_idle(t);
  if (t->draining) tunnel_mark(t);
  if (t->waiting) pool_opened(t);
}

// ---- the end

static void release(struct garbage *garbage) { free(container_of(garbage, struct tunnel, garbage)); }

// An accepted tunnel needs no record of its own, its connections have theirs; unless it ends badly and there is none.
static void record(struct tunnel *t, bool misused, enum tunnel_phase phase, enum amb_reason reason, int error,
                   const char *text) {
  if (!t->inbound || (phase == TUNNEL_OPEN && !misused)) return;
  struct amb_conn body = {.listener = t->listener, .answer = t->peer ? t->peer->id : 0, .start_at = t->start_at};
  body.duration_ns = (uint64_t)(monotonic_ns() - t->started);
  body.from = t->from;
  body.to = t->to;
  body.reason = reason;
  body.error = (uint32_t)error;
  report_stillborn(t->worker, &body, t->peer, text);
}

static void say_goodbye(struct tunnel *t, enum tunnel_phase phase, enum amb_reason reason) {
  struct worker *w = t->worker;
  if (!t->ssl || t->source.fd < 0) return;
  if (phase == TUNNEL_OPEN && reason != AMB_END_TUNNEL_LOST && t->http2 && !t->blocked) {
    nghttp2_session_terminate_session(t->http2, reason == AMB_END_PROTOCOL ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_NO_ERROR);
    ssize_t n = stream_collect(t, w->batch, sizeof w->batch);
    if (n > 0) tls_write(t, w->batch, (size_t)n); // fails only for want of memory; it is goodbye anyhow
  }
  if (phase != TUNNEL_HANDSHAKE && reason != AMB_END_TUNNEL_LOST) SSL_shutdown(t->ssl);
  ERR_clear_error();
  tls_push(t); // an alert or GOAWAY; what does not fit into the socket now is not worth waiting for
}

void tunnel_end(struct tunnel *t, enum amb_reason reason, int error, const char *text) {
  struct worker *w = t->worker;
  enum tunnel_phase phase = t->phase;
  char kept[TEXT_MAX];
  if (phase == TUNNEL_ENDED) return;
  if (text) snprintf(kept, sizeof kept, "%s", text); // it may point into what is freed below
  text = text ? kept : NULL;
  bool misused = !t->streams && (reason == AMB_END_PROTOCOL || reason == AMB_END_TIMEOUT);
  pool_remove(t);
  if (phase == TUNNEL_HANDSHAKE || phase == TUNNEL_ASKING) count_handshake(t, -1);
  t->phase = TUNNEL_ENDED;
  question_drop(w, &t->question);
  loop_disarm(&t->deadline);
  dial_cancel(&t->dial);
  stream_all_lost(t, reason == AMB_END_CLOSED ? AMB_END_TUNNEL_LOST : reason, text);
  say_goodbye(t, phase, reason);
  if (reason == AMB_END_CUT)
    socket_reset(&t->source);
  else
    loop_close_source(&t->source);
  record(t, misused, phase, reason, error, text);
  loop_forget(&w->loop, &t->flush);
  loop_forget(&w->loop, &t->turn);
  nghttp2_session_del(t->http2);
  SSL_free(t->ssl);
  t->http2 = NULL;
  t->ssl = NULL;
  ERR_clear_error();
  OPENSSL_free(t->der);
  if (t->out) pool_give_back(&w->pool, t->out);
  t->out = NULL;
  context_release(t->context);
  if (t->peer) {
    t->peer->closed++;
    answer_release(t->peer);
  }
  DL_DELETE(w->tunnels, t);
  loop_bury(&w->loop, &t->garbage, release);
  pool_failed(t, reason, error, text); // last: those who waited for it may start another
}
