// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
//
// cgroup/setsockopt: a captured socket keeps the route it was given. Binding it to a device, or giving it another mark,
// would send what follows past the mesh, in plaintext; so that is refused. Gathers facts, obeys decide.h.
//
// The kernel calls this for every setsockopt() on the node, hence the first line. Attached twice, as itself and as its
// spare; the spare counts only what it had to refuse because the first was not there.
#include "decide.h"
#include "maps.h"

#define PAGE 4096 // the smallest there is

enum { REFUSE_OPTION = 0, ALLOW_OPTION = 1 }; // what the hook returns: EPERM, go on

// The program was shown a copy of the value, one page of it at most. Of a longer one the kernel is told to take the
// application's own: before 6.5 it failed the call otherwise. Of others it is not: that would undo what another program
// of this hook may have written.
AMB_INLINE int allow(struct bpf_sockopt *ctx) {
  if (ctx->optlen > PAGE) ctx->optlen = 0;
  return ALLOW_OPTION;
}

AMB_INLINE int on_setsockopt(struct bpf_sockopt *ctx, enum place place) {
  if (!amb_option_reroutes(ctx->level, ctx->optname)) return allow(ctx);

  struct bpf_sock *sk = ctx->sk;
  if (!sk) return allow(ctx); // never: the verifier wants to hear it
  __u64 cookie = bpf_get_netns_cookie(ctx);
  struct amb_setsockopt_facts facts = {
      .option = ctx->optname,
      .protocol = sk->protocol,
      .state = sk->state,
      .mark = sk->mark,
      .enrolled =
          amb_present(bpf_map_lookup_elem(&pods, &cookie)) || amb_present(bpf_map_lookup_elem(&enrolled, &cookie)),
      .watched = amb_present(bpf_sk_storage_get(&sockets, sk, 0, 0)),
  };
  struct amb_decision decision = amb_decide_setsockopt(&facts);
  if (place == FIRST) amb_count(decision.reason);
  if (decision.verdict != AMB_REFUSE) return allow(ctx);
  if (place == SPARE && !bpf_get_retval()) amb_count(AMB_SETSOCKOPT_SPARE);
  return REFUSE_OPTION;
}

SEC("cgroup/setsockopt")
int setsockopt(struct bpf_sockopt *ctx) { return on_setsockopt(ctx, FIRST); }

SEC("cgroup/setsockopt")
int setsockopt_spare(struct bpf_sockopt *ctx) { return on_setsockopt(ctx, SPARE); }

char LICENSE[] SEC("license") = "Dual BSD/GPL";
