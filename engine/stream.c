#include "stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "answers.h"
#include "conn.h"
#include "pool.h"
#include "relay.h"
#include "tunnel.h"
#include "window.h"
#include "worker.h"

static struct leg *leg_of(nghttp2_session *session, int32_t id) {
  return nghttp2_session_get_stream_user_data(session, id);
}

// ---- what the peer sends

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  struct tunnel *t = user;
  if (!t->inbound || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  struct conn *c = t->draining ? NULL : conn_begin_request(t, frame->hd.stream_id);
  if (!c) {
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
    return 0;
  }
  nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, &c->opener);
  return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user) {
  struct tunnel *t = user;
  struct leg *leg = leg_of(session, frame->hd.stream_id);
  (void)flags;
  if (!leg) return 0;
  struct conn *c = leg->conn;
  if (!t->inbound) { // of the answer to our CONNECT only the status matters
    if (c->phase == CONN_REQUESTING && name_len == 7 && !memcmp(name, ":status", 7))
      c->status = (uint32_t)atoi((const char *)value);
    return 0;
  }
  if (c->phase != CONN_READING) return 0; // trailers
  conn_add_header(c, (const char *)name, name_len, (const char *)value, value_len);
  if (c->headers_all <= HEADERS_ABUSE) return 0;
  t->doomed = "a request whose headers expand beyond all reason";
  return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static void headers_complete(struct leg *leg, const nghttp2_frame *frame) {
  struct conn *c = leg->conn;
  if (c->phase == CONN_READING) {
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) leg->eof = true;
    return conn_request_complete(c);
  }
  if (c->phase != CONN_REQUESTING || c->status < 200) return; // 1xx: another follows
  uint32_t status = c->status;
  conn_status(c, status);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  struct tunnel *t = user;
  int32_t id = frame->hd.stream_id;
  tunnel_heard(t);
  if (frame->hd.type == NGHTTP2_GOAWAY && !t->inbound) {
    tunnel_drain(t);
    pool_rejoin(t);
  }
  if (frame->hd.type == NGHTTP2_HEADERS && leg_of(session, id)) headers_complete(leg_of(session, id), frame);
  if (frame->hd.type == NGHTTP2_DATA && frame->data.padlen && leg_of(session, id)) window_open(leg_of(session, id));
  bool carries_end = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
  struct leg *leg = carries_end && frame->hd.flags & NGHTTP2_FLAG_END_STREAM ? leg_of(session, id) : NULL;
  if (!leg) return 0;
  leg->eof = true;
  if (leg->conn->phase == CONN_OPEN) leg_finish(leg_other(leg));
  return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user) {
  struct leg *leg = frame->hd.type == NGHTTP2_HEADERS ? leg_of(session, frame->hd.stream_id) : NULL;
  (void)error, (void)user;
  if (leg && leg->conn->phase == CONN_READING) leg->conn->malformed = true; // nghttp2 resets it with PROTOCOL_ERROR
  return 0;
}

static void count_moved(struct tunnel *t, struct leg *leg, size_t n) {
  leg->moved += n;
  window_moved(leg, n);
  if (leg->elephant || leg->moved <= t->worker->settings.elephant_bytes) return;
  leg->elephant = true;
  t->elephants++;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n, void *user) {
  struct tunnel *t = user;
  struct leg *leg = leg_of(session, id);
  (void)flags;
  // The tunnel's window opens at once, whoever reads slowly; the stream's by what the app took (window.c).
  nghttp2_session_consume_connection(session, n);
  if (!leg) return 0;
  count_moved(t, leg, n);
  leg_give(leg_other(leg), bytes, n);
  window_judge(leg);
  return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user) {
  struct leg *leg = leg_of(session, id);
  (void)user;
  if (!leg) return 0;
  tunnel_drop_stream(leg);
  relay_stream_closed(leg, error);
  return 0;
}

// ---- what we send

// A response without a body ends our half; the rest of the request is of no interest (RFC 9113 8.1).
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  struct tunnel *t = user;
  if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR && !t->doomed)
    t->doomed = nghttp2_http2_strerror(frame->goaway.error_code);
  if (!t->inbound || frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
  if (nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
  return 0;
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                       nghttp2_data_source *source, void *user) {
  struct tunnel *t = user;
  struct leg *leg = leg_of(session, id);
  (void)source, (void)to;
  if (!leg) return NGHTTP2_ERR_DEFERRED; // it was reset; the RST_STREAM is on its way
  ptrdiff_t n = relay_fill(leg_other(leg), t->worker->collect_at + FRAME_HEAD, room);
  if (n > 0) {
    count_moved(t, leg, (size_t)n);
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY; // on_send follows at once
    return n;
  }
  if (n == 0) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return 0;
  }
  if (n == RELAY_LATER) leg->deferred = true;
  return NGHTTP2_ERR_DEFERRED;
}

