// What the agent decided: answers, and the memory of which question each of them answers again.
#ifndef AMBIENT_ANSWERS_H
#define AMBIENT_ANSWERS_H

#include <stdbool.h>
#include <uthash.h>

#include "abi.h"
#include "loop.h"

struct conn;
struct memory;
struct worker;

// Immutable but for its counters. Lives as long as somebody holds it: connections, tunnels, memories, waiting records.
struct answer {
  UT_hash_handle hh;
  struct worker *worker;
  uint64_t id, pod;
  uint32_t verdict, flags, status, choices;
  uint32_t holders;
  uint64_t opened, closed, sent, received; // sent and received of the ended connections only
  struct conn *conns;                      // the open ones
  struct memory *memories;
  struct garbage garbage;
  const struct amb_choice *choice;
  const char *label, *baggage, *host; // lengths: told
  struct amb_answer told;             // as it came
  size_t tail_len;
  uint8_t tail[] __attribute__((aligned(8)));
};

// What makes two questions the same. Build it zeroed: it is compared byte by byte.
struct memory_key {
  uint64_t id;         // the listener, or the target of an outbound tunnel
  uint64_t peer;       // request: the answer that accepted its tunnel
  struct amb_addr to;  // accepted: where to
  uint8_t from[16];    // plain, tunnel: where from
  uint8_t digest[32];  // tunnel: SHA-256 of the certificate; request: of the authority
  uint8_t host[32];    // request: SHA-256 of what `forwarded` says of the host, if it does
  uint32_t type, role; // enum amb_type; of the listener, 0 for a target
};

struct answer *answer_find(struct worker *, uint64_t id);
// A new answer, or the one of that id if it says the same. NULL: same id, other content, or out of memory.
struct answer *answer_introduce(struct worker *, const struct amb_answer *, const uint8_t *tail, size_t tail_len);
void answer_hold(struct answer *);
void answer_release(struct answer *);

void answer_remember(struct answer *, const struct memory_key *);
struct answer *answer_recall(struct worker *, const struct memory_key *); // NULL: ask. Else held, one use taken
void answer_forget(struct answer *);
void answers_forget_all(struct worker *);
void answers_forget_listener(struct worker *, uint64_t listener);
void answers_close(struct worker *); // after everything that holds answers is gone

#endif
