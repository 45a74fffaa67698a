// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//
// cgroup/connect4 and connect6: mark the TCP sockets of enrolled pods before they send their SYN, so that the pod's own
// routing brings it back in to the outbound listener; or send them to their peer directly, where the agent has said so
// (direct.h). Gathers facts, obeys decide.h; decides nothing itself.
//
// Every program here is attached twice, as itself and as its spare, so that taking off either one changes nothing. All
// programs of a hook run, whatever the others said, and the work is idempotent: their order matters to nobody but the
// counters, where the spare counts only what it had to do because the first was not there.
#include "direct.h"

#include <bpf/bpf_endian.h>

enum { REFUSE_CONNECT = 0, ALLOW_CONNECT = 1 }; // what the hook returns: EPERM, go on
enum family { V4, V6 };

// A socket keeps its mark when a first connect failed, so it is taken back when the second is not ours.
AMB_INLINE int set_our_mark(struct bpf_sock_addr *ctx, __u32 ours) {
  __u32 old = ctx->sk ? ctx->sk->mark : 0;
  __u32 mark = (old & ~AMB_MARK_MASK) | ours;
  return mark == old ? 0 : bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
}

// Through volatile: two adjacent stores merged into one of 8 bytes are refused by the verifier.
AMB_INLINE void redirect(struct bpf_sock_addr *ctx, const struct amb_to *to, enum family family) {
  if (family == V4) {
    *(volatile __u32 *)&ctx->user_ip4 = to->ip.word[3];
  } else {
    *(volatile __u32 *)&ctx->user_ip6[0] = to->ip.word[0];
    *(volatile __u32 *)&ctx->user_ip6[1] = to->ip.word[1];
    *(volatile __u32 *)&ctx->user_ip6[2] = to->ip.word[2];
    *(volatile __u32 *)&ctx->user_ip6[3] = to->ip.word[3];
  }
  *(volatile __u32 *)&ctx->user_port = bpf_htons(to->port);
}

AMB_INLINE int on_connect(struct bpf_sock_addr *ctx, struct amb_ip ip, enum family family, enum place place) {
  struct amb_to to = {ip, bpf_ntohs((__u16)ctx->user_port)};
  __u64 cookie = bpf_get_netns_cookie(ctx);
  struct amb_connect_facts facts = {.pod = bpf_map_lookup_elem(&pods, &cookie), .to = ip};
  facts.enrolled = !facts.pod && amb_present(bpf_map_lookup_elem(&enrolled, &cookie));
  if (place == SPARE && facts.pod && amb_was_decided(ctx, &to)) return ALLOW_CONNECT;

  if (facts.pod || facts.enrolled) { // every other process on the node pays for two lookups only
    __u64 cgroup = bpf_get_current_cgroup_id();
    struct amb_port_key port = {cookie, to.port, AMB_OUTBOUND, 0};
    struct amb_cidr_key cidr = {AMB_CIDR_LONGEST, {}, ip};
    __builtin_memcpy(cidr.netns_cookie, &cookie, sizeof(cookie));
    facts.protocol = ctx->protocol;
    facts.bound_device = ctx->sk ? ctx->sk->bound_dev_if : 0;
    facts.exempt = amb_present(bpf_map_lookup_elem(&exempt, &cgroup));
    facts.port_excluded = amb_present(bpf_map_lookup_elem(&excluded_ports, &port));
    facts.cidr_excluded = amb_present(bpf_map_lookup_elem(&excluded_cidrs, &cidr));
  }

  __u32 mark = ctx->sk ? ctx->sk->mark : 0;
  struct amb_decision decision = amb_decide_connect(&facts);
  if (decision.verdict == AMB_MARK_IT)
    decision = amb_past_engine(ctx, cookie, &to, place);
  else if (facts.pod)
    amb_forget_socket(ctx);

  if (decision.verdict == AMB_GO_DIRECT) redirect(ctx, &to, family);
  if (decision.verdict == AMB_MARK_IT || decision.verdict == AMB_GO_DIRECT) {
    __u32 ours = decision.verdict == AMB_MARK_IT ? AMB_MARK : AMB_MARK_DIRECT;
    if (set_our_mark(ctx, ours)) { // fails closed: unmarked it would leave in plaintext
      decision.verdict = AMB_REFUSE;
      decision.reason = AMB_CONNECT_MARK_FAILED;
    } else if (place == SPARE && (mark & AMB_MARK_MASK) != ours) {
      amb_count(AMB_CONNECT_SPARE);
    }
  } else if (decision.verdict == AMB_LEAVE && facts.pod && amb_mark_is_ours(mark)) {
    set_our_mark(ctx, 0); // if it fails the connection is captured after all: closed, too
  }
  if (place == FIRST) amb_count(decision.reason);
  return decision.verdict == AMB_REFUSE ? REFUSE_CONNECT : ALLOW_CONNECT;
}

AMB_INLINE int on_connect4(struct bpf_sock_addr *ctx, enum place place) {
  return on_connect(ctx, amb_ip_from_v4(ctx->user_ip4), V4, place);
}

AMB_INLINE int on_connect6(struct bpf_sock_addr *ctx, enum place place) {
  struct amb_ip to = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
  return on_connect(ctx, to, V6, place);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx) { return on_connect4(ctx, FIRST); }

SEC("cgroup/connect4")
int connect4_spare(struct bpf_sock_addr *ctx) { return on_connect4(ctx, SPARE); }

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx) { return on_connect6(ctx, FIRST); }

SEC("cgroup/connect6")
int connect6_spare(struct bpf_sock_addr *ctx) { return on_connect6(ctx, SPARE); }

char LICENSE[] SEC("license") = "Dual BSD/GPL";
