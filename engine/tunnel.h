// A tunnel: TCP, TLS and HTTP/2 to one peer, and its life from dial or accept to the end. Streams are in stream.c.
#ifndef AMBIENT_TUNNEL_H
#define AMBIENT_TUNNEL_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

#include "abi.h"
#include "bytes.h"
#include "control.h"
#include "dial.h"
#include "loop.h"

struct answer;
struct conn;
struct context;
struct leg;
struct listener;
struct target;
struct worker;

enum tunnel_phase {
  TUNNEL_DIALLING,
  TUNNEL_HANDSHAKE,
  TUNNEL_ASKING, // the agent looks at the peer's certificate
  TUNNEL_OPEN,
  TUNNEL_ENDED, // freed after the batch
};

// How much of something a peer may do: so much at once, so much per second.
struct allowance {
  int64_t left, refilled_at;
};

// Made by tunnel_accept or tunnel_dial; ended by tunnel_end, which also ends what it carries.
struct tunnel {
  struct worker *worker;
  struct tunnel *prev, *next; // worker->tunnels
  struct {
    struct tunnel *prev, *next;
  } in_target; // target->tunnels, while new streams may join
  struct garbage garbage;
  struct later flush; // it has something to send
  struct later turn;  // a turn ended before its bytes did
  enum tunnel_phase phase;
  bool inbound, reported;
  bool draining;     // no new streams; ends with the last one
  int64_t empty_at;  // when its last stream was over, and it is to be closed; 0: not
  int64_t warned_at; // inbound: when the peer was asked to open its next tunnel; 0: not
  bool heard;        // outbound: the peer spoke HTTP/2, so it accepted our certificate
  int64_t heard_at;  // when bytes of the peer were last read
  bool readable, hung_up, blocked;
  int socket_error;
  struct source source;
  struct dial dial;
  struct timer deadline; // HANDSHAKE; IDLE
  struct question question;
  SSL *ssl;
  nghttp2_session *http2;
  struct buffer *out; // ciphertext the socket did not take yet
  struct context *context;
  struct answer *peer;   // the ACCEPT; held
  uint64_t listener;     // inbound
  struct target *target; // outbound; NULL once it takes no new streams
  uint64_t target_id;
  uint64_t pod;
  struct amb_addr from, to; // of the TCP connection, the opener first
  uint64_t start_at, expires_at, handshake_ns;
  uint64_t retires_at; // outbound: takes no new streams then, so that none is young when the tunnel expires
  int64_t started, handshake_started;
  uint8_t *der; // the peer's leaf, while ASKING
  uint32_t der_len;
  uint8_t digest[32];
  struct leg *streams;
  uint32_t stream_count, elephants;
  struct leg *mover; // whose bytes came or went last; NULL: its stream is over
  uint64_t alone;    // so many of them since another's did, or since its app did not keep up
  uint64_t served;
  struct conn *waiting; // for the handshake, or for room
  uint32_t waiting_count;
  struct allowance idle_frames;
  uint32_t continuations;
  uint32_t frame_skip; // flood.c: bytes until the next frame's head, and what came of it
  uint8_t frame_head[9], frame_have;
  const char *doomed; // found out within nghttp2: why the tunnel has to end with PROTOCOL
};

struct tunnel *tunnel_new(struct worker *, bool inbound); // NULL: out of memory
void tunnel_accept(struct listener *, int fd, const struct amb_addr *from, const struct amb_addr *to);
struct tunnel *tunnel_dial(struct worker *, struct target *, const struct amb_choice *, uint64_t pod, struct context *);
void tunnel_start(struct tunnel *); // dials; may end at once
void tunnel_answered(struct tunnel *, struct answer *);
void tunnel_received(struct tunnel *, const uint8_t *, size_t); // plaintext of the peer
void tunnel_heard(struct tunnel *);                             // the peer sent its first HTTP/2 frame
void tunnel_mark(struct tunnel *);                              // it has something to send
void tunnel_warn(struct tunnel *); // inbound: the peer is to open no more streams; those on their way are taken
void tunnel_drain(struct tunnel *);
void tunnel_close_empty(struct tunnel *); // once its last bytes have arrived
void tunnel_idle(struct tunnel *);        // if it is: close it after a while
void tunnel_end(struct tunnel *, enum amb_reason, int error, const char *text);
void tunnel_add_stream(struct tunnel *, struct leg *, int32_t stream);
void tunnel_drop_stream(struct leg *);

void tunnels_expire(struct worker *, uint64_t now);
void tunnels_leave(struct worker *, uint64_t pod, bool at_once); // the pod goes: drain them, or end them
bool tunnel_lives(const struct tunnel *); // the peer's node does, as far as can be told: it spoke, or acknowledged all
void tunnels_cut(struct worker *, struct answer *, enum amb_reason);

#endif
