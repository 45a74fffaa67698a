// One question to the node's agent over its unix socket, and its answer. Knows how long to wait, judges nothing.
//
// The question: AMBIENT_CNI=1 and the CNI_ variables, each ended by a zero byte, an empty string, then what came on
// stdin; it ends where we stop sending. The descriptor of the pod's network namespace goes along, because the agent may
// not see its path. The answer is "pass", or a CNI error to print.
#ifndef AMBIENT_CNI_ASK_H
#define AMBIENT_CNI_ASK_H

#include <stdint.h>

#include "standing.h"

struct question {
  const char *command;
  struct setup setup;
  struct text config, namespace;
  int64_t began; // monotonic, ms
};

enum answer { ANSWER_NONE, ANSWER_PASS, ANSWER_REFUSED };

// ANSWER_REFUSED: the CNI error stands in `refusal`, terminated.
enum answer ask(struct question *q, char *refusal, size_t size);

#endif
