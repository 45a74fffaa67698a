// One thread's whole world. Workers share nothing but the listening sockets in the kernel and the compiled-in
// constants.
#ifndef AMBIENT_WORKER_H
#define AMBIENT_WORKER_H

#include <nghttp2/nghttp2.h>

#include "abi.h"
#include "bytes.h"
#include "control.h"
#include "bounds.h"
#include "loop.h"

// What the main thread and its workers tell each other: eventfds, -1 where there is none.
struct wires {
  int stop;     // readable: end at once
  int leave;    // readable: SIGTERM came
  int finished; // each worker adds one when it carries nothing any more and never will
};

struct worker {
  struct loop loop;
  struct pool pool;
  uint32_t index, workers;
  uint64_t start_at;
  struct amb_settings settings;
  struct control control;
  struct pod *pods;           // by netns cookie; pod_release
  struct listener *listeners; // by id; listener_close
  struct context *contexts;   // by id, the newest; context_drop
  struct answer *answers;     // by id; freed by their last holder
  struct memory *memories;    // by question; answers.c
  size_t remembered;          // bytes of these
  struct target *targets;     // by id: outbound tunnels that may be joined; pool.c
  struct conn *conns;         // all; conn_end
  struct tunnel *tunnels;     // all; tunnel_end
  uint32_t conn_count;
  uint32_t wide_windows; // legs that are not NARROW
  nghttp2_session_callbacks *callbacks;
  nghttp2_option *option;
  int clients_map; // BPF map of the agent's, or -1
  int reserve;     // a descriptor given up to refuse a connection when there is no other
  struct wires wires;
  struct source stop, leave_source; // of the wires
  struct {
    bool told;     // SIGTERM came
    bool draining; // DRAIN came, and no LISTEN since
    bool over;     // finished
    int64_t until; // draining: then what is left is cut
  } leave;
  struct timer tick; // every TICK_MS
  uint64_t last_conn;
  uint8_t random[512]; // of getrandom, refilled when used up
  size_t random_left;
  uint8_t *collect_at;  // where stream_collect puts the next frame
  uint8_t *collect_end; // and where it has to end
  uint8_t batch[BATCH]; // scratch: valid within one function only
};

struct worker *worker_open(uint32_t index, uint32_t workers, uint64_t start_at, int control_socket, struct wires);
void worker_run(struct worker *); // until wires.stop is readable
void worker_close(struct worker *);

void worker_random(struct worker *, void *to, size_t n);
void socket_tune(const struct worker *, int fd, bool nearby); // nearby: its peer lives and dies with this kernel
void socket_reset(struct source *);                           // close so that the other side sees a reset and no end

#endif