// The bytes that on_read left where they belong get their head.
static int on_send(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                   nghttp2_data_source *source, void *user) {
  struct worker *w = ((struct tunnel *)user)->worker;
  (void)session, (void)frame, (void)source;
  memcpy(w->collect_at, head, FRAME_HEAD);
  w->collect_at += FRAME_HEAD + n;
  return NGHTTP2_ERR_PAUSE; // one frame at a time: stream_collect sees whether there is room for another
}

static ssize_t frame_size(nghttp2_session *session, uint8_t type, int32_t id, int32_t tunnel_window,
                          int32_t stream_window, uint32_t max_frame, void *user) {
  const struct worker *w = ((struct tunnel *)user)->worker;
  (void)session, (void)type, (void)id;
  ssize_t n = tunnel_window < stream_window ? tunnel_window : stream_window;
  if (n > max_frame) n = max_frame;
  ssize_t room = w->collect_end - w->collect_at - FRAME_HEAD;
  return n < room ? n : room;
}

ssize_t stream_collect(struct tunnel *t, uint8_t *to, size_t room) {
  struct worker *w = t->worker;
  w->collect_at = to;
  w->collect_end = to + room;
  while (w->collect_at + FRAME_HEAD + FRAME_OTHER <= w->collect_end) {
    const uint8_t *frame, *before = w->collect_at;
    ssize_t n = nghttp2_session_mem_send(t->http2, &frame);
    if (n < 0) return n;
    if (n == 0 && w->collect_at == before) break;
    if (n > 0) memcpy(w->collect_at, frame, (size_t)n); // it carries no bytes of an app, so there is room
    w->collect_at += n;
  }
  return w->collect_at - to;
}

// ---- streams

uint32_t stream_room(const struct tunnel *t) {
  uint32_t limit = t->heard ? stream_limit(t) : STREAMS_UNTIL_SETTINGS;
  return t->phase == TUNNEL_OPEN && t->stream_count < limit ? limit - t->stream_count : 0;
}

uint32_t stream_limit(const struct tunnel *t) {
  if (!t->heard) return STREAMS_PER_TUNNEL; // not known yet: whoever is too many finds another tunnel later
  uint32_t granted = nghttp2_session_get_remote_settings(t->http2, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  return granted < STREAMS_PER_TUNNEL ? granted : STREAMS_PER_TUNNEL;
}

static nghttp2_nv header(const char *name, const char *value, size_t value_len, bool changes) {
  return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), value_len,
                      changes ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE};
}

// The peer may be asking its agent, which is restarted: it is given the time that ours would have.
static void on_no_response(struct timer *timer) {
  struct conn *c = container_of(timer, struct conn, deadline);
  struct worker *w = c->worker;
  if (c->patient || !tunnel_lives(c->server.tunnel))
    return conn_failed(c, AMB_END_TIMEOUT, 0, "the peer did not answer our CONNECT");
  c->patient = true;
  loop_arm(&w->loop, TIMER_ANSWER, &c->deadline, w->settings.answer_ms);
}

void stream_request(struct tunnel *t, struct conn *c) {
  static const char hex[] = "0123456789abcdef";
  const struct answer *a = c->answer;
  char authority[ADDRESS_TEXT], client[ADDRESS_TEXT], trace[56], forwarded[ADDRESS_TEXT + 300];
  uint8_t span[8];
  nghttp2_nv headers[5];
  size_t n = 0;
  address_text(&c->choice->authority, authority);
  int len = snprintf(forwarded, sizeof forwarded, "for=\"%s\"", address_text(&c->record.from, client));
  if (a->told.host_len)
    len += snprintf(forwarded + len, sizeof forwarded - (size_t)len, ";host=%.*s", (int)a->told.host_len, a->host);
  worker_random(c->worker, span, sizeof span);
  memcpy(trace, "00-", 3);
  for (int i = 0; i < 16; i++)
    trace[3 + 2 * i] = hex[c->record.trace[i] >> 4], trace[4 + 2 * i] = hex[c->record.trace[i] & 15];
  trace[35] = '-';
  for (int i = 0; i < 8; i++) trace[36 + 2 * i] = hex[span[i] >> 4], trace[37 + 2 * i] = hex[span[i] & 15];
  memcpy(trace + 52, "-01", 3);
  headers[n++] = header(":method", "CONNECT", 7, false);
  headers[n++] = header(":authority", authority, strlen(authority), false);
  headers[n++] = header("forwarded", forwarded, (size_t)len, true);
  headers[n++] = header("traceparent", trace, 55, true);
  if (a->told.baggage_len) headers[n++] = header("baggage", a->baggage, a->told.baggage_len, false);
  nghttp2_data_provider provider = {.read_callback = on_read};
  int32_t id = nghttp2_submit_request(t->http2, NULL, headers, n, &provider, &c->server);
  if (id < 0) { // stream ids used up, or no memory
    tunnel_drain(t);
    return conn_rejoin(c, AMB_END_TUNNEL_LOST, nghttp2_strerror(id));
  }
  tunnel_add_stream(t, &c->server, id);
  c->phase = CONN_REQUESTING;
  c->status = 0;
  c->patient = false;
  c->deadline.fire = on_no_response;
  loop_arm(&c->worker->loop, TIMER_REQUEST, &c->deadline, c->worker->settings.request_ms);
  tunnel_mark(t);
}

