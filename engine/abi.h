// What agent and engine say to each other: fixed structs over one unix SEQPACKET socket per engine worker.
//
// A packet is a sequence of messages, each `struct amb_head`, then its struct, then `tail` bytes, padded to 8.
//
// Agent and engine need not be of one version, so this file only grows. A struct that ends with AMB_ADDED may get more
// fields there, an enum more names, and there may be more messages; nothing changes its place, size or meaning. Who
// reads skips what it does not know: the rest of a body that is longer than its struct, of a tail, and whole messages.
// What is not there is zero, and zero means: as before there was such a field. Each side says first which versions it
// speaks, and nobody asks another for what came later than these.
//
// File descriptors travel as SCM_RIGHTS of the packet, in the order of the messages that announce them (head.fds).
// Every worker is a world of its own (listeners, contexts, answers, tunnels): the agent tells each of them the same and
// may get the same question from each. Numbers (`*_id`) are given by the agent; the engine only repeats them.
// Addresses are 16 bytes, IPv4 mapped (::ffff:a.b.c.d); ports and integers in host order. Times: `*_ns` nanoseconds,
// `*_at` nanoseconds of CLOCK_REALTIME.  ambient/dataplane/abi.py mirrors this file; a test compares sizes and offsets.
#ifndef AMBIENT_ENGINE_ABI_H
#define AMBIENT_ENGINE_ABI_H

#include <stdint.h>

#ifndef AMB_ABI
#define AMB_ABI 5 // one more with each addition. 4: bodies have lengths, SPEAKS. 5: settings.under_way
#endif
#ifndef AMB_ADDED
#define AMB_ADDED // the tests build engines of a next version, whose structs have more fields
#endif

enum {
  AMB_ABI_OLDEST = 3,      // what is older ends the attachment. 3: heads have no body length
  AMB_PACKET_MAX = 65536,  // bytes in one packet; both sides own a receive buffer of this size
  AMB_MESSAGE_MAX = 65528, // bytes in one message
  AMB_FDS_MAX = 64,        // descriptors in one packet (the kernel's SCM_MAX_FD is 253)
  AMB_CHOICES_MAX = 16,    // endpoints one answer may name; the agent samples where a service has more
};

enum amb_type {
  // engine -> agent
  AMB_HELLO = 1,    // struct amb_hello: first message of every attachment, and again when told to leave. tail: build
  AMB_ACCEPTED,     // struct amb_accepted: an app's connection waits for an ANSWER
  AMB_TUNNEL,       // struct amb_tunnel_q: TLS done, is this peer who we want? tail: peer's leaf certificate, DER
  AMB_REQUEST,      // struct amb_request: a CONNECT waits for an ANSWER. tail: "name\0value\0" of every header
  AMB_DIAL_FAILED,  // struct amb_dial_failed: a choice of an answer could not be reached
  AMB_STASH_LOW,    // struct amb_pod_ref: fewer than half of the pod's sockets are left
  AMB_ENDED,        // struct amb_conn: a connection is over (also the refused); tail: diagnostic text, may be empty
  AMB_IDLE,         // struct amb_pod_ref: a pod that was told to LEAVE has no connection left, or that is not known
  AMB_ROW_ANSWER,   // inventory: struct amb_answer_row, tail: label
  AMB_ROW_CONN,     // inventory: struct amb_conn with reason AMB_OPEN
  AMB_ROW_LISTENER, // inventory: struct amb_listen, one descriptor
  AMB_ROW_END,      // inventory: struct amb_ref, id = the inventory's
  // agent -> engine
  AMB_SETTINGS = 64, // struct amb_settings: said when the agent can judge. An attachment that has not said it is asked
                     // nothing and told of no ENDED; both wait in the engine, which bounds them
  AMB_CLIENTS_MAP,   // one descriptor: the BPF map that tells an app its real client (key/value below)
  AMB_POD,           // struct amb_pod: before anything that names the pod
  AMB_STASH,         // struct amb_pod_ref + head.fds unconnected TCP sockets of the pod's netns
  AMB_CONTEXT,       // struct amb_context: certificate, key, roots; tail: PEM of each, one after another
  AMB_LISTEN,        // struct amb_listen, one descriptor; the same id again changes its context
  AMB_UNLISTEN,      // struct amb_ref: stop accepting (connections stay)
  AMB_LEAVE,         // struct amb_ref (pod): unlisten all of the pod's listeners; IDLE when its last connection ended
  AMB_ANSWER,        // struct amb_answer; tail: choices[], then label, baggage, host (lengths in the struct)
  AMB_FORGET,        // struct amb_ref: do not repeat this answer (id 0: any answer); connections under it live on
  AMB_CUT,           // struct amb_cut: end every connection made under this answer, forget it
  AMB_INVENTORY,     // struct amb_inventory: ask for rows
  AMB_SEEN,          // struct amb_ref, id = how many ENDED of this attachment the agent has dealt with (ACKNOWLEDGES);
                     // counts after the end of its socket, too, until a newer agent sends SETTINGS
  AMB_CONTEXTS, // struct amb_contexts: the only ones still wanted, tail: their numbers. The rest is forgotten with its
                // keys; tunnels made with it live on
  AMB_DRAIN,    // struct amb_drain: another engine has the listening sockets. Accept nothing more, let the peers of
                // tunnels open new ones elsewhere, carry what is open to its end; then exit. A LISTEN takes it back
  AMB_SPEAKS,   // struct amb_speaks: first message of every attachment. Of an agent that does not say it: version 3
};

