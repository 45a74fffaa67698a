// Starting the engine: arguments, control sockets, sandbox, threads; then waiting for the end.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "build.h"
#include "sandbox.h"
#include "tls.h"
#include "worker.h"

struct options {
  const char *run_dir;
  long threads, ready_fd;
};

static _Noreturn void fail(const char *tried, const char *what) {
  fprintf(stderr, "ambient-engine: cannot %s %s: %s\n", tried, what, strerror(errno));
  exit(1);
}

static _Noreturn void usage(const char *wrong) {
  fprintf(stderr, "ambient-engine: %s\nusage: ambient-engine --run-dir DIR --threads N [--ready-fd FD] | --version\n",
          wrong);
  exit(2);
}

static long number(const char *text, long least, long most, const char *wrong) {
  char *end;
  errno = 0;
  long n = strtol(text, &end, 10);
  if (errno || *end || end == text || n < least || n > most) usage(wrong);
  return n;
}

static struct options parse(int argc, char **argv) {
  static const struct option known[] = {{"run-dir", required_argument, NULL, 'd'},
                                        {"threads", required_argument, NULL, 't'},
                                        {"ready-fd", required_argument, NULL, 'r'},
                                        {"version", no_argument, NULL, 'v'},
                                        {NULL, 0, NULL, 0}};
  struct options o = {.ready_fd = -1};
  for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
    if (c == 'd') o.run_dir = optarg;
    if (c == 't') o.threads = number(optarg, 1, WORKERS_MAX, "--threads takes a number from 1 to 64");
    if (c == 'r') o.ready_fd = number(optarg, 0, 1 << 20, "--ready-fd takes an open descriptor");
    if (c == 'v') {
      printf("ambient-engine %s (abi %d)\n", engine_build, AMB_ABI);
      exit(0);
    }
    if (c == '?') usage("unknown option");
  }
  if (!o.run_dir || !o.threads || optind != argc) usage("--run-dir and --threads are needed, and nothing else");
  return o;
}

// Engines are told apart, and put in order, by when they started: by a clock that nobody sets, for as long as one boot.
static void name_control(struct sockaddr_un *at, const char *run_dir, long worker, const char *suffix) {
  static uint64_t started;
  struct timespec t;
  if (!started && !clock_gettime(CLOCK_BOOTTIME, &t)) // cannot fail: the clock exists and the pointer is ours
    started = (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
  int n =
      snprintf(at->sun_path, sizeof at->sun_path, "%s/engine-%016" PRIx64 ".%ld.%s", run_dir, started, worker, suffix);
  if (n < (int)sizeof at->sun_path) return;
  errno = ENAMETOOLONG;
  fail("bind a socket in", run_dir);
}

// It gets its name when it listens: whoever sees it can connect, and one that refuses is dead.
static int bind_control(const char *run_dir, long worker) {
  struct sockaddr_un at = {.sun_family = AF_UNIX}, final = {0};
  name_control(&at, run_dir, worker, "new");
  name_control(&final, run_dir, worker, "sock");
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("make the socket", at.sun_path);
  mode_t mask = umask(0177); // 0600 from the start
  if (bind(fd, (struct sockaddr *)&at, sizeof at)) fail("bind", at.sun_path);
  umask(mask);
  if (listen(fd, 8)) fail("listen on", at.sun_path);
  if (rename(at.sun_path, final.sun_path)) fail("name", final.sun_path);
  return fd;
}

static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) fail("read", "RLIMIT_NOFILE");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit)) fail("raise", "RLIMIT_NOFILE to its hard limit");
}

struct crew {
  pthread_barrier_t sealed; // nobody accepts before the sandbox is shut
  struct worker *workers[WORKERS_MAX];
  pthread_t threads[WORKERS_MAX];
};

struct post {
  struct crew *crew;
  struct worker *worker;
};

static void *run(void *arg) {
  struct post *post = arg;
  pthread_barrier_wait(&post->crew->sealed);
  worker_run(post->worker);
  worker_close(post->worker);
  return NULL;
}

static void say_ready(long fd) {
  if (fd < 0) return;
  if (write((int)fd, "", 1) != 1) fail("write to", "--ready-fd");
  close((int)fd);
}

static int wire(void) {
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) fail("make", "an eventfd");
  return fd;
}

static int signals(void) {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, NULL);
  signal(SIGPIPE, SIG_IGN); // stderr may be a pipe whose reader is gone
  signal(SIGHUP, SIG_IGN);
  int fd = signalfd(-1, &ends, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0) fail("make", "a signalfd");
  return fd;
}

static int watch(int signal_fd, int finished) {
  struct epoll_event event = {.events = EPOLLIN};
  int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, signal_fd, &event) || epoll_ctl(fd, EPOLL_CTL_ADD, finished, &event))
    fail("watch", "signals");
  return fd;
}

static void tell(int wire) {
  uint64_t one = 1;
  if (write(wire, &one, sizeof one) != sizeof one) fail("tell", "the workers");
}

// The first SIGTERM only says that somebody wants the engine gone; a second one, or SIGINT, ends it.
static void wait_for_end(int events, int signal_fd, const struct wires *wires, uint64_t workers) {
  struct signalfd_siginfo info;
  uint64_t count, finished = 0;
  for (bool told = false; finished < workers;) {
    struct epoll_event event;
    epoll_wait(events, &event, 1, -1);
    if (read(wires->finished, &count, sizeof count) == sizeof count) finished += count;
    if (read(signal_fd, &info, sizeof info) != sizeof info) continue;
    if (told || info.ssi_signo == SIGINT) return;
    told = true;
    tell(wires->leave);
  }
}

int main(int argc, char **argv) {
  struct options o = parse(argc, argv);
  static struct crew crew;
  static struct post posts[WORKERS_MAX];
  int signal_fd = signals();
  raise_descriptor_limit();
  struct wires wires = {.stop = wire(), .leave = wire(), .finished = wire()};
  int events = watch(signal_fd, wires.finished);
  if (!tls_start()) fail("prepare", "OpenSSL");
  uint64_t start_at = (uint64_t)realtime_ns();
  for (long i = o.threads - 1; i >= 0; i--) { // whoever sees the first finds all
    int control = bind_control(o.run_dir, i);
    crew.workers[i] = worker_open((uint32_t)i, (uint32_t)o.threads, start_at, control, wires);
    if (!crew.workers[i]) fail("make", "a worker");
  }
  sandbox_enter(o.run_dir);
  pthread_barrier_init(&crew.sealed, NULL, (unsigned)o.threads + 1);
  for (long i = 0; i < o.threads; i++) {
    posts[i] = (struct post){&crew, crew.workers[i]};
    if ((errno = pthread_create(&crew.threads[i], NULL, run, &posts[i]))) fail("start", "a thread");
  }
  sandbox_seal();
  pthread_barrier_wait(&crew.sealed);
  say_ready(o.ready_fd);
  wait_for_end(events, signal_fd, &wires, (uint64_t)o.threads);
  tell(wires.stop);
  for (long i = 0; i < o.threads; i++) pthread_join(crew.threads[i], NULL);
  return 0;
}
