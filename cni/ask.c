#include "ask.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SECOND
#define SECOND 1000 // ms; tests of the waiting have shorter ones
#endif

enum {
  MESH_MS = 20 * SECOND,   // an agent waits 5 s for what it was not told yet, and captures at once: this is a dead one
  OUTSIDE_MS = 3 * SECOND, // what is outside waits for an agent that lives and is slow, not for one that hangs
  CLEANUP_MS = 5 * SECOND, // DEL, CHECK, GC
  ABSENT_MS = 5 * SECOND,  // one that is started again is there within 2 s: better than an Event and a second sandbox
  RETRY_MS = SECOND / 10,
};

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t); // cannot fail
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool is_outside(const struct question *q) { return standing_of(&q->setup, q->namespace) >= STANDING_OUTSIDE; }

// Whether there is time left; a system call on the socket then takes no more than that. Asked before each, because the
// agent may write down meanwhile that the namespace is its own.
static bool patient(const struct question *q, int sock) {
  int all = strcmp(q->command, "ADD") != 0 ? CLEANUP_MS : is_outside(q) ? OUTSIDE_MS : MESH_MS;
  int64_t left = q->began + all - now_ms();
  struct timeval most = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
  return left > 0 && !setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most) &&
         !setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
}

static bool interrupted(void) { return errno == EAGAIN || errno == EINTR; }

static bool reach(const struct question *q, int sock) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  int n = snprintf(at.sun_path, sizeof at.sun_path, "%s/cni.sock", q->setup.run_dir);
  return n < (int)sizeof at.sun_path && patient(q, sock) && !connect(sock, (struct sockaddr *)&at, sizeof at);
}

static struct text write_down(const struct question *q) {
  static const char *const names[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"};
  char *bytes = NULL;
  size_t len = 0;
  FILE *f = open_memstream(&bytes, &len);
  if (!f) return (struct text){0};
  fprintf(f, "AMBIENT_CNI=1%c", 0);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    fprintf(f, "%s=%s%c", names[i], getenv(names[i]) ? getenv(names[i]) : "", 0);
  fputc(0, f);
  fwrite(q->config.at, 1, q->config.len, f);
  return fclose(f) ? (struct text){0} : (struct text){bytes, len};
}

static ssize_t send_some(int sock, struct text left, int fd) {
  struct iovec io = {(void *)(uintptr_t)left.at, left.len};
  union {
    char bytes[CMSG_SPACE(sizeof fd)];
    struct cmsghdr aligned;
  } control = {0};
  struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
  if (fd >= 0) {
    m.msg_control = control.bytes;
    m.msg_controllen = sizeof control.bytes;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  return sendmsg(sock, &m, MSG_NOSIGNAL);
}

static bool hand_over(const struct question *q, int sock, struct text left) {
  const char *path = getenv("CNI_NETNS"); // if it cannot be opened, what follows from that is for the agent to say
  int fd = path && *path ? open(path, O_RDONLY | O_CLOEXEC) : -1, given = fd;
  while (left.len && patient(q, sock)) {
    ssize_t n = send_some(sock, left, given);
    if (n < 0 && !interrupted()) break;
    if (n < 0) continue;
    given = -1;
    left = (struct text){left.at + n, left.len - (size_t)n};
  }
  if (fd >= 0) close(fd);
  return !left.len && !shutdown(sock, SHUT_WR);
}

static enum answer listen_to(const struct question *q, int sock, char *refusal, size_t size) {
  size_t len = 0;
  while (len < size - 1 && patient(q, sock)) {
    ssize_t n = recv(sock, refusal + len, size - 1 - len, 0);
    if (n < 0 && !interrupted()) break;
    if (n > 0) len += (size_t)n;
    if (n) continue;
    refusal[len] = 0;
    if (!strcmp(refusal, "pass")) return ANSWER_PASS;
    struct text code; // half an answer, of an agent that died, is none
    return json_member((struct text){refusal, len}, "code", &code) && code.at ? ANSWER_REFUSED : ANSWER_NONE;
  }
  return ANSWER_NONE;
}

static enum answer attempt(const struct question *q, struct text question, char *refusal, size_t size) {
  int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (sock < 0) return ANSWER_NONE;
  bool asked = reach(q, sock) && hand_over(q, sock, question);
  enum answer answer = asked ? listen_to(q, sock, refusal, size) : ANSWER_NONE;
  close(sock);
  return answer;
}

enum answer ask(struct question *q, char *refusal, size_t size) {
  q->began = now_ms();
  struct text question = write_down(q);
  enum answer answer = ANSWER_NONE;
  while (question.at && (answer = attempt(q, question, refusal, size)) == ANSWER_NONE) {
    if (strcmp(q->command, "ADD") != 0 || is_outside(q) || now_ms() - q->began > ABSENT_MS) break;
    nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000}, NULL); // a socket's appearing is no event to wait for
  }
  free((void *)(uintptr_t)question.at);
  return answer;
}