enum amb_role { AMB_OUTBOUND = 1, AMB_INBOUND_TUNNEL = 2, AMB_INBOUND_PLAIN = 3 };

enum amb_verdict {
  AMB_CARRY = 1,  // dial one of the choices and carry bytes
  AMB_ACCEPT = 2, // a tunnel's peer is the right one; its requests name this answer as `peer`
  AMB_REFUSE = 3, // reset the app's connection, answer the CONNECT with `status`, or close the tunnel
};

enum amb_answer_flag {
  AMB_REMEMBER = 1, // repeat for the same question until FORGET: outbound (listener, to), plain (listener, from.ip,
                    // to), tunnel (listener or target, from.ip, certificate), request (listener, peer, :authority,
                    // the host of `forwarded`).
                    // When there are too many, the question that was remembered first is asked again
  AMB_SHOW_CLIENT =
      2, // bind the dialled socket to the choice's ip and write `clients` first, so that the app sees `from`
};

enum amb_choice_flag {
  AMB_VIA_TUNNEL = 1, // CONNECT `authority` over a tunnel to `dial`; otherwise dial `dial` in the clear
};

enum amb_settings_flag {
  AMB_NO_EARLY_DATA = 1,
  AMB_ACKNOWLEDGES = 2, // the agent sends SEEN: a record is kept, and told to the next agent, until it was seen
};

// Why a connection ended. Also metric labels: the names in dataplane/abi.py are these in lower case.
enum amb_reason {
  AMB_OPEN = 0,         // not ended (inventory)
  AMB_END_CLOSED,       // both sides finished
  AMB_END_RESET_CLIENT, // the side that opened it reset it
  AMB_END_RESET_SERVER, // the side that served it reset it
  AMB_END_CUT,          // the agent said CUT
  AMB_END_REFUSED,      // the agent said REFUSE
  AMB_END_NO_ANSWER,    // nobody answered within settings.answer_ms
  AMB_END_NO_SOCKET,    // no socket in the pod's stash within the connect deadline
  AMB_END_NO_CONTEXT,   // the context is unknown or its certificate expired
  AMB_END_DIAL,         // no choice could be reached; `error` is the last errno
  AMB_END_HANDSHAKE,    // TLS failed (inbound: before the peer was known); the tail says how
  AMB_END_PEER_REFUSED, // the peer's proxy refused our CONNECT; `error` is its status
  AMB_END_BAD_REQUEST,  // the peer's request was no well-formed CONNECT; `error` is the status we sent
  AMB_END_PROTOCOL,     // the peer broke HTTP/2 or flooded us; the tail says how
  AMB_END_TIMEOUT,      // a phase deadline passed
  AMB_END_TUNNEL_LOST,  // the tunnel under an established connection died
  AMB_END_EXPIRED,      // a certificate of the tunnel expired
  AMB_END_RESOURCES,    // out of descriptors, memory or a limit of ours
  AMB_END_STRANGER,     // the peer of an outbound tunnel was not who the agent expected
};

