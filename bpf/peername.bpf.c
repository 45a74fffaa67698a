// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//
// cgroup/getpeername4 and 6: an application that the engine dialled on behalf of a client sees that client, and one
// whose connection went to a service's endpoint directly sees the service. The kernel asks the same hook for accept().
// Only shows names; who may connect is decided elsewhere.
#include "decide.h"
#include "maps.h"

#include <bpf/bpf_endian.h>

enum { GO_ON = 1 }; // the only return value the hook has

struct shown {
  struct amb_ip ip;
  __u16 port;
};

AMB_INLINE int behind(struct bpf_sock_addr *ctx, struct amb_ip peer, struct shown *shown) {
  if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_MPTCP) return 0;
  __u16 port = bpf_ntohs((__u16)ctx->user_port);
  struct amb_socket *socket = ctx->sk ? bpf_sk_storage_get(&sockets, ctx->sk, 0, 0) : 0;
  if (socket && socket->chosen_port == port && amb_ip_equal(&socket->chosen, &peer)) {
    *shown = (struct shown){socket->dialled, socket->dialled_port};
    return 1;
  }
  struct amb_client_key key = {bpf_get_netns_cookie(ctx), peer, port, 0};
  struct amb_client_value *client = bpf_map_lookup_elem(&clients, &key);
  if (!client) return 0;
  *shown = (struct shown){client->ip, client->port};
  return 1;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx) {
  struct shown shown;
  if (!behind(ctx, amb_ip_from_v4(ctx->user_ip4), &shown) ||
      !amb_ip_is_v4(&shown.ip)) // a v4 socket cannot show a v6 one
    return GO_ON;
  // Through volatile: two adjacent stores merged into one of 8 bytes are refused by the verifier.
  *(volatile __u32 *)&ctx->user_ip4 = shown.ip.word[3];
  *(volatile __u32 *)&ctx->user_port = bpf_htons(shown.port);
  amb_count(AMB_PEERNAME_SHOWN);
  return GO_ON;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx) {
  struct amb_ip peer = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
  struct shown shown;
  if (!behind(ctx, peer, &shown)) return GO_ON;
  *(volatile __u32 *)&ctx->user_ip6[0] = shown.ip.word[0];
  *(volatile __u32 *)&ctx->user_ip6[1] = shown.ip.word[1];
  *(volatile __u32 *)&ctx->user_ip6[2] = shown.ip.word[2];
  *(volatile __u32 *)&ctx->user_ip6[3] = shown.ip.word[3];
  *(volatile __u32 *)&ctx->user_port = bpf_htons(shown.port);
  amb_count(AMB_PEERNAME_SHOWN);
  return GO_ON;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
