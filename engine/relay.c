#include "relay.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"
#include "tunnel.h"
#include "window.h"
#include "worker.h"

struct leg *leg_other(struct leg *leg) { return leg == &leg->conn->opener ? &leg->conn->server : &leg->conn->opener; }

static bool is_opener(const struct leg *leg) { return leg == &leg->conn->opener; }

static void count(struct leg *from, size_t n) {
  if (is_opener(from))
    from->conn->record.sent += n;
  else
    from->conn->record.received += n;
}

// That side aborted: so does the connection, and the other side sees it.
static void reset_by(struct leg *by, int error, const char *text) {
  conn_end(by->conn, is_opener(by) ? AMB_END_RESET_CLIENT : AMB_END_RESET_SERVER, error, text);
}

// Whatever an error on a socket is called, it must not be asked twice: the second recv() would say "end", which is a
// lie.
static void socket_failed(struct leg *leg, int error) {
  reset_by(leg, error, error == ECONNRESET ? NULL : strerror(error));
}

static void end_if_done(struct conn *c) {
  if (c->opener.eof && c->server.eof && c->opener.shut && c->server.shut) conn_end(c, AMB_END_CLOSED, 0, NULL);
}

// ---- to a socket

static void send_fin(struct leg *to) {
  if (!to->fin || to->shut || to->out.bytes) return;
  to->shut = true;
  shutdown(to->source.fd, SHUT_WR); // ENOTCONN: it was reset, and the event that says so is on its way
  end_if_done(to->conn);
}

void leg_finish(struct leg *to) {
  to->fin = true;
  if (to->source.fd >= 0) send_fin(to);
}

static void flush(struct leg *to) {
  if (!to->out.bytes) return;
  int error = queue_send(&to->conn->worker->pool, &to->out, to->source.fd);
  window_open(leg_other(to));
  if (error && error != EAGAIN) return socket_failed(to, error);
  if (to->out.bytes) return;
  send_fin(to);
  if (to->conn->phase == CONN_OPEN) relay_from(leg_other(to)); // it was not read while this waited
}

void leg_give(struct leg *to, const uint8_t *bytes, size_t n) {
  struct conn *c = to->conn;
  size_t done = 0;
  count(leg_other(to), n);
  if (c->phase == CONN_OPEN && !to->out.bytes) {
    ssize_t k = send(to->source.fd, bytes, n, MSG_NOSIGNAL);
    if (k < 0 && errno != EAGAIN) return socket_failed(to, errno);
    done = k > 0 ? (size_t)k : 0;
  }
  if (done < n && !queue_add(&c->worker->pool, &to->out, bytes + done, n - done))
    return conn_end(c, AMB_END_RESOURCES, ENOMEM, "no memory for what waits");
  window_open(leg_other(to));
}

// ---- from a socket

// What an app says before the peer's 200 is sent along, but stays in its socket, in case another choice has to have it.
static ssize_t peek_early(struct leg *from, uint8_t *to, size_t room) {
  struct conn *c = from->conn;
  if (c->early || c->worker->settings.flags & AMB_NO_EARLY_DATA || !from->readable) return RELAY_LATER;
  ssize_t n = recv(from->source.fd, to, room < EARLY_MAX ? room : EARLY_MAX, MSG_PEEK);
  if (n <= 0) return RELAY_LATER; // nothing; or its end, which can wait; or an error, whose event is on its way
  c->early = (uint32_t)n;
  count(from, (size_t)n);
  return n;
}

static void on_eof(struct leg *from) {
  from->eof = true;
  struct leg *to = leg_other(from);
  if (to->tunnel) return stream_resume(to); // END_STREAM is written by relay_fill
  leg_finish(to);
  end_if_done(from->conn);
}

ssize_t relay_fill(struct leg *from, uint8_t *to, size_t room) {
  struct conn *c = from->conn;
  if (c->phase == CONN_REQUESTING) return peek_early(from, to, room);
  if (c->phase != CONN_OPEN) return RELAY_RESET;
  if (!from->eof && !from->readable) return RELAY_LATER;
  ssize_t n = from->eof ? 0 : recv(from->source.fd, to, room, 0);
  if (n > 0) {
    if ((size_t)n < room && !from->hung_up) from->readable = false; // drained; an edge tells of more
    count(from, (size_t)n);
    return n;
  }
  if (n == 0) {
    from->eof = true;
    leg_other(from)->shut = true;
    end_if_done(c);
    return 0;
  }
  if (errno == EAGAIN) {
    from->readable = false;
    return RELAY_LATER;
  }
  socket_failed(from, errno);
  return RELAY_RESET;
}

