#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "answers.h"
#include "conn.h"
#include "leave.h"
#include "listener.h"
#include "stash.h"
#include "stream.h"
#include "tls.h"
#include "tunnel.h"

// Until the agent says otherwise: what the mesh promises.
static const struct amb_settings DEFAULTS = {
    .connect_ms = 10000,
    .handshake_ms = 5000,
    .request_ms = 5000,
    .answer_ms = 10000,
    .keepalive_s = 60,
    .tunnel_idle_s = 60,
    .max_streams = 1000,
    .elephant_bytes = 4 << 20,
    .retries = 2,
};

static void on_stop(struct source *source, uint32_t events) {
  (void)events;
  container_of(source, struct worker, stop)->loop.stopping = true;
}

static void on_leave(struct source *source, uint32_t events) {
  (void)events;
  leave_told(container_of(source, struct worker, leave_source));
}

static void on_tick(struct timer *timer) {
  struct worker *w = container_of(timer, struct worker, tick);
  loop_arm(&w->loop, TIMER_PAUSE, timer, TICK_MS);
  uint64_t now = (uint64_t)realtime_ns();
  tunnels_expire(w, now);
  contexts_expire(w, now);
  pods_tick(w);
  leave_tick(w);
  if (w->reserve < 0) w->reserve = fcntl(w->loop.epoll, F_DUPFD_CLOEXEC, 0); // -1 again: next second
}

struct worker *worker_open(uint32_t index, uint32_t workers, uint64_t start_at, int control_socket,
                           struct wires wires) {
  struct worker *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  w->index = index;
  w->workers = workers;
  w->start_at = start_at;
  w->settings = DEFAULTS;
  w->clients_map = -1;
  if (loop_open(&w->loop) || !stream_kit_open(w)) {
    free(w);
    return NULL;
  }
  w->reserve = fcntl(w->loop.epoll, F_DUPFD_CLOEXEC, 0);
  w->wires = wires;
  w->stop = (struct source){.fd = wires.stop, .ready = on_stop};
  w->leave_source = (struct source){.fd = wires.leave, .ready = on_leave};
  w->tick.fire = on_tick;
  if (wires.stop >= 0) loop_watch(&w->loop, &w->stop, EPOLLIN);
  if (wires.leave >= 0)
    loop_watch(&w->loop, &w->leave_source, EPOLLIN | EPOLLET); // once to each worker: nobody reads it
  control_open(w, control_socket);
  return w;
}

void worker_run(struct worker *w) {
  loop_arm(&w->loop, TIMER_PAUSE, &w->tick, TICK_MS);
  loop_run(&w->loop);
}

// Ends everything with a reset: what is cut off must not look finished. Nobody hears of these records.
void worker_close(struct worker *w) {
  loop_disarm(&w->tick);
  control_detach(w, NULL);
  listeners_close(w);
  while (w->tunnels) tunnel_end(w->tunnels, AMB_END_CUT, 0, "the engine was told to end");
  while (w->conns) conn_end(w->conns, AMB_END_CUT, 0, "the engine was told to end");
  control_close(w);
  answers_close(w);
  pods_close(w);
  contexts_close(w);
  stream_kit_close(w);
  loop_close(&w->loop);
  pool_close(&w->pool);
  if (w->clients_map >= 0) close(w->clients_map);
  if (w->reserve >= 0) close(w->reserve);
  free(w);
}

void worker_random(struct worker *w, void *to, size_t n) {
  if (w->random_left < n) {
    if (getrandom(w->random, sizeof w->random, 0) != sizeof w->random) abort(); // up to 256 bytes never fail; 512 once
    w->random_left = sizeof w->random;                                          // seeded never do either (random(7))
  }
  w->random_left -= n;
  memcpy(to, w->random + w->random_left, n);
}

void socket_tune(const struct worker *w, int fd, bool nearby) {
  // A socket that cannot be tuned (it is closed already) shows that on its first use.
  int one = 1, idle = nearby ? 0 : (int)w->settings.keepalive_s;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (!idle) return;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
}

void socket_reset(struct source *source) {
  struct linger linger = {.l_onoff = 1, .l_linger = 0};
  if (source->fd >= 0) setsockopt(source->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
  loop_close_source(source);
}
