// A connection: what is asked about it, which choice carries it, and its one record. Bytes are relay.c's business.
#ifndef AMBIENT_CONN_H
#define AMBIENT_CONN_H

#include "abi.h"
#include "address.h"
#include "bytes.h"
#include "control.h"
#include "dial.h"
#include "loop.h"

struct answer;
struct conn;
struct listener;
struct tunnel;
struct worker;

// Of a stream's window, see bounds.h.
enum width {
  NARROW,
  WIDE,
  NARROWING, // the peer may still be ahead as far as it was allowed to
};

// One end of a connection: a socket, or a stream of a tunnel. Part of its connection.
struct leg {
  struct source source;    // a socket; fd -1: none (yet, or any more)
  struct tunnel *tunnel;   // a stream; NULL: none
  struct leg *prev, *next; // in tunnel->streams
  int32_t stream;
  struct conn *conn;
  struct queue out; // socket: what it did not take yet
  uint64_t moved;   // stream: bytes both ways, for the elephants' rule
  enum width width; // stream: of its window
  bool readable;    // socket: an edge came and was not read to the end
  bool hung_up;     // socket: no further edge will come, so a short read is no sign of being drained
  bool eof;         // its side said all it had to say
  bool fin;         // it is to be told that the other side has
  bool shut;        // and was told
  bool deferred;    // stream: nghttp2 waits to be told that there is data
  bool elephant;    // stream: moved more than settings.elephant_bytes
};

enum conn_phase {
  CONN_READING,    // request headers arrive
  CONN_ASKING,     // the agent is asked
  CONN_DIALLING,   // a TCP connection is being made
  CONN_JOINING,    // a tunnel is being made
  CONN_REQUESTING, // CONNECT was sent
  CONN_OPEN,       // bytes flow
  CONN_ENDED,      // freed after the batch
};

// Made by conn_accept or conn_begin_request; ended by conn_end, which writes the record.
struct conn {
  struct worker *worker;
  struct conn *prev, *next; // worker->conns
  struct {
    struct conn *prev, *next;
  } in_answer; // answer->conns
  struct {
    struct conn *prev, *next;
  } in_tunnel; // tunnel->waiting, while JOINING
  struct garbage garbage;
  struct later again; // its sockets have more to read than one turn allows
  enum conn_phase phase;
  uint32_t role;
  uint64_t pod; // of its listener
  struct amb_conn record;
  int64_t started;
  struct leg opener, server;
  struct question question;
  struct timer deadline; // READING, REQUESTING
  struct dial dial;
  struct answer *answer; // held
  struct answer *peer;   // request: the answer that accepted its tunnel; held
  struct tunnel *joining;
  const struct amb_choice *choice;
  uint32_t tried, attempts; // choices: a bit each; how many
  bool under_way;           // its listener counts it
  bool patient;             // REQUESTING: the peer's node lives, so its agent is waited for
  uint32_t rejoins;
  uint32_t early;                    // bytes of the app that were sent and not yet taken out of its socket
  uint32_t status;                   // of the peer's answer, or that we send
  bool malformed;                    // nghttp2 found the request malformed
  char *headers;                     // request: "name\0value\0"..., until answered
  uint32_t headers_len, headers_all; // kept; decoded
  struct amb_addr tunnel_to;
};

struct conn *conn_new(struct worker *, uint64_t listener, uint64_t pod, uint32_t role); // NULL: out of memory
void conn_ask(struct conn *);                                                           // or take the remembered answer
void conn_accept(struct listener *, int fd, const struct amb_addr *from, const struct amb_addr *to);
struct conn *conn_begin_request(struct tunnel *, int32_t stream); // NULL: no room for it
void conn_add_header(struct conn *, const char *name, size_t name_len, const char *value, size_t value_len);
const char *conn_header(const struct conn *, const char *name); // NULL: it has none
void conn_request_complete(struct conn *);

void conn_answered(struct conn *, struct answer *);
void conn_failed(struct conn *, enum amb_reason, int error, const char *text); // its choice: another is tried
void conn_rejoin(struct conn *, enum amb_reason, const char *text);            // the tunnel let it down, not the choice
void conn_status(struct conn *, uint32_t status);                              // of the peer's answer to our CONNECT
void conn_settled(struct conn *);                                              // it is open, or over
void conn_end(struct conn *, enum amb_reason, int error, const char *text);

#endif
