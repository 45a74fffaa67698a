/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * What the eBPF programs and user space agree on: every struct in a map, every number with a meaning.
 * ambient/capture/abi.py mirrors this file; a test compares sizes, offsets and enumerators.
 * A change here that an older program or agent would misread needs a new AMB_ABI_VERSION.
 *
 * One address type: 16 bytes, network order, IPv4 as ::ffff:a.b.c.d. Ports are in host order.
 */
#ifndef AMB_BPF_ABI_H
#define AMB_BPF_ABI_H

#include <linux/types.h>

#define AMB_ABI_VERSION 1 /* names the pin directory: ambient-v1 */

#define AMB_MARK        0x53a /* SO_MARK of a captured socket ... */
#define AMB_MARK_DIRECT 0x53b /* of one that goes to its peer directly: no rule knows it ... */
#define AMB_MARK_MASK   0xfff /* ... in these bits; the others stay the application's */
#define AMB_TUNNEL_PORT 15008

#define AMB_POD_ADDRESSES 8    /* a pod has one or two; more only with several interfaces */
#define AMB_MAX_PODS      4096 /* per node; Kubernetes' own limit is some hundreds */
#define AMB_COUNTERS      64   /* room for reasons to come: a pinned map cannot grow */

struct amb_ip {
  __u32 word[4]; /* network order */
};

enum amb_role {
  AMB_ROLE_OUTBOUND = 1,       /* what the pod's applications dial */
  AMB_ROLE_INBOUND_TUNNEL = 2, /* HBONE to the pod */
  AMB_ROLE_INBOUND_PLAIN = 3,  /* anything else to the pod */
};

enum amb_direction {
  AMB_OUTBOUND = 1,
  AMB_INBOUND = 2,
  AMB_PROBED = 3, /* inbound, if it comes from the node itself */
};

enum amb_pod_flag {
  AMB_POD_CAPTURE = 1, /* without it the pod is known but left alone: being enrolled, or un-enrolled */
};

/* `pods`: one enrolled network namespace. Written whole, so a program sees the old or the new one. */
struct amb_pod {
  __u32 flags;            /* enum amb_pod_flag */
  __u32 addresses;        /* how many of address[] */
  __u16 listener_port[4]; /* indexed by role: where our listeners are bound; nobody may dial them directly */
  struct amb_ip address[AMB_POD_ADDRESSES];
};

/* `excluded_ports`: presence is the meaning. */
struct amb_port_key {
  __u64 netns_cookie;
  __u16 port;
  __u16 direction; /* enum amb_direction */
  __u32 zero;
};

/* `excluded_cidrs`: presence is the meaning. prefix_len counts the cookie's 64 bits too. The cookie
 * is two words because a trie's key has no gap. */
struct amb_cidr_key {
  __u32 prefix_len;
  __u32 netns_cookie[2]; /* its 8 bytes in memory order */
  struct amb_ip ip;
};

#define AMB_CIDR_LONGEST (64 + 128) /* prefix_len of one address */

/* `listeners`: value is the socket. */
struct amb_listener_key {
  __u64 netns_cookie;
  __u32 role; /* enum amb_role */
  __u32 zero;
};

/* `clients`: who is really behind a connection that the engine dialled. engine/abi.h has the same two structs. */
struct amb_client_key {
  __u64 netns_cookie;
  struct amb_ip ip; /* the dialled socket's own address */
  __u32 port;       /* and port */
  __u32 zero;
};

struct amb_client_value {
  struct amb_ip ip;
  __u32 port;
  __u32 writer; /* pid of the engine: when it dies, its rows are void */
};

/* The direct path */

#define AMB_ENDPOINTS    16 /* of one verdict; a larger service goes through the engine, which asks again and again */
#define AMB_MAX_VERDICTS 65536
#define AMB_MAX_FLOWS    16384 /* live at one time; what is beyond goes through the engine */
#define AMB_SEATS        4096  /* of one pod's live ones: nobody has more than a quarter of what is there for all */
#define AMB_SEAT_TRIES   8     /* of 2,048 one in 256 finds no seat, of 3,072 one in ten */
#define AMB_RING_BYTES                                                                                                 \
  (4 << 20)               /* of `ended`: half for the records of all live flows, half for what waits to be read */
