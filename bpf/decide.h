/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * What to do with a connect, a SYN and a socket option: pure functions of facts. No maps, no helpers, no context here,
 * so that the truth tables are tested natively, without a kernel; the programs gather the facts and obey.
 */
#ifndef AMB_BPF_DECIDE_H
#define AMB_BPF_DECIDE_H

#include "abi.h"
#include <asm/socket.h>
#include <linux/bpf.h>
#include <linux/in.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#ifdef __BYTE_ORDER__
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define amb_net32(x) __builtin_bswap32(x)
#else
#define amb_net32(x) (x)
#endif
#endif

#define AMB_INLINE           static inline __attribute__((always_inline))
#define AMB_LOOPBACK_IFINDEX 1 /* lo is made with its network namespace, always the first */

enum place { FIRST, SPARE }; /* a program that is attached twice knows as which it runs */

/* Addresses */

AMB_INLINE struct amb_ip amb_ip_from_v4(__u32 network_order) {
  return (struct amb_ip){{0, 0, amb_net32(0xffff), network_order}};
}

AMB_INLINE int amb_ip_is_v4(const struct amb_ip *ip) {
  return !ip->word[0] && !ip->word[1] && ip->word[2] == amb_net32(0xffff);
}

/* Without a branch: the verifier follows each through all that comes behind it, once for every pod's own program, and
 * an agent's start waits for that. 0: they are the same. */
AMB_INLINE __u64 amb_ip_difference(const struct amb_ip *a, const struct amb_ip *b) {
  return (a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) | (a->word[3] ^ b->word[3]);
}

AMB_INLINE int amb_ip_equal(const struct amb_ip *a, const struct amb_ip *b) { return !amb_ip_difference(a, b); }

AMB_INLINE int amb_ip_is_loopback(const struct amb_ip *ip) {
  if (amb_ip_is_v4(ip)) return (ip->word[3] & amb_net32(0xff000000)) == amb_net32(0x7f000000);
  return !ip->word[0] && !ip->word[1] && !ip->word[2] && ip->word[3] == amb_net32(1);
}

AMB_INLINE int amb_ip_is_unspecified(const struct amb_ip *ip) {
  return !ip->word[0] && !ip->word[1] && (!ip->word[2] || amb_ip_is_v4(ip)) && !ip->word[3];
}

AMB_INLINE int amb_ip_is_v6_link_local(const struct amb_ip *ip) {
  return (ip->word[0] & amb_net32(0xffc00000)) == amb_net32(0xfe800000);
}

AMB_INLINE int amb_pod_owns(const struct amb_pod *pod, const struct amb_ip *ip) {
  __u64 owns = 0; /* its highest bit: that of a difference of numbers, where the first one is the smaller */
#pragma unroll
  for (__u64 i = 0; i < AMB_POD_ADDRESSES; i++)
    owns |= (i - pod->addresses) & (amb_ip_difference(&pod->address[i], ip) - 1);
  return owns >> 63;
}

/* Outbound: connect() */

enum amb_action {
  AMB_LEAVE,     /* not ours: let it go as it is */
  AMB_MARK_IT,   /* ours: mark the socket, so that its SYN comes back in to the outbound listener */
  AMB_REFUSE,    /* it would escape, or must not be: EPERM to the application */
  AMB_GO_DIRECT, /* to the chosen endpoint, which will let in what is announced to it */
};

struct amb_connect_facts {
  const struct amb_pod *pod; /* NULL: this network namespace is not enrolled, or its entry is gone */
  struct amb_ip to;
  __u32 protocol;
  __u32 bound_device; /* interface index; 0: none */
  __u8 enrolled;      /* known without the pod's entry; looked up only when that is missing */
  __u8 exempt;        /* the caller is in the engine's cgroup */
  __u8 port_excluded;
  __u8 cidr_excluded;
};

struct amb_decision {
  enum amb_action verdict;
  enum amb_reason reason;
};

