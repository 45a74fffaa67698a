// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//
// sockops: the life of a connection past the engine. Before its SYN leaves it is announced in `flows`, which is the
// first moment its port is known; when it is established without having been let in, it is sealed; when it is over, its
// record goes to the agent. The kernel calls this a few times per connection of any process on the node, hence the
// switch.
//
// Attached twice, as itself and as its spare: without either one, flows would stay announced after their end, and their
// records be lost. What one of them did shows in the socket, so the other does not do it again.
#include "decide.h"
#include "maps.h"

#include <bpf/bpf_endian.h>

#define AF_INET   2
#define SOCK_DONE 1 // enum sock_flags, include/net/sock.h: the peer's FIN has come

enum { GO_ON = 1 };

// As much of the kernel's own structs as is read here; the loader finds the fields in this kernel's BTF.
#define KERNELS __attribute__((preserve_access_index))
struct sock_common {
  unsigned long skc_flags;
} KERNELS;
struct sock {
  struct sock_common __sk_common;
  int sk_err;
} KERNELS;
struct inet_sock {
  struct sock sk;
} KERNELS;
struct inet_connection_sock {
  struct inet_sock icsk_inet;
} KERNELS;
struct tcp_sock {
  struct inet_connection_sock inet_conn;
  __u32 write_seq, snd_una;
  void *fastopen_req;
} KERNELS;

// What connect decided for this socket, if it goes past the engine.
AMB_INLINE struct amb_socket *ours(struct bpf_sock *sk) {
  struct amb_socket *socket = bpf_sk_storage_get(&sockets, sk, 0, 0);
  return socket && !socket->remote ? socket : 0;
}

AMB_INLINE struct amb_flow_key key_of(struct bpf_sock_ops *ctx) {
  struct amb_flow_key key = {.source_port = ctx->local_port, .destination_port = bpf_ntohl(ctx->remote_port)};
  if (ctx->family == AF_INET) {
    key.source = amb_ip_from_v4(ctx->local_ip4);
    key.destination = amb_ip_from_v4(ctx->remote_ip4);
    barrier(); // as in lookup.bpf.c
  } else {
    key.source = (struct amb_ip){{ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2], ctx->local_ip6[3]}};
    key.destination = (struct amb_ip){{ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2], ctx->remote_ip6[3]}};
  }
  return key;
}

// From now on everything this socket sends comes back in to the outbound listener, or is prohibited. If it cannot be
// marked, for which no reason is known, it is bound to the loopback device, and sends nothing: our table, which would
// bring that back in, is not asked. False: it leaves as it is.
AMB_INLINE int stop(struct bpf_sock_ops *ctx, const struct bpf_sock *sk) {
  __u32 mark = (sk->mark & ~AMB_MARK_MASK) | AMB_MARK, loopback = AMB_LOOPBACK_IFINDEX;
  if (!bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark))) return 1;
  int stopped = !bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTOIFINDEX, &loopback, sizeof(loopback));
  amb_count(stopped ? AMB_FLOW_STOPPED : AMB_FLOW_LOOSE);
  return stopped;
}

// Before anything is sent: the engine takes it after all. If nothing stops it, it is a stranger to the server, and is
// to be sealed when it is established.
AMB_INLINE void divert(struct bpf_sock_ops *ctx, const struct bpf_sock *sk, struct amb_socket *socket) {
  socket->started = 0;
  socket->remote = stop(ctx, sk);
  amb_count(AMB_CONNECT_DIVERTED);
}

// An address that is not the client's own: the engine knows what to think of it.
AMB_INLINE int is_strange(const struct amb_socket *socket) {
  const struct amb_pod *client = bpf_map_lookup_elem(&pods, &socket->client);
  return !client || !amb_pod_owns(client, &socket->flow.source);
}

// Connect may be long ago (TCP_FASTOPEN_CONNECT). Asked when the flow is in the map: who takes a verdict back and then
// lists flows finds this one, or we find the verdict gone.
AMB_INLINE int still_stands(const struct amb_socket *socket) {
  struct amb_verdict_key dialled = {socket->client, socket->dialled, socket->dialled_port, 0};
  const struct amb_verdict *verdict = bpf_map_lookup_elem(&verdicts, &dialled);
  return verdict && verdict->number == socket->number && amb_lease_holds();
}

// One of its pod's seats, by chance: to look through all of them would take too long. Where two flows take the same one
// at once, the pod has one more than it has seats.
AMB_INLINE int take_seat(struct amb_socket *socket) {
  for (int tries = 0; tries < AMB_SEAT_TRIES; tries++) {
    struct amb_seat seat = {socket->client, 1 + bpf_get_prandom_u32() % AMB_SEATS, 0};
    const struct amb_flow_key *sitting = bpf_map_lookup_elem(&seats, &seat);
    if (sitting && bpf_map_lookup_elem(&flows, sitting)) continue;
    socket->seat = seat.number;
    return !bpf_map_update_elem(&seats, &seat, &socket->flow, BPF_ANY);
  }
  return 0;
}

AMB_INLINE void leave_seat(const struct amb_socket *socket) {
  struct amb_seat seat = {socket->client, socket->seat, 0};
  bpf_map_delete_elem(&seats, &seat);
}

