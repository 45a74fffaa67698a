// CPU time of one setsockopt(TCP_NODELAY): for each byte on stdin a line with nanoseconds, the mean of CALLS.
//     loop CALLS [ADDRESS]    on a socket that is connected to port 80 there, or on an unconnected one
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int count, char **words) {
  int sock = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  long calls = atol(words[1]);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(80)};
  if (count > 2 && (!inet_aton(words[2], &to.sin_addr) || connect(sock, (void *)&to, sizeof(to)))) return 1;
  for (char go; read(0, &go, 1) == 1;) {
    double began = now();
    for (long call = 0; call < calls; call++)
      if (setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))) return 1;
    printf("%.1f\n", (now() - began) / calls);
    fflush(stdout);
  }
}