AMB_INLINE struct amb_decision amb_decide_connect(const struct amb_connect_facts *facts) {
#define AMB_DECIDE(verdict, reason)                                                                                    \
  return (struct amb_decision) { verdict, reason }
  if (!facts->pod && !facts->enrolled) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_NOT_ENROLLED);
  if (facts->protocol != IPPROTO_TCP && facts->protocol != IPPROTO_MPTCP) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_NOT_TCP);
  if (facts->pod && !(facts->pod->flags & AMB_POD_CAPTURE)) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_NOT_CAPTURING);
  if (facts->exempt) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_EXEMPT);
  if (amb_ip_is_loopback(&facts->to)) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_LOOPBACK);
  if (amb_ip_is_unspecified(&facts->to)) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_UNSPECIFIED);
  /* Whether it was capturing, and what its addresses are, nobody knows any more: nothing leaves in plaintext. */
  if (!facts->pod) AMB_DECIDE(AMB_REFUSE, AMB_CONNECT_NO_POD);
  if (amb_pod_owns(facts->pod, &facts->to)) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_OWN_ADDRESS);
  if (facts->port_excluded) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_EXCLUDED_PORT);
  if (facts->cidr_excluded) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_EXCLUDED_CIDR);
  /* Routing obeys the device before it obeys the mark: such a socket would leave in plaintext. */
  if (facts->bound_device) AMB_DECIDE(AMB_REFUSE, AMB_CONNECT_BOUND_DEVICE);
  /* A link-local destination brings its device along, as the scope; the kernel binds the socket after this hook. */
  if (amb_ip_is_v6_link_local(&facts->to)) AMB_DECIDE(AMB_REFUSE, AMB_CONNECT_LINK_LOCAL);
  AMB_DECIDE(AMB_MARK_IT, AMB_CONNECT_CAPTURED);
#undef AMB_DECIDE
}

/* Outbound, past the engine: connect() of what would be marked, where the agent has left a verdict */

struct amb_direct_facts {
  __u32 protocol;
  __u32 kind;     /* enum amb_kind; 0: no verdict, or one that has just been taken back */
  __u8 expired;   /* nobody has been there for long who could take the verdict back */
  __u8 room;      /* for its record, besides those of all connections that live */
  __u8 remote;    /* the chosen endpoint is the engine's to reach; or there is none */
  __u8 reachable; /* it has the family of what was dialled, and its pod, which is another one, is captured */
};

AMB_INLINE struct amb_decision amb_decide_direct(const struct amb_direct_facts *facts) {
#define AMB_DECIDE(verdict, reason)                                                                                    \
  return (struct amb_decision) { verdict, reason }
  /* Of an MPTCP socket each subflow is one of its own: the engine takes them all. */
  if (facts->protocol != IPPROTO_TCP) AMB_DECIDE(AMB_MARK_IT, AMB_CONNECT_CAPTURED);
  if (facts->expired) AMB_DECIDE(AMB_MARK_IT, AMB_CONNECT_EXPIRED);
  if (facts->kind == AMB_KIND_REFUSE) AMB_DECIDE(AMB_REFUSE, AMB_CONNECT_DENIED);
  if (facts->kind != AMB_KIND_DIRECT && facts->kind != AMB_KIND_PASS) AMB_DECIDE(AMB_MARK_IT, AMB_CONNECT_CAPTURED);
  if (facts->kind == AMB_KIND_DIRECT && facts->remote) AMB_DECIDE(AMB_MARK_IT, AMB_CONNECT_CAPTURED);
  if (!facts->room) AMB_DECIDE(AMB_MARK_IT, AMB_CONNECT_NO_ROOM);
  if (facts->kind == AMB_KIND_PASS) AMB_DECIDE(AMB_LEAVE, AMB_CONNECT_PASSED);
  if (!facts->reachable) AMB_DECIDE(AMB_MARK_IT, AMB_CONNECT_NO_SERVER);
  AMB_DECIDE(AMB_GO_DIRECT, AMB_CONNECT_DIRECT);
#undef AMB_DECIDE
}

