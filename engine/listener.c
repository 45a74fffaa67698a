#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "answers.h"
#include "conn.h"
#include "report.h"
#include "stash.h"
#include "tunnel.h"
#include "worker.h"

struct listener *listener_find(struct worker *w, uint64_t id) {
  struct listener *l;
  HASH_FIND(hh, w->listeners, &id, sizeof id, l);
  return l;
}

static bool is_nearby(const struct listener *l) { return l->role == AMB_OUTBOUND; } // the pod's own app

// What is accepted inherits this, and so costs no system calls of its own; but for what waited already.
static void tune(struct listener *l) {
  int probe = !is_nearby(l) && l->worker->settings.keepalive_s; // other settings may have said otherwise
  setsockopt(l->source.fd, SOL_SOCKET, SO_KEEPALIVE, &probe, sizeof probe);
  socket_tune(l->worker, l->source.fd, is_nearby(l));
  l->inherited = false;
}

// One of several workers is woken for a connection.
static int watch(struct listener *l) { return loop_watch(&l->worker->loop, &l->source, EPOLLIN | EPOLLEXCLUSIVE); }

static void watch_again(struct listener *l) {
  if (watch(l)) loop_arm(&l->worker->loop, TIMER_PAUSE, &l->pause, ACCEPT_PAUSE_MS);
}

static void on_pause_over(struct timer *timer) { watch_again(container_of(timer, struct listener, pause)); }

static bool is_watched(const struct listener *l) { return !l->full && !l->pause.next; }

static void stop_watching(struct listener *l) {
  epoll_ctl(l->worker->loop.epoll, EPOLL_CTL_DEL, l->source.fd, NULL); // cannot fail: it is watched
}

static void pause_accepting(struct listener *l) {
  if (!is_watched(l)) return;
  stop_watching(l);
  loop_arm(&l->worker->loop, TIMER_PAUSE, &l->pause, ACCEPT_PAUSE_MS);
}

// Then who comes waits in the kernel, and costs the other pods nothing.
static bool is_full(struct listener *l) {
  uint32_t most = l->worker->settings.under_way;
  if (!most || l->under_way < most) return false;
  stop_watching(l);
  return l->full = true;
}

static void accept_again(struct listener *l) {
  if (!l->full) return;
  l->full = false;
  watch_again(l);
}

// Not at each one: watching and not watching cost a system call each.
void listener_eased(struct worker *w, uint64_t id) {
  struct listener *l = listener_find(w, id);
  if (!l || !l->under_way) return; // another one of that number: UNLISTEN and LISTEN came meanwhile
  l->under_way--;
  if (l->under_way <= w->settings.under_way / 2) accept_again(l);
}

void listeners_tune(struct worker *w) {
  struct listener *l, *next;
  HASH_ITER(hh, w->listeners, l, next) {
    tune(l);
    accept_again(l); // the bound may be another
  }
}

// Descriptors ran out: give up the reserve to take one connection and reset it, so that its client need not wait.
static int accept_with_reserve(struct worker *w, int listener, struct sockaddr_storage *from, socklen_t *n) {
  if (w->reserve < 0) return -1;
  close(w->reserve);
  w->reserve = -1;
  return accept4(listener, (struct sockaddr *)from, n, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void refuse(struct listener *l, int fd, const struct amb_addr *from, const struct amb_addr *to,
                   const char *why) {
  struct amb_conn record = {.listener = l->id, .from = *from, .to = *to, .reason = AMB_END_RESOURCES};
  struct source source = {.fd = fd};
  report_stillborn(l->worker, &record, NULL, why);
  socket_reset(&source);
}

static void accepted(struct listener *l, int fd, const struct sockaddr_storage *peer, bool no_descriptors) {
  struct worker *w = l->worker;
  struct sockaddr_storage own;
  socklen_t n = sizeof own;
  struct amb_addr from = address_of(peer), to = {0};
  if (!getsockname(fd, (struct sockaddr *)&own, &n)) to = address_of(&own);
  if (!l->inherited) socket_tune(w, fd, is_nearby(l));
  if (no_descriptors) return refuse(l, fd, &from, &to, "out of file descriptors");
  if (!report_has_room(w)) return refuse(l, fd, &from, &to, "too many records wait for an agent");
  if (l->role != AMB_INBOUND_TUNNEL) return conn_accept(l, fd, &from, &to);
  if (l->handshakes >= HANDSHAKES_PER_LISTENER) return refuse(l, fd, &from, &to, "too many handshakes under way");
  tunnel_accept(l, fd, &from, &to);
}

static void on_ready(struct source *source, uint32_t events) {
  struct listener *l = container_of(source, struct listener, source);
  struct worker *w = l->worker;
  (void)events;
  for (int i = 0; i < ACCEPTS_PER_EVENT && source->fd >= 0 && !is_full(l); i++) {
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;
    bool reserve_used = false;
    int fd = accept4(source->fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
      n = sizeof peer;
      fd = accept_with_reserve(w, source->fd, &peer, &n);
      reserve_used = true;
    }
    if (fd < 0) {
      l->inherited |= errno == EAGAIN;
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) pause_accepting(l);
      if (reserve_used && w->reserve < 0) w->reserve = fcntl(w->loop.epoll, F_DUPFD_CLOEXEC, 0);
      return; // EAGAIN: done. Errors of the connection itself (ECONNABORTED): it is gone, the rest wakes us again
    }
    accepted(l, fd, &peer, reserve_used);
    if (reserve_used) w->reserve = fcntl(w->loop.epoll, F_DUPFD_CLOEXEC, 0);
  }
}

const char *listener_introduce(struct worker *w, const struct amb_listen *told, int fd) {
  struct listener *l = listener_find(w, told->listener);
  if (l) { // the same id again changes its context
    l->context = told->context;
    close(fd);
    return NULL;
  }
  l = calloc(1, sizeof *l);
  int flags = fcntl(fd, F_GETFL);
  if (!l || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)) {
    free(l);
    close(fd);
    return "out of memory for a LISTEN";
  }
  *l = (struct listener){.id = told->listener, .pod = told->pod, .context = told->context, .role = told->role};
  l->worker = w;
  l->source = (struct source){.fd = fd, .ready = on_ready};
  l->pause.fire = on_pause_over;
  tune(l);
  if (watch(l)) {
    close(fd);
    free(l);
    return "LISTEN with a descriptor that cannot be polled";
  }
  HASH_ADD(hh, w->listeners, id, sizeof l->id, l);
  return NULL;
}

static void release(struct garbage *garbage) { free(container_of(garbage, struct listener, garbage)); }

void listener_close(struct listener *l) {
  struct worker *w = l->worker;
  // The other workers and the agent hold the same socket, so close() alone would not end our watch.
  if (is_watched(l)) stop_watching(l);
  loop_disarm(&l->pause);
  loop_close_source(&l->source);
  answers_forget_listener(w, l->id);
  HASH_DEL(w->listeners, l);
  loop_bury(&w->loop, &l->garbage, release);
}

void listeners_leave(struct worker *w, uint64_t pod) {
  struct listener *l, *next;
  HASH_ITER(hh, w->listeners, l, next) {
    if (l->pod == pod) listener_close(l);
  }
}

void listeners_close(struct worker *w) {
  struct listener *l, *next;
  HASH_ITER(hh, w->listeners, l, next) listener_close(l);
}
