// Load that measures stalls. `load serve PORT...` echoes. `load dial IP PORT MEMBERS RATE LIFE_MS` keeps so many
// connections open, each of which says a message every 50 ms and waits for it to come back, and opens RATE more a
// second, each for one message. A member lives LIFE_MS, then another takes its place (0: for ever).
//
// It says what became of all that as a line of JSON for each line it reads, which also begins the count anew. A message
// is late from the moment it was due, so a stall is not hidden by what could not be said meanwhile. A message that was
// said and did not come back, because its connection ended or within PATIENCE, is lost; the member dials again at once.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 32, EVENTS = 256, INDEX_BITS = 14, MOST = 1 << INDEX_BITS, REASONS = 200, TICK_MS = 1, LATE_MS = 1000 };
#define SECRET   "AMBIENT-SECRETS!0123456789abcdef" // nobody may read the first half of it on the wire
#define MS       INT64_C(1000000)
#define EVERY    (50 * MS)
#define PATIENCE (20000 * MS)
#define AGAIN    (20 * MS) // a member that could not connect tries again after so long

enum { TIMER, INPUT }; // events that are no connection's: those begin at MOST
enum state { FREE, CONNECTING, IDLE, WAITING, BROKEN };

struct conn { // of the dialling side; nobody's while FREE
  int fd;
  enum state state;
  int member;
  bool answered;
  uint64_t number;
  int64_t began; // newcomers: when it was to be opened
  int64_t due;   // members: when the next message is, or the waiting one was, to be said
  int64_t dies;  // members: when another takes its place
  int64_t retry; // members, BROKEN: when to dial again
  size_t got;
  uint64_t said[SIZE / 8], back[SIZE / 8];
};

static struct tally {
  uint64_t answered, lost, broken, came, failed, failed_late;
  int64_t stall, slowest;
  unsigned errors[REASONS];
} tally;

static struct conn conns[MOST];
static int poll_fd, members, rate, highest;
static int64_t life, now, marked;
static uint64_t numbers;
static struct sockaddr_storage server;
static socklen_t server_size;

