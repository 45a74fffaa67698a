// CPU time of one connection between two pods: for each byte on stdin a line with nanoseconds, the mean of CALLS.
//     loop CALLS CLIENT SERVER LISTEN DIAL    network namespaces' paths, where to listen, ADDRESS:PORT to dial
// One thread is both ends, so that its time is all there is: connect, accept, and a close that leaves nothing behind.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void check(int failed, const char *what) {
  if (!failed) return;
  perror(what);
  exit(1);
}

static void enter(const char *path) {
  int fd = open(path, O_RDONLY);
  check(fd < 0 || setns(fd, CLONE_NEWNET), path);
  close(fd);
}

static struct sockaddr_in place(char *text) {
  char *colon = strchr(text, ':');
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
  *colon = 0;
  check(!inet_aton(text, &at.sin_addr), text);
  return at;
}

int main(int count, char **words) {
  check(count != 6, "loop CALLS CLIENT SERVER LISTEN DIAL");
  long calls = atol(words[1]);
  struct sockaddr_in at = place(words[4]), to = place(words[5]);
  struct linger abort = {1, 0};
  int on = 1;
  enter(words[3]);
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), "SO_REUSEADDR");
  check(bind(listener, (void *)&at, sizeof(at)) || listen(listener, 16), "listen");
  enter(words[2]);
  for (char go; read(0, &go, 1) == 1;) {
    double began = now();
    for (long call = 0; call < calls; call++) {
      int client = socket(AF_INET, SOCK_STREAM, 0);
      check(connect(client, (void *)&to, sizeof(to)), "connect");
      int server = accept(listener, 0, 0);
      check(server < 0, "accept");
      check(setsockopt(client, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)), "SO_LINGER");
      close(client);
      close(server);
    }
    printf("%.1f\n", (now() - began) / calls);
    fflush(stdout);
  }
}
