/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * The connect hook's part of the direct path: what the verdict says, which endpoint it is to be, and what the later
 * programs must know of the socket. Gathers facts, obeys decide.h.
 */
#ifndef AMB_BPF_DIRECT_H
#define AMB_BPF_DIRECT_H

#include "decide.h"
#include "maps.h"

#include <bpf/bpf_core_read.h>

/* A destination as connect() was given it. */
struct amb_to {
  struct amb_ip ip;
  __u16 port;
};

struct mptcp_sock {}; /* the kernel's */

/* Of an MPTCP socket the hook sees the subflow, which is plain TCP but for this. A kernel that knows no MPTCP does not
 * load the call either. */
AMB_INLINE __u32 amb_protocol(struct bpf_sock_addr *ctx) {
  if (bpf_core_type_exists(struct mptcp_sock) && ctx->sk && bpf_skc_to_mptcp_sock(ctx->sk)) return IPPROTO_MPTCP;
  return ctx->protocol;
}

/* Whether the first program has just done it all: then `to` is what it chose. It decides by chance, so its spare must
 * not decide again. The note is for this connect() only: a first program never believes it, and a spare takes it once.
 */
AMB_INLINE int amb_was_decided(struct bpf_sock_addr *ctx, const struct amb_to *to) {
  struct amb_socket *socket = ctx->sk ? bpf_sk_storage_get(&sockets, ctx->sk, 0, 0) : 0;
  if (!socket || !socket->fresh) return 0;
  socket->fresh = 0;
  return socket->chosen_port == to->port && amb_ip_equal(&socket->chosen, &to->ip);
}

AMB_INLINE void amb_forget_socket(struct bpf_sock_addr *ctx) {
  if (ctx->sk) bpf_sk_storage_delete(&sockets, ctx->sk);
}

/* A refusal may fill half of what a live connection's record must not need, so that a pod that is refused all the time
 * takes the direct path from nobody. False: no room. */
AMB_INLINE int amb_tell_refusal(__u64 client, __u64 number, const struct amb_to *to) {
  struct amb_ended *record = 0;
  if (bpf_ringbuf_query(&ended, BPF_RB_AVAIL_DATA) <= AMB_RING_BACKLOG / 2)
    record = bpf_ringbuf_reserve(&ended, sizeof(*record), 0);
  if (!record) return 0;
  __u64 now = bpf_ktime_get_ns();
  *record = (struct amb_ended){
      .client = client, .number = number, .started = now, .ended = now, .kind = AMB_KIND_REFUSE, .dialled = to->ip};
  record->dialled_port = to->port;
  bpf_ringbuf_submit(record, 0);
  return 1;
}

/* What becomes of a connection that would be marked. AMB_GO_DIRECT: to `to`, which is the endpoint now. */
AMB_INLINE struct amb_decision amb_past_engine(struct bpf_sock_addr *ctx, __u64 cookie, struct amb_to *to,
                                               enum place place) {
  const struct amb_decision miss = {AMB_MARK_IT, AMB_CONNECT_CAPTURED};
  struct amb_verdict_key key = {cookie, to->ip, to->port, 0};
  struct amb_verdict *verdict = ctx->sk ? bpf_map_lookup_elem(&verdicts, &key) : 0;
  if (!verdict) {
    amb_forget_socket(ctx);
    return miss;
  }

  struct amb_socket socket = {.client = cookie, .number = verdict->number, .dialled = to->ip, .chosen = to->ip};
  socket.dialled_port = socket.chosen_port = to->port;
  socket.fresh = place == FIRST;
  barrier(); // the number before what belongs to it
  struct amb_direct_facts facts = {.protocol = amb_protocol(ctx), .kind = verdict->kind, .remote = 1};
  socket.kind = facts.kind;
  if (facts.kind == AMB_KIND_DIRECT) {
    __u32 at = amb_choose(verdict, verdict->count > 1 ? bpf_get_prandom_u32() : 0);
    if (at < AMB_ENDPOINTS && verdict->endpoint[at].server) {
      const struct amb_endpoint *endpoint = &verdict->endpoint[at];
      facts.remote = 0;
      socket.server = endpoint->server;
      socket.chosen = endpoint->ip;
      socket.chosen_port = endpoint->port;
    }
  }
  // The kernel may give a deleted entry's memory to another one while we read: all of it is one verdict's if that is
  // still here, because no two have the same number.
  verdict = bpf_map_lookup_elem(&verdicts, &key);
  if (!verdict || verdict->number != socket.number) {
    amb_forget_socket(ctx);
    return miss;
  }
  if (!facts.remote) {
    const struct amb_pod *server = bpf_map_lookup_elem(&pods, &socket.server);
    facts.reachable = server && server->flags & AMB_POD_CAPTURE && socket.server != cookie &&
                      amb_ip_is_v4(&socket.chosen) == amb_ip_is_v4(&to->ip);
  }
  facts.expired = !amb_lease_holds();
  facts.room = bpf_ringbuf_query(&ended, BPF_RB_AVAIL_DATA) <= AMB_RING_BACKLOG;

  struct amb_decision decision = amb_decide_direct(&facts);
  if (decision.verdict == AMB_REFUSE) {
    amb_forget_socket(ctx);
    // All programs of a hook run: what the first refused its spare does not tell again. Where it cannot be told the
    // engine refuses, with a record, and no faster than those are read.
    if ((place == FIRST || !bpf_get_retval()) && !amb_tell_refusal(cookie, socket.number, to))
      return (struct amb_decision){AMB_MARK_IT, AMB_CONNECT_NO_ROOM};
    return decision;
  }
  if (decision.verdict == AMB_MARK_IT) { // by this verdict, so that the spare does not choose once more
    socket.remote = 1;
    socket.chosen = to->ip;
    socket.chosen_port = to->port;
  }
  struct amb_socket *kept = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!kept) return (struct amb_decision){AMB_MARK_IT, AMB_CONNECT_NO_ROOM};
  *kept = socket;
  to->ip = socket.chosen;
  to->port = socket.chosen_port;
  return decision;
}

#endif