static int64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 * MS + t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void watch(int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {.events = events, .data.u64 = data};
  if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void count_error(int error) { tally.errors[error > 0 && error < REASONS ? error : 0]++; }

static void over(struct conn *c, int error) {
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
  if (!c->member) {
    c->state = FREE;
    if (!error) return;
    tally.failed++;
    tally.failed_late += c->began > marked + LATE_MS * MS;
  } else {
    if (!error) return;
    tally.broken += c->state == WAITING || c->state == IDLE;
    tally.lost += c->state == WAITING;
    c->state = BROKEN;
    c->answered = false;
    c->retry = now + AGAIN;
  }
  count_error(error);
}

static void say(struct conn *c) {
  memcpy(c->said, SECRET, SIZE);
  c->said[2] = c->number;
  c->said[3] = ++numbers;
  c->got = 0;
  c->state = WAITING;
  ssize_t n = send(c->fd, c->said, SIZE, MSG_NOSIGNAL);
  if (n != SIZE) over(c, n < 0 ? errno : EMSGSIZE);
}

static void dial(struct conn *c) {
  int one = 1;
  c->number = ++numbers;
  c->answered = false;
  c->state = CONNECTING;
  c->fd = socket(server.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) die("socket");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  watch(c->fd, EPOLLIN | EPOLLOUT | EPOLLET, c->number << INDEX_BITS | (uint64_t)(c - conns));
  if (connect(c->fd, (void *)&server, server_size) && errno != EINPROGRESS) over(c, errno);
}

static void came_back(struct conn *c) {
  int64_t took = now - (c->member ? c->due : c->began);
  if (memcmp(c->said, c->back, SIZE)) return over(c, EBADMSG);
  if (!c->member) {
    tally.came++;
    if (took > tally.slowest) tally.slowest = took;
    return over(c, 0);
  }
  tally.answered++;
  c->answered = true;
  if (took > tally.stall) tally.stall = took;
  c->state = IDLE;
  c->due = c->due + EVERY > now ? c->due + EVERY : now; // what was not said in time is said once
}

static void on_conn(struct conn *c, uint32_t events) {
  if (c->fd < 0) return;
  if (c->state == CONNECTING && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
    int error = 0;
    socklen_t n = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error) return over(c, error);
    if (!(events & EPOLLOUT)) return;
    c->state = IDLE;
    if (!c->member) say(c);
  }
  while (c->fd >= 0 && events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
    ssize_t n = recv(c->fd, (char *)c->back + c->got, SIZE - c->got, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return over(c, n ? errno : EPIPE); // nobody here closes first but us
    if (c->state != WAITING) return over(c, EBADMSG);
    c->got += (size_t)n;
    if (c->got == SIZE) came_back(c);
  }
}

static struct conn *unused(void) {
  for (int i = members; i < MOST; i++)
    if (conns[i].state == FREE) {
      if (i >= highest) highest = i + 1;
      return &conns[i];
    }
  fprintf(stderr, "load: more than %d connections at once\n", MOST);
  exit(1);
}

static void open_due(void) {
  static int64_t next;
  if (!rate) return;
  if (!next) next = now;
  for (; next <= now; next += 1000 * MS / rate) {
    struct conn *c = unused();
    *c = (struct conn){.fd = -1, .began = next};
    dial(c);
  }
}

static void tick(void) {
  for (int i = 0; i < members; i++) {
    struct conn *c = &conns[i];
    if (c->state == IDLE && life && now >= c->dies) {
      over(c, 0);
      c->dies = now + life;
      dial(c);
    } else if (c->state == IDLE && now >= c->due) {
      say(c);
    } else if (c->state == BROKEN && now >= c->retry) {
      dial(c);
    } else if ((c->state == WAITING || c->state == CONNECTING) && now > c->due + PATIENCE) {
      over(c, ETIMEDOUT);
      c->due = now;
    }
  }
  for (int i = members; i < highest; i++)
    if (conns[i].state != FREE && now > conns[i].began + PATIENCE) over(&conns[i], ETIMEDOUT);
  open_due();
}

// What waits now has stalled so long already: else a stall would be told one line too late.
static int64_t waiting_for(int from, int to) {
  int64_t most = 0;
  for (int i = from; i < to; i++) {
    struct conn *c = &conns[i];
    int64_t since = i < members ? c->due : c->began;
    if (c->state != FREE && now - since > most) most = now - since;
  }
  return most;
}

static void report(void) {
  int64_t stall = waiting_for(0, members), slowest = waiting_for(members, highest);
  int open = 0;
  for (int i = 0; i < members; i++) open += conns[i].answered;
  if (tally.stall > stall) stall = tally.stall;
  if (tally.slowest > slowest) slowest = tally.slowest;
  printf("{\"open\": %d, \"answered\": %llu, \"lost\": %llu, \"broken\": %llu, \"came\": %llu, \"failed\": %llu, "
         "\"failed_late\": %llu, "
         "\"stall_ms\": %.1f, \"slowest_ms\": %.1f, \"errors\": {",
         open, (unsigned long long)tally.answered, (unsigned long long)tally.lost, (unsigned long long)tally.broken,
         (unsigned long long)tally.came, (unsigned long long)tally.failed, (unsigned long long)tally.failed_late,
         (double)stall / MS, (double)slowest / MS);
  const char *comma = "";
  for (int i = 0; i < REASONS; i++)
    if (tally.errors[i]) {
      printf("%s\"%s\": %u", comma, strerrorname_np(i) ? strerrorname_np(i) : "other", tally.errors[i]);
      comma = ", ";
    }
  puts("}}");
  fflush(stdout);
  tally = (struct tally){0};
  marked = now;
}

static bool newcomers_left(void) {
  for (int i = members; i < highest; i++)
    if (conns[i].state != FREE) return true;
  return false;
}

static void load(void) {
  char line[64];
  bool is_ending = false;
  struct epoll_event events[EVENTS];
  struct itimerspec every = {{0, TICK_MS * MS}, {0, TICK_MS * MS}};
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  if (timer < 0 || timerfd_settime(timer, 0, &every, NULL)) die("timerfd");
  watch(timer, EPOLLIN, TIMER);
  watch(STDIN_FILENO, EPOLLIN, INPUT);
  now = marked = clock_ns();
  for (int i = 0; i < members; i++) {
    conns[i] = (struct conn){.fd = -1, .member = 1, .due = now + 200 * MS + EVERY * i / members};
    conns[i].dies = now + life * (i + 1) / members; // not all at once
    dial(&conns[i]);
  }
  for (;;) {
    int n = epoll_wait(poll_fd, events, EVENTS, -1);
    now = clock_ns();
    if (is_ending && !newcomers_left()) return report();
    for (int i = 0; i < n; i++) {
      uint64_t which = events[i].data.u64;
      struct conn *c = &conns[which % MOST];
      if (which > INPUT) {
        if (c->number == which >> INDEX_BITS) on_conn(c, events[i].events); // else it is another by now
      } else if (which == TIMER) {
        uint64_t ticks;
        if (read(timer, &ticks, sizeof ticks) == sizeof ticks) tick();
      } else {
        if (read(STDIN_FILENO, line, sizeof line) > 0)
          report();
        else if (!epoll_ctl(poll_fd, EPOLL_CTL_DEL, STDIN_FILENO, NULL))
          rate = 0, is_ending = true;
      }
    }
  }
}

static void serve(char **ports) {
  struct epoll_event events[EVENTS];
  enum { LISTENING = 1 };
  for (; *ports; ports++) {
    int one = 1, zero = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(*ports))};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (fd < 0 || bind(fd, (void *)&here, sizeof here) || listen(fd, 4096)) die("listen");
    watch(fd, EPOLLIN, (uint64_t)fd << 1 | LISTENING);
  }
  for (;;) {
    int n = epoll_wait(poll_fd, events, EVENTS, -1);
    for (int i = 0; i < n; i++) {
      int fd = (int)(events[i].data.u64 >> 1);
      char bytes[4096];
      ssize_t size;
      if (events[i].data.u64 & LISTENING) {
        int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
        if (client < 0) continue;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(client, EPOLLIN, (uint64_t)client << 1);
      } else if ((size = recv(fd, bytes, sizeof bytes, 0)) <= 0 ||
                 send(fd, bytes, (size_t)size, MSG_NOSIGNAL) != size) {
        close(fd);
      }
    }
  }
}

int main(int argc, char **argv) {
  struct rlimit all;
  signal(SIGPIPE, SIG_IGN);
  if (!getrlimit(RLIMIT_NOFILE, &all)) {
    all.rlim_cur = all.rlim_max;
    setrlimit(RLIMIT_NOFILE, &all);
  }
  poll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (argc > 2 && !strcmp(argv[1], "serve")) serve(argv + 2);
  if (argc != 7 || strcmp(argv[1], "dial")) return 2;
  struct sockaddr_in *v4 = (void *)&server;
  struct sockaddr_in6 *v6 = (void *)&server;
  uint16_t port = htons((uint16_t)atoi(argv[3]));
  if (inet_pton(AF_INET, argv[2], &v4->sin_addr) == 1)
    v4->sin_family = AF_INET, v4->sin_port = port, server_size = sizeof *v4;
  else if (inet_pton(AF_INET6, argv[2], &v6->sin6_addr) == 1)
    v6->sin6_family = AF_INET6, v6->sin6_port = port, server_size = sizeof *v6;
  else
    return 2;
  members = highest = atoi(argv[4]);
  rate = atoi(argv[5]);
  life = atoll(argv[6]) * MS;
  if (members > MOST / 2) return 2;
  load();
  return 0;
}
