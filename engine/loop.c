#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "bounds.h"

static int64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t); // cannot fail: the clocks exist and the pointer is ours
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int64_t monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
int64_t realtime_ns(void) { return clock_ns(CLOCK_REALTIME); }

int loop_open(struct loop *loop) {
  *loop = (struct loop){.epoll = epoll_create1(EPOLL_CLOEXEC), .now = monotonic_ns()};
  loop->soon_end = &loop->soon;
  loop->again_end = &loop->again;
  for (int i = 0; i < TIMER_CLASSES; i++) loop->timers[i].prev = loop->timers[i].next = &loop->timers[i];
  return loop->epoll < 0 ? -1 : 0;
}

int loop_watch(struct loop *loop, struct source *source, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = source};
  return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, source->fd, &event);
}

int loop_watch_given(struct loop *loop, struct source *source, uint32_t events) {
  source->epoll = loop->epoll; // close() alone would not end the watch of a socket that has another descriptor
  return loop_watch(loop, source, events);
}

void loop_close_source(struct source *source) {
  if (source->fd >= 0 && source->epoll) epoll_ctl(source->epoll, EPOLL_CTL_DEL, source->fd, NULL);
  if (source->fd >= 0) close(source->fd); // what close() may report is of no use to anyone here
  source->epoll = 0;
  source->fd = -1;
}

void loop_arm(struct loop *loop, enum timer_class class, struct timer *timer, int64_t ms) {
  loop_disarm(timer);
  timer->due = monotonic_ns() + ms * 1000000;
  struct timer *head = &loop->timers[class], *before = head->prev;
  while (before != head && before->due > timer->due) before = before->prev; // only after settings changed
  timer->prev = before;
  timer->next = before->next;
  before->next->prev = timer;
  before->next = timer;
}

void loop_disarm(struct timer *timer) {
  if (!timer->next) return;
  timer->prev->next = timer->next;
  timer->next->prev = timer->prev;
  timer->next = NULL;
}

static void append(struct later ***end, struct later *later) {
  if (later->queued) return;
  later->queued = true;
  later->next = NULL;
  **end = later;
  *end = &later->next;
}

void loop_soon(struct loop *loop, struct later *later) { append(&loop->soon_end, later); }
void loop_again(struct loop *loop, struct later *later) { append(&loop->again_end, later); }

static void take_out(struct later **list, struct later ***end, struct later *later) {
  for (struct later **at = list; *at; at = &(*at)->next)
    if (*at == later) {
      *at = later->next;
      if (!*at) *end = at;
      return;
    }
}

void loop_forget(struct loop *loop, struct later *later) {
  if (!later->queued) return;
  take_out(&loop->soon, &loop->soon_end, later);
  take_out(&loop->again, &loop->again_end, later);
  later->queued = false;
}

void loop_bury(struct loop *loop, struct garbage *garbage, void (*release)(struct garbage *)) {
  garbage->release = release;
  garbage->next = loop->garbage;
  loop->garbage = garbage;
}

// Milliseconds until the first deadline, rounded up so that it has passed when epoll returns; -1: none.
static int patience(const struct loop *loop) {
  if (loop->soon || loop->again) return 0;
  int64_t first = INT64_MAX;
  for (int i = 0; i < TIMER_CLASSES; i++) {
    const struct timer *head = &loop->timers[i];
    if (head->next != head && head->next->due < first) first = head->next->due;
  }
  if (first == INT64_MAX) return -1;
  int64_t ms = (first - monotonic_ns() + 999999) / 1000000;
  return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

static void fire_timers(struct loop *loop) {
  for (int i = 0; i < TIMER_CLASSES; i++) {
    struct timer *head = &loop->timers[i];
    while (head->next != head && head->next->due <= loop->now) {
      struct timer *timer = head->next;
      loop_disarm(timer);
      timer->fire(timer);
    }
  }
}

static void run_laters(struct loop *loop) {
  while (loop->soon) { // one may ask for another; each asks at most once per reason, so this ends
    struct later *later = loop->soon;
    loop->soon = later->next;
    if (!loop->soon) loop->soon_end = &loop->soon;
    later->queued = false;
    later->run(later);
  }
}

static void free_garbage(struct loop *loop) {
  while (loop->garbage) {
    struct garbage *garbage = loop->garbage;
    loop->garbage = garbage->next;
    garbage->release(garbage);
  }
}

void loop_turn(struct loop *loop, bool wait) {
  struct epoll_event events[EVENTS];
  int n = epoll_wait(loop->epoll, events, EVENTS, wait ? patience(loop) : 0);
  if (n < 0 && errno != EINTR) abort(); // EBADF, EFAULT, EINVAL: a bug of ours, and nothing would ever work again
  loop->now = monotonic_ns();
  if (loop->again) { // put off by the last batch: behind nobody now
    *loop->soon_end = loop->again;
    loop->soon_end = loop->again_end;
    loop->again = NULL;
    loop->again_end = &loop->again;
  }
  for (int i = 0; i < n; i++) {
    struct source *source = events[i].data.ptr;
    if (source->fd >= 0) source->ready(source, events[i].events);
  }
  fire_timers(loop);
  run_laters(loop);
  free_garbage(loop);
}

void loop_run(struct loop *loop) {
  while (!loop->stopping) loop_turn(loop, true);
}

void loop_close(struct loop *loop) {
  free_garbage(loop);
  close(loop->epoll);
}