/* Which endpoint, by weight; AMB_ENDPOINTS: none. `random` is any number of 32 bits. */
AMB_INLINE __u32 amb_choose(const struct amb_verdict *verdict, __u32 random) {
  if (!verdict->weight) return AMB_ENDPOINTS;
  __u32 at = random % verdict->weight;
  for (__u32 i = 0; i < AMB_ENDPOINTS && i < verdict->count; i++) {
    if (at < verdict->endpoint[i].weight) return i;
    at -= verdict->endpoint[i].weight;
  }
  return AMB_ENDPOINTS;
}

/* Outbound, later on: setsockopt() of a socket that may be captured */

struct amb_setsockopt_facts {
  __u32 option;                /* one that reroutes */
  __u32 protocol, state, mark; /* the socket's */
  __u8 enrolled;               /* its network namespace, by whichever entry is left */
  __u8 watched;                /* connect went by a verdict: it may have to be found and ended */
};

/* Routing obeys a device before it obeys the mark, and without the mark it knows nothing of us. Everything else that an
 * application may set leaves the mark's rule in force: tests/capture/test_late_options.py tries what could be thought
 * to do otherwise. */
AMB_INLINE int amb_option_reroutes(__u32 level, __u32 option) {
  return level == SOL_SOCKET && (option == SO_MARK || option == SO_BINDTODEVICE || option == SO_BINDTOIFINDEX);
}

AMB_INLINE int amb_mark_is_ours(__u32 mark) {
  return (mark & AMB_MARK_MASK) == AMB_MARK || (mark & AMB_MARK_MASK) == AMB_MARK_DIRECT;
}

/* Before it connects a socket may be bound and marked as it likes: the connect hook judges that. Of an MPTCP socket the
 * subflow bears the mark, which is not to be seen from here: every connected one counts. */
AMB_INLINE int amb_is_captured(const struct amb_setsockopt_facts *facts) {
  if (!facts->enrolled || facts->state == BPF_TCP_CLOSE || facts->state == BPF_TCP_LISTEN) return 0;
  if (facts->protocol == IPPROTO_MPTCP) return 1;
  /* What was left alone is in the clear on any device. But bound to one it is found only by who guesses which. */
  if (facts->watched && facts->option != SO_MARK) return 1;
  return facts->protocol == IPPROTO_TCP && amb_mark_is_ours(facts->mark);
}

/* Of options that reroute. No value of them is let pass: a device is one too many, and of a mark that keeps our bits
 * the application would have to know them. */
AMB_INLINE struct amb_decision amb_decide_setsockopt(const struct amb_setsockopt_facts *facts) {
#define AMB_DECIDE(verdict, reason)                                                                                    \
  return (struct amb_decision) { verdict, reason }
  if (!amb_is_captured(facts)) AMB_DECIDE(AMB_LEAVE, AMB_SETSOCKOPT_NOT_CAPTURED);
  if (facts->option == SO_MARK) AMB_DECIDE(AMB_REFUSE, AMB_SETSOCKOPT_MARK);
  AMB_DECIDE(AMB_REFUSE, AMB_SETSOCKOPT_DEVICE);
#undef AMB_DECIDE
}

/* Inbound, and outbound on its way back in: a SYN looks for a listener */

enum amb_lookup_verdict {
  AMB_PASS,   /* to whom it would go without us */
  AMB_ASSIGN, /* to our listener of that role */
  AMB_DROP,   /* RST */
};

struct amb_lookup_facts {
  const struct amb_pod *pod; /* NULL: the entry is gone */
  struct amb_ip remote, local;
  __u32 ingress_ifindex;
  __u16 local_port;
  __u8 port_excluded;
  __u8 probe;     /* from one of this node's own addresses, to a port that a probe of the pod names */
  __u8 announced; /* see amb_admits */
};

