// The agent's socket: attachments, packets in, packets out. What messages mean is in messages.c and report.c.
#ifndef AMBIENT_CONTROL_H
#define AMBIENT_CONTROL_H

#include <uthash.h>

#include "abi.h"
#include "loop.h"

struct worker;

// Something a connection or tunnel waits for the agent to answer. Part of that; out of all lists when answered.
struct question {
  UT_hash_handle hh; // worker->control.questions, by id
  struct question *prev, *next;
  uint64_t id; // 0: not asked
  enum amb_type type;
  bool sent; // to the agent attached now
  struct timer deadline;
};

// A message that waits for its turn. Freed when sent, or when the agent it is for has gone.
struct parcel {
  struct parcel *prev, *next;
  uint32_t size;
  int fd; // -1, or one to send along; the parcel's own
  uint8_t bytes[];
};

// A record that waits until an agent has it for certain.
struct ending {
  struct ending *prev, *next;
  struct answer *answer; // held, so that an inventory can still tell its label; NULL: none was given
  bool old;              // from before this attachment
  struct amb_conn conn;
  char text[];
};

struct control {
  struct source door;  // where agents attach
  struct source agent; // the newest one; fd -1: none
  // The one before it. It is told nothing more, but may say what it has seen until the newest is to be told the rest.
  struct source former;
  struct later flush;
  struct timer records; // when records that wait for company go without it
  bool writable;
  bool unread;       // packets were left in the socket
  bool puzzled;      // this agent said something of a later version; that was told
  bool ready;        // this agent sent its settings: it is asked, and told of endings
  bool acknowledges; // AMB_ACKNOWLEDGES of the settings of this attachment; assumed until they come
  int64_t left_at;   // when the last agent left; CLOCK_MONOTONIC
  struct parcel *parcels;
  size_t parcels_bytes;
  struct question *questions; // all
  struct question *unsent, *sent;
  uint64_t last_question;
  struct ending *endings;               // not sent on this attachment
  struct ending *delivered;             // sent; waiting for SEEN, or for the inventory that tells their labels
  uint64_t delivered_count, seen_count; // of this attachment; until it is ready, of the one before
  uint32_t endings_count;               // in both lists
  uint8_t packet[AMB_PACKET_MAX] __attribute__((aligned(8)));
};

// A message. fds that a handler takes over it sets to -1; the rest is closed. A handler returns NULL, or what makes no
// sense about it: then the attachment ends.
struct message {
  unsigned fd_count;
  const void *body; // a union body
  const uint8_t *tail;
  size_t tail_len; // with the padding
  int *fds;
};

void control_open(struct worker *, int listening_socket);
void control_close(struct worker *);
void control_detach(struct worker *, const char *why); // NULL: it left by itself
void control_ready(struct worker *);                   // the newest agent is to be told of endings from now on
void control_flush_soon(struct worker *);
void control_flush_later(struct worker *); // within RECORDS_WAIT_MS
void control_receive(struct worker *, uint8_t *packet, size_t size, int *fds, unsigned fd_count, bool fds_cut);

// What comes after the head: as long as this version's structs are, whatever the sender's.
union body {
  struct amb_settings settings;
  struct amb_pod pod;
  struct amb_pod_ref pod_ref;
  struct amb_context context;
  struct amb_contexts contexts;
  struct amb_listen listen;
  struct amb_ref ref;
  struct amb_answer answer;
  struct amb_cut cut;
  struct amb_inventory inventory;
  struct amb_drain drain;
  struct amb_speaks speaks;
};

// How a message is read.
struct form {
  const char *(*handle)(struct worker *, const struct message *);
  size_t size;  // of its struct here and now
  size_t least; // of its struct when there first was one: what every sender has
  int fds;      // -1: any number
};

// NULL: no such message is known.
const struct form *message_form(uint16_t type);

#endif
