// What a peer may send inside a tunnel: any plaintext, as a client of ours or as our server, with real sockets behind
// it. Input: one byte (who are we?), then the peer's bytes in pieces, each after two bytes of length.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "answers.h"
#include "conn.h"
#include "listener.h"
#include "pool.h"
#include "report.h"
#include "stash.h"
#include "stream.h"
#include "tls.h"
#include "tunnel.h"
#include "worker.h"

enum { POD = 1, LISTENER = 6, PEER = 7, CARRY = 8 };

static int app = -1; // listens on loopback for all inputs
static struct amb_addr app_address;

static void start(void) {
  struct sockaddr_storage s = {0};
  struct sockaddr_in *in = (void *)&s;
  socklen_t n = sizeof s;
  *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  app = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (app < 0 || bind(app, (void *)&s, sizeof *in) || listen(app, 64) || getsockname(app, (void *)&s, &n)) abort();
  app_address = address_of(&s);
  if (!tls_start()) abort();
}

static struct answer *answer(struct worker *w, uint64_t id, uint32_t verdict, uint32_t flags) {
  struct amb_choice choice = {
      .dial = app_address, .authority = app_address, .target = 1, .context = 1, .weight = 1, .flags = flags};
  struct amb_answer told = {.question = 1, .answer = id, .pod = POD, .verdict = verdict, .choices = 1};
  struct answer *a = answer_introduce(w, &told, (const uint8_t *)&choice, sizeof choice);
  if (!a) abort();
  answer_hold(a);
  return a;
}

static struct tunnel *open_tunnel(struct worker *w, bool inbound, struct answer *peer) {
  struct tunnel *t = tunnel_new(w, inbound);
  if (!t) abort();
  t->listener = LISTENER;
  t->pod = POD;
  t->from = t->to = app_address;
  t->peer = peer;
  answer_hold(peer);
  t->phase = TUNNEL_OPEN;
  if (!stream_session_open(t)) abort();
  return t;
}

static void keep_stash_full(struct worker *w) {
  struct pod *pod = pod_find(w, POD);
  while (pod->have < 4) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) abort();
    pod_stash(pod, fd);
  }
}

// Our side of a request to a peer that is the server.
static int request(struct worker *w, struct tunnel *t, struct answer *carry) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair)) abort();
  struct conn *c = conn_new(w, LISTENER, POD, AMB_OUTBOUND);
  if (!c || write(pair[1], "early", 5) != 5) abort();
  c->record.from = c->record.to = app_address;
  c->opener.source.fd = pair[0];
  c->opener.readable = true;
  if (loop_watch(&w->loop, &c->opener.source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)) abort();
  answer_hold(carry);
  c->answer = carry;
  carry->opened++;
  c->in_answer.prev = c; // as DL_APPEND2 to an empty list
  carry->conns = c;
  c->choice = carry->choice;
  c->tried = c->attempts = 1;
  stream_request(t, c);
  return pair[1];
}

static void answer_all(struct worker *w, struct answer *carry) {
  struct question *q;
  while ((q = w->control.unsent)) conn_answered(container_of(q, struct conn, question), carry);
}

// The app answers whoever calls, and is gone.
static void serve_app(void) {
  for (int fd; (fd = accept4(app, NULL, NULL, SOCK_NONBLOCK)) >= 0; close(fd)) {
    char bytes[512];
    if (send(fd, "hello from the app", 18, MSG_NOSIGNAL) < 0) continue;
    while (recv(fd, bytes, sizeof bytes, 0) > 0) continue;
  }
}

static void collect(struct worker *w) {
  while (w->tunnels && w->tunnels->phase == TUNNEL_OPEN && stream_collect(w->tunnels, w->batch, sizeof w->batch) > 0)
    continue;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (app < 0) start();
  if (!size) return 0;
  bool inbound = data[0] & 1;
  struct worker *w = worker_open(0, 1, 1, -1, (struct wires){-1, -1, -1});
  struct amb_pod pod = {.pod = POD, .stash_family = AF_INET, .stash_want = 4};
  if (!w || pod_introduce(w, &pod)) abort();
  keep_stash_full(w);
  struct answer *peer = answer(w, PEER, AMB_ACCEPT, 0),
                *carry = answer(w, CARRY, AMB_CARRY, inbound ? 0 : AMB_VIA_TUNNEL);
  struct tunnel *t = open_tunnel(w, inbound, peer);
  int client = inbound ? -1 : request(w, t, carry);
  collect(w);
  for (data++, size--; size > 2 && w->tunnels;) {
    size_t n = (size_t)(data[0] | data[1] << 8);
    data += 2;
    size -= 2;
    if (n > size) n = size;
    if (n) tunnel_received(w->tunnels, data, n);
    data += n;
    size -= n;
    answer_all(w, carry);
    loop_turn(&w->loop, false);
    serve_app();
    loop_turn(&w->loop, false);
    collect(w);
    keep_stash_full(w);
  }
  answer_release(peer);
  answer_release(carry);
  worker_close(w);
  if (client >= 0) close(client);
  serve_app();
  return 0;
}
