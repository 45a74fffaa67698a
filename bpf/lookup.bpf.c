// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//
// sk_lookup: give a SYN that looks for a listener in an enrolled network namespace to the engine's listener for it.
// Runs for SYNs only; established traffic never comes here. Gathers facts, obeys decide.h; decides nothing itself.
#include "decide.h"
#include "maps.h"

#include <bpf/bpf_endian.h>

#define AF_INET 2

// Which namespace this instance of the program is attached to. The kernel tells cgroup programs, but not this type.
const volatile __u64 netns_cookie = 0;

AMB_INLINE int drop(enum amb_reason reason) {
  amb_count(reason);
  return SK_DROP; // fails closed: a RST to who came from outside, silence (so, retries) to a captured connect
}

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx) {
  if (ctx->protocol != IPPROTO_TCP) return SK_PASS;

  __u64 cookie = netns_cookie;
  struct amb_port_key port = {cookie, ctx->local_port, AMB_INBOUND, 0};
  struct amb_lookup_facts facts = {
      .pod = bpf_map_lookup_elem(&pods, &cookie),
      .ingress_ifindex = ctx->ingress_ifindex,
      .local_port = ctx->local_port,
      .port_excluded = bpf_map_lookup_elem(&excluded_ports, &port) != 0,
  };
  if (ctx->family == AF_INET) {
    facts.remote = amb_ip_from_v4(ctx->remote_ip4);
    facts.local = amb_ip_from_v4(ctx->local_ip4);
  } else {
    facts.remote = (struct amb_ip){{ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2], ctx->remote_ip6[3]}};
    facts.local = (struct amb_ip){{ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2], ctx->local_ip6[3]}};
  }

  struct amb_lookup_decision decision = amb_decide_lookup(&facts);
  if (decision.verdict == AMB_DROP) return drop(decision.reason);
  if (decision.verdict == AMB_ASSIGN) {
    struct amb_listener_key key = {cookie, decision.role, 0};
    struct bpf_sock *listener = bpf_map_lookup_elem(&listeners, &key);
    if (!listener) return drop(AMB_LOOKUP_NO_LISTENER);
    // Without the flag a reuseport group of an older listener would keep choosing after it was replaced.
    long error = bpf_sk_assign(ctx, listener, BPF_SK_LOOKUP_F_NO_REUSEPORT);
    bpf_sk_release(listener);
    if (error) return drop(AMB_LOOKUP_ASSIGN_FAILED);
  }
  amb_count(decision.reason);
  return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
