// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//
// sk_lookup: give a SYN that looks for a listener in an enrolled network namespace to the engine's listener for it.
// Runs for SYNs only; established traffic never comes here. Gathers facts, obeys decide.h; decides nothing itself.
//
// Attached twice, as `lookup` and as its spare, so that taking off either one changes nothing. The kernel runs both; a
// chosen socket wins over a drop, a drop over a plain pass, and both choose the same. The spare counts only what it had
// to do because the first was not there.
#include "decide.h"
#include "maps.h"

#include <bpf/bpf_endian.h>

#define AF_INET 2

// Which namespace this instance of the program is attached to. The kernel tells cgroup programs, but not this type.
const volatile __u64 netns_cookie = 0;

AMB_INLINE int drop(enum place place, enum amb_reason reason) {
  if (place == FIRST) amb_count(reason);
  return SK_DROP; // fails closed: a RST to who came from outside, silence (so, retries) to a captured connect
}

AMB_INLINE int on_syn(struct bpf_sk_lookup *ctx, enum place place) {
  if (ctx->protocol != IPPROTO_TCP) return SK_PASS;

  __u64 cookie = netns_cookie;
  struct amb_lookup_facts facts = {
      .pod = bpf_map_lookup_elem(&pods, &cookie),
      .ingress_ifindex = ctx->ingress_ifindex,
      .local_port = ctx->local_port,
  };
  if (ctx->family == AF_INET) {
    facts.remote = amb_ip_from_v4(ctx->remote_ip4);
    facts.local = amb_ip_from_v4(ctx->local_ip4);
    barrier(); // else clang makes one load of both branches', through a moved ctx, which the verifier refuses
  } else {
    facts.remote = (struct amb_ip){{ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2], ctx->remote_ip6[3]}};
    facts.local = (struct amb_ip){{ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2], ctx->local_ip6[3]}};
  }
  struct amb_flow_key key = {facts.remote, facts.local, bpf_ntohs((__u16)ctx->remote_port), ctx->local_port};
  struct amb_flow *flow = bpf_map_lookup_elem(&flows, &key);
  __u64 started = flow ? flow->started : 0;
  if (flow) {
    struct amb_verdict_key dialled = {flow->client, flow->dialled, flow->dialled_port, 0};
    facts.announced = amb_admits(flow, cookie, bpf_map_lookup_elem(&verdicts, &dialled), ctx->sk != 0);
    facts.announced &= amb_lease_holds();
  }
  if (!facts.announced) { // by whom it was announced it is not asked which port it is
    struct amb_port_key port = {cookie, ctx->local_port, AMB_INBOUND, 0};
    struct amb_port_key probed = {cookie, ctx->local_port, AMB_PROBED, 0};
    facts.port_excluded = amb_present(bpf_map_lookup_elem(&excluded_ports, &port));
    __u8 a_probes_port = amb_present(bpf_map_lookup_elem(&excluded_ports, &probed));
    facts.probe = a_probes_port && amb_present(bpf_map_lookup_elem(&node_addresses, &facts.remote));
  }

  struct amb_lookup_decision decision = amb_decide_lookup(&facts);
  // Taken back, too: what a first program let in its spare may have refused since. A name of its own rather than a
  // flag, because the entry may be another flow's by now.
  // Only of a flow to this pod: any pod may have its address, and a SYN to that.
  if (flow && flow->server == cookie) flow->admitted = decision.reason == AMB_LOOKUP_DIRECT ? started : 0;
  if (decision.verdict == AMB_DROP) return drop(place, decision.reason);
  if (decision.verdict == AMB_ASSIGN) {
    struct amb_listener_key key = {cookie, decision.role, 0};
    struct bpf_sock *listener = bpf_map_lookup_elem(&listeners, &key);
    if (!listener) return drop(place, AMB_LOOKUP_NO_LISTENER);
    __u8 chosen = ctx->sk != 0;
    // NO_REUSEPORT: else a reuseport group of an older listener would keep choosing after it was replaced.
    // REPLACE: whoever chose before, it must be this listener.
    long error = bpf_sk_assign(ctx, listener, BPF_SK_LOOKUP_F_NO_REUSEPORT | BPF_SK_LOOKUP_F_REPLACE);
    bpf_sk_release(listener);
    if (error) return drop(place, AMB_LOOKUP_ASSIGN_FAILED);
    if (place == SPARE && !chosen) amb_count(AMB_LOOKUP_SPARE);
  }
  if (place == FIRST) amb_count(decision.reason);
  return SK_PASS;
}

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx) { return on_syn(ctx, FIRST); }

SEC("sk_lookup")
int lookup_spare(struct bpf_sk_lookup *ctx) { return on_syn(ctx, SPARE); }

char LICENSE[] SEC("license") = "Dual BSD/GPL";
