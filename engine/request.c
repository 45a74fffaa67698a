// An inbound CONNECT until it is asked about: its headers, what is wrong with them, what they say.
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "answers.h"
#include "conn.h"
#include "report.h"
#include "stream.h"
#include "tunnel.h"
#include "worker.h"

static void on_late(struct timer *timer) {
  struct conn *c = container_of(timer, struct conn, deadline);
  // In the middle of a header block nothing else can come over this tunnel either.
  tunnel_end(c->opener.tunnel, AMB_END_TIMEOUT, 0, "the headers of a request took too long");
}

struct conn *conn_begin_request(struct tunnel *t, int32_t stream) {
  struct worker *w = t->worker;
  struct conn *c = report_has_room(w) ? conn_new(w, t->listener, t->pod, AMB_INBOUND_TUNNEL) : NULL;
  if (!c) return NULL;
  c->record.from = t->from;
  c->tunnel_to = t->to;
  c->peer = t->peer;
  answer_hold(c->peer);
  tunnel_add_stream(t, &c->opener, stream);
  c->deadline.fire = on_late;
  loop_arm(&w->loop, TIMER_REQUEST, &c->deadline, w->settings.request_ms);
  return c;
}

// Beyond HEADERS_MAX they are only counted: the answer will be 431.
void conn_add_header(struct conn *c, const char *name, size_t name_len, const char *value, size_t value_len) {
  size_t n = name_len + value_len + 2;
  c->headers_all += (uint32_t)n;
  if (c->headers_all > HEADERS_MAX) return;
  uint32_t capacity = c->headers_len ? 512 : 0;
  while (capacity < c->headers_len) capacity *= 2;
  uint32_t need = capacity ? capacity : 512;
  while (need < c->headers_len + n) need *= 2;
  if (need > capacity) {
    char *grown = realloc(c->headers, need);
    if (!grown) {
      c->headers_all = HEADERS_MAX + 1;
      return;
    }
    c->headers = grown;
  }
  char *at = c->headers + c->headers_len; // nghttp2 lets no zero into names and values
  memcpy(at, name, name_len);
  at[name_len] = 0;
  memcpy(at + name_len + 1, value, value_len);
  at[n - 1] = 0;
  c->headers_len += (uint32_t)n;
}

const char *conn_header(const struct conn *c, const char *name) {
  const char *at = c->headers, *end = at + c->headers_len;
  while (at < end) {
    const char *value = at + strlen(at) + 1;
    if (!strcmp(at, name)) return value;
    at = value + strlen(value) + 1;
  }
  return NULL;
}

// `traceparent: 00-<32 hex digits>-...`
static void read_trace(struct conn *c) {
  const char *value = conn_header(c, "traceparent");
  if (!value || strlen(value) < 55 || value[2] != '-' || value[35] != '-') return;
  for (int i = 0; i < 16; i++) {
    unsigned byte;
    char pair[3] = {value[3 + 2 * i], value[4 + 2 * i], 0};
    if (strspn(pair, "0123456789abcdef") != 2 || sscanf(pair, "%2x", &byte) != 1) {
      memset(c->record.trace, 0, sizeof c->record.trace);
      return;
    }
    c->record.trace[i] = (uint8_t)byte;
  }
}

void conn_request_complete(struct conn *c) {
  loop_disarm(&c->deadline);
  const char *method = conn_header(c, ":method"), *authority = conn_header(c, ":authority");
  if (c->headers_all > HEADERS_MAX) return conn_end(c, AMB_END_BAD_REQUEST, 431, "the headers are too large");
  if (!method || strcmp(method, "CONNECT")) return conn_end(c, AMB_END_BAD_REQUEST, 400, "not a CONNECT");
  if (!authority || strlen(authority) > AUTHORITY_MAX || !authority_is_valid(authority, strlen(authority)))
    return conn_end(c, AMB_END_BAD_REQUEST, 400, "the authority is no host:port");
  struct amb_addr to;
  if (address_parse(authority, strlen(authority), &to)) c->record.to = to;
  read_trace(c);
  conn_ask(c);
}