#define AMB_RING_HEADER 8 /* the kernel's, before each record */
#define AMB_RING_SLACK                                                                                                 \
  1024 /* records of flows that are being announced at this moment: fewer than threads in connect() */

enum amb_kind {
  AMB_KIND_DIRECT = 1, /* to one of the endpoints, those on this node without a proxy */
  AMB_KIND_PASS = 2,   /* unknown to the mesh: left alone */
  AMB_KIND_REFUSE = 3, /* EPERM */
};

/* `verdicts`: what an enrolled pod dials. */
struct amb_verdict_key {
  __u64 client; /* netns cookie */
  struct amb_ip ip;
  __u32 port;
  __u32 zero;
};

struct amb_endpoint {
  struct amb_ip ip;
  __u32 port;
  __u32 weight; /* share of the verdict's total */
  __u64 server; /* netns cookie of its pod; 0: not on this node, or not to be reached directly: through the engine */
};

/* Presence is validity, while `lease` lasts. `number` is the agent's decision; no other verdict may ever have the same
 * while the machine runs, because by it programs tell whether what they read a moment ago still holds. */
struct amb_verdict {
  __u64 number;
  __u32 kind;   /* enum amb_kind */
  __u32 count;  /* how many of endpoint[]; 0 unless DIRECT */
  __u32 weight; /* total */
  __u32 zero;
  struct amb_endpoint endpoint[AMB_ENDPOINTS];
};

/* `flows`: one connection past the engine, as its client sees it. */
struct amb_flow_key {
  struct amb_ip source, destination;
  __u16 source_port, destination_port;
};

struct amb_flow {
  __u64 client, server; /* netns cookies; server 0: PASS */
  __u64 number;
  __u64 started;     /* ns of CLOCK_MONOTONIC, as all times here */
  __u64 established; /* 0: not (yet) */
  __u64 admitted;    /* equal to `started`: the server's socket lookup let it in to the application */
  struct amb_ip dialled;
  __u16 dialled_port;
  __u8 kind; /* enum amb_kind */
  __u8 zero;
  __u32 zero_too;
};

/* `sockets`: what the connect hook decided for a socket. The kernel's only; lives as long as the socket. */
struct amb_socket {
  __u64 client, server, number;
  __u64 started; /* 0: not announced */
  struct amb_ip dialled, chosen;
  __u16 dialled_port, chosen_port;
  __u8 kind;   /* enum amb_kind */
  __u8 fresh;  /* written by the first program of this very connect(), for its spare to take over */
  __u8 remote; /* the endpoint that was chosen is the engine's to reach */
  __u8 zero;
  struct amb_flow_key flow; /* once it is announced */
  __u32 seat;               /* likewise: `seats` */
};

/* `seats`: a pod's flows have a seat each. */
struct amb_seat {
  __u64 client;
  __u32 number; /* from 1 to AMB_SEATS */
  __u32 zero;
};

enum amb_ended_state {
  AMB_ENDED_ADMITTED = 1,
  AMB_ENDED_SEALED = 2, /* established without being admitted: whatever it sends is routed to the engine */
};

/* `ended`: one connection past the engine is over, or one was refused (REFUSE: no flow, no bytes, times equal). */
struct amb_ended {
  __u64 client, server, number;
  __u64 started, established, ended;
  __u64 bytes_out, bytes_in; /* acknowledged by the server; received from it */
  struct amb_flow_key flow;
  struct amb_ip dialled;
  __u16 dialled_port;
  __u16 error; /* the socket's pending errno: ECONNRESET when the server reset it, ECONNABORTED when it was destroyed */
  __u8 kind;   /* enum amb_kind */
  __u8 state;  /* flags, enum amb_ended_state */
  __u8 last;   /* TCP state before the end: who closed first (linux/bpf.h, BPF_TCP_*) */
  __u8 zero;
  __u32 zero_too;
};