struct amb_head {
  uint16_t type; // enum amb_type
  uint16_t fds;  // descriptors that belong to this message
  uint16_t size; // of the whole message: head, struct, tail, padding to 8
  uint16_t body; // of the struct, a multiple of 8. 0: as it was in version 3, which had a size of 32 bits here
};

struct amb_addr {
  uint8_t ip[16];
  uint32_t port;
  uint32_t zero;
};

struct amb_ref {
  uint64_t id;
  AMB_ADDED
};

struct amb_pod_ref {
  uint64_t pod;
  uint32_t have; // STASH_LOW: sockets left
  uint32_t want; // STASH_LOW: sockets the engine would like to get
  AMB_ADDED
};

struct amb_hello {
  uint32_t abi, worker, workers, pid;
  uint64_t start_at;  // the same for every worker; another number is another engine
  uint32_t leaving;   // 1: SIGTERM came. It goes on as before; an agent that has another engine says DRAIN
  uint32_t build_len; // bytes of text in the tail: equal texts, equal programs
  uint32_t oldest;    // `abi` is the youngest version it speaks, this the oldest; 0: `abi` and no other
  uint32_t zero;
  AMB_ADDED
};

struct amb_accepted {
  uint64_t question, listener;
  struct amb_addr from, to;
  AMB_ADDED
};

struct amb_tunnel_q {
  uint64_t question;
  uint64_t listener; // inbound: where it was accepted; outbound: 0
  uint64_t target;   // outbound: choice.target; inbound: 0
  uint64_t handshake_ns;
  struct amb_addr from, to; // of the TCP connection, the opener first
  uint32_t cert_len, zero;  // bytes of DER in the tail
  AMB_ADDED
};

struct amb_request {
  uint64_t question, listener, peer; // peer: the answer id that accepted the tunnel
  struct amb_addr from, to;          // of the tunnel
  uint32_t headers_len, zero;        // bytes of "name\0value\0" in the tail
  AMB_ADDED
};

struct amb_dial_failed {
  uint64_t answer, target;
  struct amb_addr dial;
  uint32_t reason, error; // enum amb_reason, errno or HTTP status
  AMB_ADDED
};

struct amb_conn {
  uint64_t id;                              // unique within one engine (start_at) and worker
  uint64_t listener, answer;                // answer 0: ended before one was given
  uint64_t start_at, duration_ns, setup_ns; // setup: accept to the moment both sides could speak; 0 if never
  uint64_t sent, received;                  // bytes from the opener to the server, and back
  struct amb_addr from, to; // as the opener sees it (REQUEST: tunnel's source, and the authority if it was an ip:port)
  struct amb_addr dialled;  // the choice that was used; zero if none
  uint64_t target;          // choice.target that was used, or 0
  uint8_t trace[16];        // trace id of `traceparent`, made outbound, read inbound; zero if none
  uint32_t reason, error;   // enum amb_reason; errno or HTTP status where the reason says so
  uint32_t text_len, zero;  // bytes of diagnostic text in the tail
  AMB_ADDED
};

struct amb_answer_row {
  uint64_t answer, opened, closed; // connections under this answer on this worker, so far
  uint64_t sent, received;         // bytes of the open and the ended ones
  uint32_t flags, verdict;
  uint32_t label_len, zero;
  AMB_ADDED
};

