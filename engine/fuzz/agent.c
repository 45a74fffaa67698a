// What an agent may send: packets of any bytes, with descriptors of the wrong kinds, to a worker that has a pod, a
// listener and a question open. Input: packets, each after two bytes of length and one of how many descriptors it
// brings. Run it with -close_fd_mask=2: every refusal says a line on stderr.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conn.h"
#include "listener.h"
#include "stash.h"
#include "tls.h"
#include "worker.h"

enum { POD = 1, LISTENER = 5 };

static void attach(struct worker *w, int *far_end) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair)) abort();
  w->control.agent.fd = pair[0];
  w->control.writable = w->control.ready = true;
  *far_end = pair[1];
}

// A client that waits for an answer to question 1.
static void open_question(struct worker *w, int *client) {
  struct amb_pod pod = {.pod = POD, .stash_family = AF_INET, .stash_want = 4};
  struct amb_listen listen_at = {.listener = LISTENER, .pod = POD, .role = AMB_OUTBOUND};
  struct amb_addr address = {.ip = {[10] = 255, [11] = 255, [12] = 127}, .port = 80};
  int pair[2], listening = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr autobind = {.sa_family = AF_UNIX};
  if (listening < 0 || bind(listening, &autobind, sizeof autobind.sa_family) || listen(listening, 1) ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
    abort();
  if (pod_introduce(w, &pod) || listener_introduce(w, &listen_at, listening)) abort();
  *client = pair[1];
  conn_accept(listener_find(w, LISTENER), pair[0], &address, &address);
}

// Unconnected unix sockets: what dials with them fails, and nothing leaves this process.
static void say(struct worker *w, const uint8_t *bytes, size_t n, unsigned fd_count) {
  uint8_t *packet = aligned_alloc(8, (n + 8) & ~(size_t)7);
  int fds[AMB_FDS_MAX];
  for (unsigned i = 0; i < fd_count; i++)
    if ((fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) abort();
  memcpy(packet, bytes, n);
  control_receive(w, packet, n, fds, fd_count, false);
  free(packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static bool started;
  int far_end, client;
  if (!started) {
    if (!tls_start()) abort();
    started = true;
  }
  struct worker *w = worker_open(0, 1, 1, -1, (struct wires){-1, -1, -1});
  attach(w, &far_end);
  open_question(w, &client);
  while (size > 3 && w->control.agent.fd >= 0) {
    size_t n = (size_t)(data[0] | data[1] << 8);
    unsigned fd_count = data[2] % 5;
    data += 3;
    size -= 3;
    if (n > size) n = size;
    if (n) say(w, data, n, fd_count);
    data += n;
    size -= n;
    loop_turn(&w->loop, false);
  }
  worker_close(w);
  close(far_end);
  close(client);
  return 0;
}
