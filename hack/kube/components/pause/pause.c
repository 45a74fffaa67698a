/* The first process of a pod's sandbox, and of a node: does nothing, reaps what it inherits, ends when told to. */
#include <signal.h>
#include <unistd.h>

static void end(int number) {
  (void)number;
  _exit(0);
}

int main(void) {
  signal(SIGCHLD, SIG_IGN); /* the kernel then leaves no zombie of an adopted child */
  signal(SIGINT, end);
  signal(SIGTERM, end);
  for (;;) pause();
}