/* Whether a client of this node's own has announced this very connection, to this pod, under a verdict that holds at
 * this moment: the one it connected by may have been taken back since. `taken`: another program gave the SYN to
 * somebody. */
AMB_INLINE int amb_admits(const struct amb_flow *flow, __u64 netns_cookie, const struct amb_verdict *verdict,
                          __u8 taken) {
  return flow->kind == AMB_KIND_DIRECT && flow->server == netns_cookie && verdict && verdict->kind == AMB_KIND_DIRECT &&
         verdict->number == flow->number && !taken;
}

struct amb_lookup_decision {
  enum amb_lookup_verdict verdict;
  enum amb_reason reason;
  enum amb_role role; /* of AMB_ASSIGN */
};

AMB_INLINE struct amb_lookup_decision amb_decide_lookup(const struct amb_lookup_facts *facts) {
#define AMB_DECIDE(verdict, reason, role)                                                                              \
  return (struct amb_lookup_decision) { verdict, reason, role }
  const struct amb_pod *pod = facts->pod;
  if (!pod)
    /* This program runs only in an enrolled namespace: without the entry we know nothing, so nothing gets in. */
    AMB_DECIDE(AMB_DROP, AMB_LOOKUP_NO_POD, 0);
  if (amb_ip_is_loopback(&facts->local)) {
    /* An application that dials our own listener would make the engine dial itself without end. */
    for (unsigned role = AMB_ROLE_OUTBOUND; role <= AMB_ROLE_INBOUND_PLAIN; role++)
      if (pod->listener_port[role] && pod->listener_port[role] == facts->local_port)
        AMB_DECIDE(AMB_DROP, AMB_LOOKUP_OWN_LISTENER, 0);
    AMB_DECIDE(AMB_PASS, AMB_LOOKUP_LOOPBACK, 0);
  }
  /* Came in over lo to an address that is not ours: only the mark's route brings such a SYN. The interface is the proof
   * that nobody outside sent it; not so a pod's call to itself, which shows the interface that has the address. */
  if (facts->ingress_ifindex == AMB_LOOPBACK_IFINDEX && !amb_pod_owns(pod, &facts->local) &&
      !amb_ip_equal(&facts->remote, &facts->local))
    AMB_DECIDE(AMB_ASSIGN, AMB_LOOKUP_OUTBOUND, AMB_ROLE_OUTBOUND);
  if (!(pod->flags & AMB_POD_CAPTURE)) AMB_DECIDE(AMB_PASS, AMB_LOOKUP_NOT_CAPTURING, 0);
  /* From outside, an own source is a forgery that cannot finish its handshake: the SYN-ACK stays in this namespace. */
  if (amb_ip_equal(&facts->remote, &facts->local) || amb_ip_is_loopback(&facts->remote) ||
      amb_pod_owns(pod, &facts->remote))
    AMB_DECIDE(AMB_PASS, AMB_LOOKUP_SELF, 0);
  /* From here on an address the mesh does not know (link-local, a second interface) is treated like the known ones. */
  if (facts->announced && facts->local_port != AMB_TUNNEL_PORT) AMB_DECIDE(AMB_PASS, AMB_LOOKUP_DIRECT, 0);
  if (facts->port_excluded) AMB_DECIDE(AMB_PASS, AMB_LOOKUP_EXCLUDED_PORT, 0);
  if (facts->local_port == AMB_TUNNEL_PORT) AMB_DECIDE(AMB_ASSIGN, AMB_LOOKUP_TUNNEL, AMB_ROLE_INBOUND_TUNNEL);
  /* kubelet's probes: whether the application listens, only the application can say. Our listener always does. */
  if (facts->probe) AMB_DECIDE(AMB_PASS, AMB_LOOKUP_NODE, 0);
  AMB_DECIDE(AMB_ASSIGN, AMB_LOOKUP_PLAIN, AMB_ROLE_INBOUND_PLAIN);
#undef AMB_DECIDE
}

#endif
