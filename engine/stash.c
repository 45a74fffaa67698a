#include "stash.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "dial.h"
#include "listener.h"
#include "report.h"
#include "tunnel.h"
#include "worker.h"

struct pod *pod_find(struct worker *w, uint64_t id) {
  struct pod *pod;
  HASH_FIND(hh, w->pods, &id, sizeof id, pod);
  return pod;
}

// So many as will be taken while the agent is away for as long as is put up with. What comes to others is no concern.
static void keep_enough(struct pod *pod) {
  uint32_t busy = pod->worker->leave.draining ? 0 : pod->a_tick * STASH_TICKS;
  if (busy > STASH_BUSY) busy = STASH_BUSY;
  pod->want = pod->least && busy > pod->least ? busy : pod->least; // 0: the agent wants none to be kept
}

// A burst is believed at once and forgotten within seconds; what is left of it is closed when nothing comes any more.
static void learn(struct pod *pod) {
  bool idle = !pod->taken;
  pod->a_tick = pod->taken > pod->a_tick ? pod->taken : (pod->a_tick + pod->taken) / 2;
  pod->taken = 0;
  keep_enough(pod);
  while (idle && pod->least && pod->have > pod->want) close(pod->sockets[--pod->have]);
}

const char *pod_introduce(struct worker *w, const struct amb_pod *told) {
  if (told->stash_family != AF_INET && told->stash_family != AF_INET6) return "POD with a family that is no IP";
  if (told->stash_want > STASH_MAX) return "POD wants more sockets than STASH_MAX";
  struct pod *pod = pod_find(w, told->pod);
  if (!pod) {
    if (!(pod = calloc(1, sizeof *pod))) return "out of memory for a POD";
    pod->id = told->pod;
    pod->worker = w;
    HASH_ADD(hh, w->pods, id, sizeof pod->id, pod);
  }
  pod->leaving = false;
  pod->family = (int)told->stash_family;
  pod->least = told->stash_want;
  keep_enough(pod); // whether it has them is checked when the packet is done: a STASH may follow in it
  return NULL;
}

static void tell_low(struct pod *pod) {
  if (pod->leaving || (pod->have * 2 >= pod->want && !pod->waiting)) return;
  uint32_t missing = (pod->want > pod->have ? pod->want - pod->have : 0) + pod->waiting_count;
  // Again only when it got much worse since, or what was asked for has come.
  if (pod->expected && missing < pod->expected + pod->want / 2 + 1) return;
  if (missing > pod->expected && report_pod(pod->worker, AMB_STASH_LOW, pod->id, pod->have, missing - pod->expected))
    pod->expected = missing;
}

void pods_tell_low(struct worker *w) {
  struct pod *pod, *next;
  HASH_ITER(hh, w->pods, pod, next) tell_low(pod);
}

void pods_attached(struct worker *w) {
  struct pod *pod, *next;
  HASH_ITER(hh, w->pods, pod, next) pod->expected = 0; // told by the tick, or when one is taken
}

void pod_stash(struct pod *pod, int fd) {
  uint32_t most = pod->want * STASH_SURPLUS < STASH_MAX ? pod->want * STASH_SURPLUS : STASH_MAX;
  if (pod->have == pod->capacity) {
    uint32_t capacity = pod->capacity ? pod->capacity * 2 : 16;
    int *sockets = realloc(pod->sockets, capacity * sizeof *sockets);
    if (sockets) pod->sockets = sockets, pod->capacity = capacity;
  }
  if (pod->have >= most + AMB_FDS_MAX || pod->have == pod->capacity) { // surplus, or no memory for it
    close(fd);
    return;
  }
  pod->sockets[pod->have++] = fd;
  if (pod->expected) pod->expected--; // whether more are needed is checked when the packet is done
  while (pod->waiting && pod->have) dial_resume(pod->waiting);
}

int pod_take(struct pod *pod) {
  int fd = pod->have ? pod->sockets[--pod->have] : -1;
  pod->taken += fd >= 0;
  tell_low(pod);
  return fd;
}

static void pod_release(struct pod *pod) {
  struct worker *w = pod->worker;
  while (pod->waiting) dial_fail(pod->waiting, AMB_END_NO_SOCKET, 0);
  while (pod->have) close(pod->sockets[--pod->have]);
  free(pod->sockets);
  HASH_DEL(w->pods, pod);
  free(pod);
}

// IDLE is the last word about a pod; without anybody to hear it the pod stays.
static bool tell_idle(struct pod *pod) {
  if (!pod->leaving || pod->conns || !report_pod(pod->worker, AMB_IDLE, pod->id, 0, 0)) return false;
  tunnels_leave(pod->worker, pod->id, true);
  pod_release(pod);
  return true;
}

void pod_leave(struct pod *pod) {
  pod->leaving = true;
  listeners_leave(pod->worker, pod->id);
  tunnels_leave(pod->worker, pod->id, false);
  tell_idle(pod);
}

void pod_conn_gone(struct pod *pod) { pod->conns--; } // IDLE is told by the tick: its record should be told first

void pods_tick(struct worker *w) {
  struct pod *pod, *next;
  HASH_ITER(hh, w->pods, pod, next) {
    if (tell_idle(pod)) continue;
    learn(pod);
    pod->expected = 0; // what did not come within a tick will not come
    tell_low(pod);
  }
}

void pods_close(struct worker *w) {
  struct pod *pod, *next;
  HASH_ITER(hh, w->pods, pod, next) pod_release(pod);
}