// Socket to socket. Stops at what the other side does not take, so no more than one batch waits.
static void pump(struct leg *from, struct leg *to) {
  struct conn *c = from->conn;
  struct worker *w = c->worker;
  for (size_t turn = 0; from->readable && !from->eof && !to->out.bytes && c->phase == CONN_OPEN;) {
    ssize_t n = recv(from->source.fd, w->batch, sizeof w->batch, 0);
    if (n < 0 && errno == EAGAIN) from->readable = false;
    if (n < 0) return errno == EAGAIN ? (void)0 : socket_failed(from, errno);
    if (n == 0) return on_eof(from);
    if ((size_t)n < sizeof w->batch && !from->hung_up) from->readable = false;
    if (to->source.fd < 0) return reset_by(to, 0, "it had closed, and was spoken to");
    leg_give(to, w->batch, (size_t)n);
    turn += (size_t)n;
    if (turn >= TURN_MAX) return loop_again(&w->loop, &c->again);
  }
}

void relay_from(struct leg *from) {
  struct leg *to = leg_other(from);
  if (from->source.fd < 0) return;
  if (to->tunnel)
    stream_resume(to);
  else if (from->conn->phase == CONN_OPEN)
    pump(from, to);
}

void leg_ready(struct source *source, uint32_t events) {
  struct leg *leg = container_of(source, struct leg, source);
  struct conn *c = leg->conn;
  int unread = 0;
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) leg->readable = true;
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) leg->hung_up = true;
  if (c->dial.active && leg == &c->server) return dial_event(&c->dial, events);
  // Reset. What it said before still counts, if anybody is going to read it; recv() will then find the error.
  if (events & EPOLLERR && (leg->eof || c->phase != CONN_OPEN || ioctl(source->fd, FIONREAD, &unread) || !unread)) {
    socklen_t n = sizeof unread;
    getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &unread, &n); // cannot fail; what it says is not asked again
    return socket_failed(leg, unread);
  }
  if (c->phase != CONN_OPEN && c->phase != CONN_REQUESTING) return;
  if (events & EPOLLOUT) flush(leg);
  if (leg->readable && source->fd >= 0) relay_from(leg);
}

// ---- beginning and end

// The bytes that were sent early are the peer's now.
static void take_out_early(struct conn *c) {
  while (c->early) {
    ssize_t n = recv(c->opener.source.fd, NULL, c->early, MSG_TRUNC);
    if (n <= 0) break; // the app reset it meanwhile; its event follows
    c->early -= (uint32_t)n;
  }
  c->early = 0;
}

void relay_open(struct conn *c, int error) {
  loop_disarm(&c->deadline);
  take_out_early(c);
  c->phase = CONN_OPEN;
  conn_settled(c);
  c->record.setup_ns = (uint64_t)(monotonic_ns() - c->started);
  if (c->opener.tunnel) stream_accept(&c->opener);
  if (error) return socket_failed(&c->server, error);
  if (c->opener.source.fd >= 0) c->opener.readable = true;
  flush(&c->server);
  if (c->phase == CONN_OPEN && c->opener.eof) leg_finish(&c->server);
  if (c->phase == CONN_OPEN) relay_from(&c->opener);
  if (c->phase == CONN_OPEN) relay_from(&c->server);
}

static void closed_too_early(struct conn *c, struct leg *leg, uint32_t http2_error) {
  if (c->phase == CONN_REQUESTING && http2_error == NGHTTP2_REFUSED_STREAM)
    conn_rejoin(c, AMB_END_TUNNEL_LOST, "the peer's proxy refuses streams"); // it did not look at it (RFC 9113 8.7)
  else if (c->phase == CONN_REQUESTING)
    conn_failed(c, AMB_END_RESET_SERVER, 0, nghttp2_http2_strerror(http2_error));
  else if (c->malformed)
    conn_end(c, AMB_END_BAD_REQUEST, 0, "the request was malformed");
  else
    reset_by(leg, 0, NULL);
}

void relay_stream_closed(struct leg *leg, uint32_t http2_error) {
  struct conn *c = leg->conn;
  if (c->phase != CONN_OPEN) return closed_too_early(c, leg, http2_error);
  bool aborted = http2_error != NGHTTP2_NO_ERROR && (is_opener(leg) || !leg->eof);
  if (aborted || !leg->eof) return reset_by(leg, 0, nghttp2_http2_strerror(http2_error));
  // In good order; or a server that said all it had to say wants to hear no more (Envoy ends every stream like that,
  // with CONNECT_ERROR): our client gets what waits and the end of it, and a reset only if it goes on speaking, as with
  // TCP.
  leg->shut = true;
  end_if_done(c);
  // Whether it goes on is found out by reading it, but later: nghttp2 is in the midst of the worker's batch, which that
  // would overwrite.
  if (c->phase == CONN_OPEN) loop_soon(&c->worker->loop, &c->again);
}

void relay_close_leg(struct leg *leg, bool clean, uint32_t http2_error) {
  queue_clear(&leg->conn->worker->pool, &leg->out);
  if (leg->tunnel && clean)
    stream_release(leg);
  else if (leg->tunnel)
    stream_reset(leg, http2_error);
  if (clean)
    loop_close_source(&leg->source);
  else
    socket_reset(&leg->source);
}