/* Unread bytes in `ended` up to which more may begin: then all that live find room when they end. */
#define AMB_RING_BACKLOG                                                                                               \
  (AMB_RING_BYTES - (AMB_MAX_FLOWS + AMB_RING_SLACK) * (sizeof(struct amb_ended) + AMB_RING_HEADER))

/* Why a program did what it did: the index into `counters`, and in lower case without AMB_ the metric's label.
 * Append only: pinned counters outlive programs.
 */
enum amb_reason {
  /* connect */
  AMB_CONNECT_NOT_ENROLLED,
  AMB_CONNECT_NOT_CAPTURING, /* enrolled once, or not yet */
  AMB_CONNECT_NOT_TCP,
  AMB_CONNECT_EXEMPT, /* the engine */
  AMB_CONNECT_LOOPBACK,
  AMB_CONNECT_UNSPECIFIED, /* the kernel takes it for loopback */
  AMB_CONNECT_OWN_ADDRESS,
  AMB_CONNECT_EXCLUDED_PORT,
  AMB_CONNECT_EXCLUDED_CIDR,
  AMB_CONNECT_CAPTURED,
  AMB_CONNECT_BOUND_DEVICE, /* refused */
  AMB_CONNECT_LINK_LOCAL,   /* refused */
  AMB_CONNECT_MARK_FAILED,  /* refused */
  /* socket lookup */
  AMB_LOOKUP_NOT_CAPTURING,
  AMB_LOOKUP_LOOPBACK,
  AMB_LOOKUP_SELF,
  AMB_LOOKUP_EXCLUDED_PORT,
  AMB_LOOKUP_OUTBOUND,
  AMB_LOOKUP_TUNNEL,
  AMB_LOOKUP_PLAIN,
  AMB_LOOKUP_NO_POD,        /* refused */
  AMB_LOOKUP_OWN_LISTENER,  /* refused */
  AMB_LOOKUP_NO_LISTENER,   /* refused */
  AMB_LOOKUP_ASSIGN_FAILED, /* refused */
  /* getpeername, accept */
  AMB_PEERNAME_SHOWN,
  /* later ones */
  AMB_CONNECT_NO_POD, /* refused: enrolled, and the entry is gone */
  AMB_CONNECT_SPARE,  /* captured by the spare program: the first one is not attached */
  AMB_LOOKUP_SPARE,   /* likewise */
  /* setsockopt, of the options that choose a route */
  AMB_SETSOCKOPT_NOT_CAPTURED,
  AMB_SETSOCKOPT_DEVICE, /* refused */
  AMB_SETSOCKOPT_MARK,   /* refused */
  AMB_SETSOCKOPT_SPARE,  /* refused by the spare program: the first one is not attached */
  AMB_LOOKUP_NODE,       /* from the pod's own node: probes, host processes */
  AMB_CONNECT_DIRECT,    /* to a pod of this node, past the engine */
  AMB_CONNECT_PASSED,    /* to what the mesh does not know */
  AMB_CONNECT_DENIED,    /* refused: the verdict says so */
  AMB_CONNECT_EXPIRED,   /* captured: by a verdict that no agent has stood by for too long */
  AMB_CONNECT_NO_ROOM,   /* captured: its record might find no room */
  AMB_CONNECT_NO_SERVER, /* captured: the verdict's endpoint is not captured (any more), or of another family */
  AMB_CONNECT_DIVERTED,  /* captured at the last moment: not to be announced, or it would send data unasked */
  AMB_LOOKUP_DIRECT,     /* announced by this node's connect hook, and still allowed */
  AMB_FLOW_SEALED,       /* established without having been admitted: no byte leaves */
  AMB_FLOW_UNTOLD,       /* ended, and there was no room to tell the agent: never */
  AMB_FLOW_STOPPED,      /* could not be marked for the engine, so bound to where nothing leaves: never */
  AMB_FLOW_LOOSE,        /* nor could that be done: never */

  AMB_REASONS
};

_Static_assert(AMB_REASONS <= AMB_COUNTERS, "a reason without a counter");

#endif
