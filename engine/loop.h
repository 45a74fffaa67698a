// The event loop of one worker: descriptors, deadlines, work put off to the end of the batch, and freeing.
#ifndef AMBIENT_LOOP_H
#define AMBIENT_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

// A watched descriptor. Part of its noun; closing sets fd to -1, and then no event of the same batch reaches it.
struct source {
  int fd;
  void (*ready)(struct source *, uint32_t events);
  int epoll; // from which closing has to take it; 0: closing does by itself (never a descriptor of ours)
};

// One list per class of deadline: all of a class last equally long, so that a list is sorted by appending.
enum timer_class {
  TIMER_CONNECT,
  TIMER_HANDSHAKE,
  TIMER_REQUEST,
  TIMER_ANSWER,
  TIMER_JOIN,
  TIMER_IDLE,
  TIMER_INBOUND_IDLE,
  TIMER_PAUSE,
  TIMER_RECORDS,
  TIMER_CLASSES
};

struct timer {
  struct timer *prev, *next; // next == NULL: not armed
  int64_t due;
  void (*fire)(struct timer *);
};

// Work to do once after the events of a batch, however many of them ask for it.
struct later {
  struct later *next;
  bool queued;
  void (*run)(struct later *);
};

// Memory whose owner is done with it, freed when the batch is over: events of the batch may still point at it.
struct garbage {
  struct garbage *next;
  void (*release)(struct garbage *);
};

struct loop {
  int epoll;
  bool stopping;
  int64_t now; // CLOCK_MONOTONIC, ns, when the batch began
  struct timer timers[TIMER_CLASSES];
  struct later *soon, **soon_end;
  struct later *again, **again_end;
  struct garbage *garbage;
};

int loop_open(struct loop *);             // 0 or -1 with errno
void loop_run(struct loop *);             // until stopping
void loop_turn(struct loop *, bool wait); // one batch; wait: for the first event or deadline
void loop_close(struct loop *);

int loop_watch(struct loop *, struct source *, uint32_t events); // 0 or -1 with errno
int loop_watch_given(struct loop *, struct source *, uint32_t);  // the same; of it, whoever gave it may hold a copy
void loop_close_source(struct source *);                         // also ends the watch
void loop_arm(struct loop *, enum timer_class, struct timer *, int64_t ms);
void loop_disarm(struct timer *);
void loop_soon(struct loop *, struct later *);   // in this batch
void loop_again(struct loop *, struct later *);  // in the next, after others had their turn
void loop_forget(struct loop *, struct later *); // its owner is going away
void loop_bury(struct loop *, struct garbage *, void (*release)(struct garbage *));

int64_t monotonic_ns(void);
int64_t realtime_ns(void);

#endif
