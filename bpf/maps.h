/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * Every map, once. User space creates them with the first program, pins them under <bpffs>/ambient-v1/maps/ and hands
 * the same ones to every further program, so all programs share them across restarts.
 */
#ifndef AMB_BPF_MAPS_H
#define AMB_BPF_MAPS_H

#include "abi.h"
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* netns cookie -> an enrolled pod. Written by the agent (the flag last: the commit point of enrolling, the first step
 * of leaving). Read by connect, setsockopt and lookup. Dies with forget(), or at the agent's start when the namespace
 * is gone. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, AMB_MAX_PODS);
  __type(key, __u64);
  __type(value, struct amb_pod);
} pods SEC(".maps");

/* netns cookie of every pod: presence is the meaning, so that an enrolled pod whose entry in `pods` vanished is told
 * from one that never was enrolled. Written by the agent before the flag in `pods` is set, deleted after it is taken
 * back and before the entry goes, so that being enrolled or un-enrolled refuses nothing. Read by connect and
 * setsockopt. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, AMB_MAX_PODS);
  __type(key, __u64);
  __type(value, __u32);
} enrolled SEC(".maps");

/* Ports a pod's owner keeps out of the mesh, and those of its probes. Written by the agent, read by connect and lookup,
 * dies with its pod. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 65536);
  __type(key, struct amb_port_key);
  __type(value, __u32);
} excluded_ports SEC(".maps");

/* Destinations a pod's owner keeps out of the mesh. Written by the agent, read by connect, dies with its pod. */
struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 65536);
  __type(key, struct amb_cidr_key);
  __type(value, __u32);
} excluded_cidrs SEC(".maps");

/* This node's own addresses: presence is the meaning. Written by the agent, read by lookup. One that the agent does not
 * know (yet) is treated like everybody's. Room for every VIP: some kube-proxies give the node all of them. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 65536);
  __type(key, struct amb_ip);
  __type(value, __u32);
} node_addresses SEC(".maps");

/* {pod, role} -> listening socket. Written by the agent, read by lookup. An entry dies with its socket (that is, with
 * the last copy of it, in the agent or the engine), or with forget(). */
struct {
  __uint(type, BPF_MAP_TYPE_SOCKHASH);
  __uint(max_entries, AMB_MAX_PODS * 3);
  __type(key, struct amb_listener_key);
  __type(value, __u64); /* 8 bytes: user space may read the socket's cookie back */
} listeners SEC(".maps");

/* cgroup ids whose processes dial uncaptured: the engine's. Written by the agent, read by connect. An id is never used
 * again while the machine runs; entries of vanished cgroups go when the agent names the next. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 64);
  __type(key, __u64);
  __type(value, __u32);
} exempt SEC(".maps");

/* A dialled connection's near end -> the real client. Written by the engine before it connects and deleted by it when
 * the connection ends. Read by getpeername and accept. When full, the engine's write fails, not another's entry. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 262144);
  __type(key, struct amb_client_key);
  __type(value, struct amb_client_value);
} clients SEC(".maps");

/* {client pod, address, port} -> what the agent decided about connections there. Written and deleted by the agent,
 * which deletes at once what does not hold any more: presence is validity, a miss goes through the engine. Read by
 * connect, and again by lookup before a connection gets in. Dies with its pod at the latest, and with the next agent's
 * first configuration. An older agent's connect hook does not read it; the next agent that does begins with an empty
 * one. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, AMB_MAX_VERDICTS);
  __type(key, struct amb_verdict_key);
  __type(value, struct amb_verdict);
} verdicts SEC(".maps");

/* Its one entry: until when verdicts hold without another word of the agent, ns of CLOCK_BOOTTIME. Written by the agent
 * again and again as long as it lives, read by whoever reads `verdicts`: when nobody has been there for long who could
 * take them back they count as missing. 0, of a new map, is over. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u64);
} lease SEC(".maps");

/* A client's socket -> what connect decided for it. Written by connect and sockops, read by sockops and getpeername.
 * Dies with the socket, or when it connects otherwise. */
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct amb_socket);
} sockets SEC(".maps");

/* A live connection past the engine. Written by sockops before the SYN leaves and deleted by it when the client's
 * socket is closed; lookup marks it admitted. Read by lookup and the agent. Never evicted: one that cannot be written
 * goes through the engine. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, AMB_MAX_FLOWS);
  __type(key, struct amb_flow_key);
  __type(value, struct amb_flow);
} flows SEC(".maps");

/* {client pod, number} -> the flow that sits there, so that no pod has all of `flows`. Written and read by sockops. A
 * seat is free whose flow is gone: nothing is counted, so no count can drift, whoever removes what. Deleted with its
 * flow; what an older sockops program left lying is taken over, or evicted. */
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, AMB_MAX_FLOWS);
  __type(key, struct amb_seat);
  __type(value, struct amb_flow_key);
} seats SEC(".maps");

/* struct amb_ended, one for each connection past the engine, and for what connect refused by a verdict. Written by
 * sockops and connect, read by the agent; what a dead one left is read by the next. */
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, AMB_RING_BYTES);
} ended SEC(".maps");

/* enum amb_reason -> how often. Written by every program, read by the agent. Never reset. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, AMB_COUNTERS);
  __type(key, __u32);
  __type(value, __u64);
} counters SEC(".maps");

/* Whether a lookup found something, as a number the verifier accepts: without the barrier clang ORs two map pointers to
 * test both at once. */
static inline __attribute__((always_inline)) __u8 amb_present(const void *entry) {
  __u8 yes = entry != 0;
  barrier_var(yes);
  return yes;
}

/* 1: verdicts hold at this moment. Without a branch but one: see amb_ip_difference. */
static inline __attribute__((always_inline)) __u64 amb_lease_holds(void) {
  __u32 only = 0;
  const __u64 *until = bpf_map_lookup_elem(&lease, &only);
  __u64 end = until ? *until : 0;
  return (bpf_ktime_get_boot_ns() - end) >> 63; /* the sign of a difference */
}

static inline __attribute__((always_inline)) void amb_count(__u32 reason) {
  __u64 *count = bpf_map_lookup_elem(&counters, &reason);
  if (count) (*count)++; /* per CPU; an interrupted increment may lose one, which a metric survives */
}

#endif
