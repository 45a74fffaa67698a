#include "dial.h"

#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utlist.h>

#include "address.h"
#include "stash.h"
#include "worker.h"

static int bpf(int command, union bpf_attr *attr) { return (int)syscall(SYS_bpf, command, attr, sizeof *attr); }

// Before connect(): the app may ask who calls as soon as it accepts. 0 or errno.
static int show_client(struct dial *d, int fd, int family) {
  struct amb_addr own = d->to;
  struct pod *pod = pod_find(d->worker, d->from_pod);
  int error = pod ? ports_bind(&pod->ports, fd, family, &own) : ESRCH; // it was there a moment ago
  if (error) return error;
  struct amb_client_key key = {.netns_cookie = d->from_pod, .port = own.port};
  struct amb_client_value value = {.port = d->client.port, .writer = (uint32_t)getpid()};
  memcpy(key.ip, own.ip, sizeof key.ip);
  memcpy(value.ip, d->client.ip, sizeof value.ip);
  union bpf_attr attr = {.map_fd = (uint32_t)d->worker->clients_map};
  attr.key = (uintptr_t)&key;
  attr.value = (uintptr_t)&value;
  if (bpf(BPF_MAP_UPDATE_ELEM, &attr)) return errno;
  d->shown = key;
  return 0;
}

void dial_hide(struct dial *d) {
  if (!d->shown.port) return;
  union bpf_attr attr = {.map_fd = (uint32_t)d->worker->clients_map};
  attr.key = (uintptr_t)&d->shown;
  bpf(BPF_MAP_DELETE_ELEM, &attr); // gone already, or the map is: nothing is shown any more
  d->shown.port = 0;
}

static void stop_waiting(struct dial *d) {
  if (!d->pod) return;
  DL_DELETE(d->pod->waiting, d);
  d->pod->waiting_count--;
  d->pod = NULL;
}

static void finish(struct dial *d, enum amb_reason reason, int error) {
  dial_cancel(d);
  if (reason != AMB_OPEN) {
    dial_hide(d);
    loop_close_source(d->source);
  }
  d->done(d, reason, error);
}

void dial_fail(struct dial *d, enum amb_reason reason, int error) { finish(d, reason, error); }

static void on_deadline(struct timer *timer) {
  struct dial *d = container_of(timer, struct dial, deadline);
  if (d->pod)
    finish(d, AMB_END_NO_SOCKET, 0);
  else
    finish(d, AMB_END_TIMEOUT, ETIMEDOUT);
}

static void connect_with(struct dial *d, int fd, int family) {
  struct sockaddr_storage s;
  struct worker *w = d->worker;
  d->source->fd = fd;
  socklen_t n = address_to(&d->to, family, &s);
  if (!n) return finish(d, AMB_END_DIAL, EAFNOSUPPORT);
  socket_tune(w, fd, d->show_client);
  int error = d->show_client ? show_client(d, fd, family) : 0;
  if (!error && connect(fd, (struct sockaddr *)&s, n) && errno != EINPROGRESS) error = errno;
  // After connect(): a socket without a connection would report EPOLLHUP. Connected already? EPOLLOUT says so at once.
  if (!error && loop_watch_given(&w->loop, d->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)) error = errno;
  if (error) finish(d, AMB_END_DIAL, error);
}

void dial_start(struct dial *d, uint64_t pod_id) {
  struct worker *w = d->worker;
  struct pod *pod = pod_find(w, pod_id);
  d->active = true;
  d->from_pod = pod_id;
  d->deadline.fire = on_deadline;
  if (!pod) return finish(d, AMB_END_NO_SOCKET, 0);
  loop_arm(&w->loop, TIMER_CONNECT, &d->deadline, w->settings.connect_ms);
  int fd = pod_take(pod);
  if (fd >= 0) return connect_with(d, fd, pod->family);
  d->pod = pod;
  DL_APPEND(pod->waiting, d);
  pod->waiting_count++;
}

void dial_resume(struct dial *d) {
  struct pod *pod = d->pod;
  stop_waiting(d);
  connect_with(d, pod_take(pod), pod->family);
}

void dial_event(struct dial *d, uint32_t events) {
  int error = 0;
  socklen_t n = sizeof error;
  if (!(events & (EPOLLOUT | EPOLLERR))) return;
  getsockopt(d->source->fd, SOL_SOCKET, SO_ERROR, &error, &n); // cannot fail: it is a socket of ours
  bool was_open = error == ECONNRESET || error == EPIPE;       // accepted, then aborted; a refusal is ECONNREFUSED
  finish(d, error && !was_open ? AMB_END_DIAL : AMB_OPEN, error);
}

void dial_cancel(struct dial *d) {
  if (!d->active) return;
  d->active = false;
  loop_disarm(&d->deadline);
  stop_waiting(d);
}