struct amb_settings {
  uint32_t connect_ms, handshake_ms, request_ms; // deadlines: dial, TLS, CONNECT to its answer
  uint32_t answer_ms;                            // how long a question waits for an agent
  uint32_t keepalive_s;                          // TCP keepalive idle time, every socket; 0: off
  uint32_t tunnel_idle_s;                        // an outbound tunnel without streams is closed after this
  uint32_t max_streams;                          // SETTINGS_MAX_CONCURRENT_STREAMS we grant a peer
  uint32_t elephant_bytes;                       // a stream that moved this much gets no new neighbours on its tunnel
  uint32_t retries;                              // further choices tried after the first failed
  uint32_t flags;                                // enum amb_settings_flag
  uint32_t under_way; // connections of one listener that may be asked about or dialled at once; more are not accepted
                      // until there are fewer. 0: no bound
  uint32_t zero;
  AMB_ADDED
};

struct amb_pod {
  uint64_t pod;          // the netns cookie
  uint32_t stash_family; // AF_INET6 (serves both) or AF_INET, of the sockets that STASH brings
  uint32_t stash_want;   // how many sockets to keep
  AMB_ADDED
};

struct amb_context {
  uint64_t context;
  uint64_t expires_at; // no tunnel with it after this moment; not even an old one
  uint32_t cert_len, key_len, roots_len, zero;
  AMB_ADDED
};

struct amb_contexts {
  uint32_t count, zero;
  AMB_ADDED
};

struct amb_listen {
  uint64_t listener, pod, context; // context 0 where role is not a tunnel's
  uint32_t role, zero;
  AMB_ADDED
};

// An array, so it keeps its size: what else there will be to say of each is an array of its own, behind the host.
struct amb_choice {
  struct amb_addr dial;      // where the TCP connection goes: endpoint, or the endpoint's :15008
  struct amb_addr authority; // VIA_TUNNEL: what CONNECT asks for
  uint64_t target;           // VIA_TUNNEL: tunnels are shared by equal targets; 0 otherwise
  uint64_t context;          // VIA_TUNNEL: whose certificate to present
  uint32_t weight;           // chance among the choices not yet tried; 0: only when all others failed
  uint32_t flags;            // enum amb_choice_flag
};

struct amb_answer {
  uint64_t question; // 0: an answer nobody asked for yet is not allowed, the attachment ends
  uint64_t answer;   // != 0; connections, tunnels and records refer to it
  uint64_t pod;      // CARRY: whose stash the dialled socket comes from
  uint32_t verdict, flags;
  uint32_t status; // REFUSE of a request: HTTP status
  uint32_t uses;   // REMEMBER: repeat at most this often, 0: no limit (so that a sampled service is sampled again)
  uint32_t choices, label_len, baggage_len, host_len;
  AMB_ADDED
};

struct amb_cut {
  uint64_t answer;
  uint32_t reason, zero; // enum amb_reason for the records
  AMB_ADDED
};

struct amb_drain {
  uint32_t timeout_s, zero; // what is still open after so long is cut; 0: nothing is
  AMB_ADDED
};

struct amb_speaks {
  uint32_t abi, oldest; // the youngest version and the oldest
  AMB_ADDED
};

struct amb_inventory {
  uint64_t id;
  uint32_t answers, conns, listeners, zero; // which rows: 0 or 1
  AMB_ADDED
};

// The BPF hash map `clients` (bpf/abi.h has the same struct): what getpeername and accept show instead of us.
struct amb_client_key {
  uint64_t netns_cookie;
  uint8_t ip[16]; // the dialled socket's own address
  uint32_t port;  // and port, host order
  uint32_t zero;
};
struct amb_client_value {
  uint8_t ip[16];
  uint32_t port;
  uint32_t writer; // pid of the engine: when it dies, its rows are void
};

#endif