void stream_accept(struct leg *leg) {
  nghttp2_nv status = header(":status", "200", 3, false);
  nghttp2_data_provider provider = {.read_callback = on_read};
  nghttp2_submit_response(leg->tunnel->http2, leg->stream, &status, 1, &provider); // fails only for want of memory
  tunnel_mark(leg->tunnel);
}

static void detach(struct leg *leg) {
  nghttp2_session_set_stream_user_data(leg->tunnel->http2, leg->stream, NULL);
  tunnel_mark(leg->tunnel);
  tunnel_drop_stream(leg);
}

void stream_refuse(struct leg *leg, uint32_t status) {
  char text[4];
  snprintf(text, sizeof text, "%03u", status % 1000);
  nghttp2_nv header_status = header(":status", text, 3, false);
  nghttp2_submit_response(leg->tunnel->http2, leg->stream, &header_status, 1, NULL);
  detach(leg);
}

void stream_reset(struct leg *leg, uint32_t http2_error) {
  nghttp2_submit_rst_stream(leg->tunnel->http2, NGHTTP2_FLAG_NONE, leg->stream, http2_error);
  detach(leg);
}

void stream_release(struct leg *leg) { detach(leg); }

void stream_resume(struct leg *leg) {
  if (!leg->tunnel || !leg->deferred) return;
  leg->deferred = false;
  nghttp2_session_resume_data(leg->tunnel->http2, leg->stream);
  tunnel_mark(leg->tunnel);
}

void stream_all_lost(struct tunnel *t, enum amb_reason reason, const char *text) {
  while (t->streams) {
    struct leg *leg = t->streams;
    struct conn *c = leg->conn;
    if (c->phase == CONN_REQUESTING &&
        reason != AMB_END_EXPIRED) { // a tunnel that was cut: its peer left, others may serve
      if (reason == AMB_END_TUNNEL_LOST)
        conn_rejoin(c, reason, text);
      else
        conn_failed(c, reason, 0, text);
    } else {
      conn_end(c, reason, 0, text);
    }
  }
}

// ---- sessions

bool stream_kit_open(struct worker *w) {
  if (nghttp2_session_callbacks_new(&w->callbacks) || nghttp2_option_new(&w->option)) return false;
  nghttp2_session_callbacks *c = w->callbacks;
  nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(c, on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
  nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, on_invalid_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
  nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_sent);
  nghttp2_session_callbacks_set_data_source_read_length_callback(c, frame_size);
  nghttp2_session_callbacks_set_send_data_callback(c, on_send);
  nghttp2_option_set_no_auto_window_update(w->option, 1);
  nghttp2_option_set_no_closed_streams(w->option, 1); // kept for priorities, which we do not use
  nghttp2_option_set_stream_reset_rate_limit(w->option, RESETS_BURST, RESETS_PER_S);
  nghttp2_option_set_max_outbound_ack(w->option, OUTBOUND_ACKS);
  nghttp2_option_set_peer_max_concurrent_streams(w->option, STREAMS_UNTIL_SETTINGS);
  return true;
}

void stream_kit_close(struct worker *w) {
  nghttp2_session_callbacks_del(w->callbacks);
  nghttp2_option_del(w->option);
}

bool stream_session_open(struct tunnel *t) {
  struct worker *w = t->worker;
  nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, FRAME_MAX},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADERS_MAX},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, t->inbound ? w->settings.max_streams : 0},
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
  };
  t->frame_skip = t->inbound ? PREFACE : 0;
  int error = t->inbound ? nghttp2_session_server_new2(&t->http2, w->callbacks, t, w->option)
                         : nghttp2_session_client_new2(&t->http2, w->callbacks, t, w->option);
  return !error && !nghttp2_submit_settings(t->http2, NGHTTP2_FLAG_NONE, settings, t->inbound ? 4 : 5) &&
         !nghttp2_session_set_local_window_size(t->http2, NGHTTP2_FLAG_NONE, 0, TUNNEL_WINDOW);
}

void stream_warn(struct tunnel *t) { nghttp2_submit_shutdown_notice(t->http2); }

void stream_goaway(struct tunnel *t) {
  int32_t last = nghttp2_session_get_last_proc_stream_id(t->http2);
  nghttp2_submit_goaway(t->http2, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
}