AMB_INLINE void announce(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
  struct amb_socket *socket = ours(sk);
  if (!socket || socket->started) return;

  struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
  // Fast open may put data into the SYN, before it is known who answers.
  if (!tcp || (socket->kind == AMB_KIND_DIRECT && tcp->fastopen_req)) return divert(ctx, sk, socket);
  if (bpf_ringbuf_query(&ended, BPF_RB_AVAIL_DATA) > AMB_RING_BACKLOG) return divert(ctx, sk, socket);

  socket->flow = key_of(ctx);
  if (socket->kind == AMB_KIND_DIRECT && is_strange(socket)) return divert(ctx, sk, socket);
  if (!take_seat(socket)) return divert(ctx, sk, socket);
  socket->started = bpf_ktime_get_ns();
  struct amb_flow flow = {
      .client = socket->client,
      .server = socket->server,
      .number = socket->number,
      .started = socket->started,
      .dialled = socket->dialled,
      .dialled_port = socket->dialled_port,
      .kind = socket->kind,
  };
  struct amb_flow_key key = socket->flow;
  if (bpf_map_update_elem(&flows, &key, &flow, BPF_NOEXIST)) return divert(ctx, sk, socket);
  if (!still_stands(socket) ||
      bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG)) {
    bpf_map_delete_elem(&flows, &key);
    divert(ctx, sk, socket);
  }
}

// bytes_acked counts our SYN and our FIN, bytes_received the server's FIN. (A socket that was restored into its
// connection by TCP_REPAIR has sent no SYN.)
AMB_INLINE void count_bytes(struct bpf_sock_ops *ctx, const struct tcp_sock *tcp, struct amb_ended *record) {
  if (!record->established) return;
  int fin_sent = record->last != BPF_TCP_ESTABLISHED && record->last != BPF_TCP_CLOSE_WAIT;
  __u64 not_bytes = 1 + (fin_sent && tcp->snd_una == tcp->write_seq);
  int fin_received = tcp->inet_conn.icsk_inet.sk.__sk_common.skc_flags >> SOCK_DONE & 1;
  record->bytes_out = ctx->bytes_acked > not_bytes ? ctx->bytes_acked - not_bytes : 0;
  record->bytes_in = ctx->bytes_received - fin_received;
}

// `last`: the TCP state it was in.
AMB_INLINE void over(struct bpf_sock_ops *ctx, struct bpf_sock *sk, __u8 state, __u8 last) {
  struct amb_socket *socket = ours(sk);
  if (!socket || !socket->started) return;
  struct amb_flow_key key = socket->flow;
  struct amb_flow *flow = bpf_map_lookup_elem(&flows, &key);
  struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
  struct amb_ended *record = bpf_ringbuf_reserve(&ended, sizeof(*record), 0);
  if (record) {
    *record = (struct amb_ended){
        .client = socket->client,
        .server = socket->server,
        .number = socket->number,
        .started = socket->started,
        .ended = bpf_ktime_get_ns(),
        .flow = key,
        .dialled = socket->dialled,
        .dialled_port = socket->dialled_port,
        .kind = socket->kind,
        .state = state,
        .last = last,
    };
    if (flow) {
      record->established = flow->established;
      if (flow->admitted == socket->started) record->state |= AMB_ENDED_ADMITTED;
    }
    if (tcp) {
      record->error = tcp->inet_conn.icsk_inet.sk.sk_err;
      count_bytes(ctx, tcp, record);
    }
    bpf_ringbuf_submit(record, 0);
  } else {
    amb_count(AMB_FLOW_UNTOLD);
  }
  bpf_map_delete_elem(&flows, &key);
  leave_seat(socket);
  socket->started = 0;
}

AMB_INLINE void established(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
  struct amb_socket *socket = ours(sk);
  if (!socket) return;
  struct amb_flow_key key = socket->flow;
  struct amb_flow *flow = socket->started ? bpf_map_lookup_elem(&flows, &key) : 0;
  if (flow && !flow->established) flow->established = bpf_ktime_get_ns();
  if (socket->kind != AMB_KIND_DIRECT || (flow && flow->admitted == socket->started)) return;
  // Somebody has answered whom we did not let it in to. Not even the handshake's last packet goes there, and as nothing
  // ever will, this is its end: the agent hears of it now, however long the application holds on to the socket.
  if (!stop(ctx, sk)) return; // it stays in `flows`, where the agent finds and ends what was not let in
  over(ctx, sk, AMB_ENDED_SEALED, BPF_TCP_ESTABLISHED);
  socket->remote = 1;
  amb_count(AMB_FLOW_SEALED);
}

AMB_INLINE int on_event(struct bpf_sock_ops *ctx) {
  struct bpf_sock *sk = ctx->sk;
  if (!sk) return GO_ON;
  switch (ctx->op) {
  case BPF_SOCK_OPS_TCP_CONNECT_CB:
    announce(ctx, sk);
    break;
  case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
    established(ctx, sk);
    break;
  case BPF_SOCK_OPS_STATE_CB:
    if (ctx->args[1] == BPF_TCP_CLOSE) over(ctx, sk, 0, ctx->args[0]);
    break;
  }
  return GO_ON;
}

SEC("sockops")
int sock_ops(struct bpf_sock_ops *ctx) { return on_event(ctx); }

SEC("sockops")
int sock_ops_spare(struct bpf_sock_ops *ctx) { return on_event(ctx); }

char LICENSE[] SEC("license") = "Dual BSD/GPL";
