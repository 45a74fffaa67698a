// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//
// cgroup/getpeername4 and 6: an application that the engine dialled on behalf of a client sees that client. The kernel
// asks the same hook for accept(). Only shows names; who may connect is decided elsewhere.
#include "decide.h"
#include "maps.h"

#include <bpf/bpf_endian.h>

enum { GO_ON = 1 }; // the only return value the hook has

AMB_INLINE struct amb_client_value *client_behind(struct bpf_sock_addr *ctx, struct amb_ip peer) {
  if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_MPTCP) return 0;
  struct amb_client_key key = {bpf_get_netns_cookie(ctx), peer, bpf_ntohs((__u16)ctx->user_port), 0};
  return bpf_map_lookup_elem(&clients, &key);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx) {
  struct amb_client_value *client = client_behind(ctx, amb_ip_from_v4(ctx->user_ip4));
  if (!client || !amb_ip_is_v4(&client->ip)) // a v4 socket cannot show a v6 client
    return GO_ON;
  // Through volatile: two adjacent stores merged into one of 8 bytes are refused by the verifier.
  *(volatile __u32 *)&ctx->user_ip4 = client->ip.word[3];
  *(volatile __u32 *)&ctx->user_port = bpf_htons((__u16)client->port);
  amb_count(AMB_PEERNAME_SHOWN);
  return GO_ON;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx) {
  struct amb_ip peer = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
  struct amb_client_value *client = client_behind(ctx, peer);
  if (!client) return GO_ON;
  *(volatile __u32 *)&ctx->user_ip6[0] = client->ip.word[0];
  *(volatile __u32 *)&ctx->user_ip6[1] = client->ip.word[1];
  *(volatile __u32 *)&ctx->user_ip6[2] = client->ip.word[2];
  *(volatile __u32 *)&ctx->user_ip6[3] = client->ip.word[3];
  *(volatile __u32 *)&ctx->user_port = bpf_htons((__u16)client->port);
  amb_count(AMB_PEERNAME_SHOWN);
  return GO_ON;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
