// Every bound of the engine, with its reason. What the agent may set (struct amb_settings) is not here.
#ifndef AMBIENT_BOUNDS_H
#define AMBIENT_BOUNDS_H

enum {
  // What waits for a slow reader, per connection and direction: one HTTP/2 stream window. The mesh promises 512 KiB of
  // memory; chunks and pools want some of it. At 1 ms across the underlay this still carries 3.5 Gbit/s.
  STREAM_WINDOW = 448 << 10,
  // ... but for these few of each worker, whose readers keep up and whose tunnels carry nothing else: two engines and
  // two apps then work at once, and none waits for the next half of a window. Nobody waits behind so much; a reader
  // that stops has so much waiting.
  WIDE_WINDOW = 2 << 20,
  WIDE_WINDOWS = 4, // more elephants keep a worker busy by themselves
  ALONE = 32 << 20, // so many bytes in a row: more than the app's sockets take if it does not keep up, and some 50 ms
  // Taken back as soon as data arrives, so it never stalls; it only bounds what one peer can have under way to us.
  TUNNEL_WINDOW = 16 << 20,
  // Plaintext collected from all streams of a tunnel for one TLS write, and read from one tunnel or socket at once.
  // Twice as much costs neighbours twice the wait and gains nothing; 80 KiB costs a tenth of bulk's CPU.
  BATCH = 128 << 10,
  TLS_RECORD = 16 << 10,
  // Largest DATA frame: as much as fits. 16 KiB, the default, costs a third of bulk throughput.
  FRAME_MAX = BATCH - TLS_RECORD,
  FRAME_OTHER = TLS_RECORD + 1, // largest payload that nghttp2 gives us at once of any other frame
  FRAME_HEAD = 9,
  PREFACE = 24, // what a client says before its first frame
  // Ciphertext of one batch: 22 bytes a record, and room for alerts and key updates behind it.
  CIPHER_MAX = BATCH + (8 << 10),
  // One tunnel or socket reads at most this much before others get their turn: some 70 us of work.
  TURN_MAX = BATCH - TLS_RECORD,
  // Bytes waiting for a socket are kept in chunks of this size, so that one-byte frames do not cost an allocation each.
  CHUNK = 16 << 10,
  SPARE_CHUNKS = 256,   // 4 MiB a worker: a burst of slow readers needs no allocation the second time
  SPARE_BUFFERS = 16,   // likewise CIPHER_MAX buffers: as many tunnels are seldom blocked at once
  EARLY_MAX = 16 << 10, // bytes of an app sent before the peer's 200, peeked so that another choice can have them

  HEADERS_MAX = 16 << 10,     // of one request; more is answered 431
  HEADERS_ABUSE = 256 << 10,  // decoded bytes of one request: beyond it is an HPACK bomb and ends the tunnel
  AUTHORITY_MAX = 259,        // a DNS name (253) and ":65535"
  CERTIFICATE_MAX = 16 << 10, // DER of a peer's leaf; has to fit into a packet to the agent
  BAGGAGE_MAX = 8 << 10,      // of an answer; peers refuse requests whose headers are larger than 16 KiB
  CONTINUATIONS_MAX = 8,      // a 16 KiB header block needs one
  // Frames that make us work and carry nothing (SETTINGS, PING, PRIORITY, empty DATA, unknown types).
  IDLE_FRAMES_BURST = 400,
  IDLE_FRAMES_PER_S = 50,
  // Resets: a peer whose thousands of apps all abort at once is honest; one that goes on at this rate is not.
  RESETS_BURST = 8000,
  RESETS_PER_S = 500,
  OUTBOUND_ACKS = 100, // replies to SETTINGS and PING that wait for a peer that does not read

  STREAMS_UNTIL_SETTINGS = 1, // opened before the peer's SETTINGS say how many it grants: nobody grants less
  STREAMS_PER_TUNNEL = 1000,  // even if the peer grants more: one lost tunnel should not take everything with it
  TUNNELS_PER_TARGET = 32,    // elephants ride alone until there are so many
  REJOINS_MAX = 2,            // a stream the peer provably did not look at may ask the same choice again so often
  INBOUND_IDLE_FACTOR = 10,   // times tunnel_idle_s: a peer keeps its tunnels warm as long as it likes, within reason
  HANDSHAKES_PER_LISTENER = 1024, // tunnels that have not shown a certificate yet
  QUESTIONS_MAX = 16384,          // unanswered, per worker; more is refused at once: the agent is far behind
  // Bytes of remembered answers, per worker; beyond it the oldest is asked again. The agent has up to 20,000 decisions
  // in
  // force, of some 2 KiB here; a peer is remembered anew with each of its certificates.
  REMEMBERED_MAX = 64 << 20,
  // Endings not yet taken by an agent, with those that open connections will cause. 320 bytes each.
  BACKLOG_MAX = 65536,
  NOTICES_MAX = 1 << 20, // bytes of DIAL_FAILED and inventory waiting for an agent that does not read
  TEXT_MAX = 256,        // diagnostic text of a record
  // Records wait this long for company: nobody is in a hurry for them, and a packet costs the agent as much as a
  // record.
  RECORDS_WAIT_MS = 20,

  PORTS_KNOWN = 1024, // as far apart were two ports that the kernel chose: then we choose between them ourselves
  PORTS_TRIED = 16,   // in a row, then the kernel is to look: not all may be free, or ours

  EVENTS = 128,           // epoll events a batch
  ACCEPTS_PER_EVENT = 32, // then others get their turn (and other workers their share)
  STASH_SURPLUS = 4,      // times stash_want sockets are kept; the agent miscounts if it sends more
  STASH_MAX = 4096,       // ... and never more than this
  STASH_TICKS = 10,       // a busy pod's sockets last so many ticks without an agent: as long as questions wait for one
  STASH_BUSY = 512,       // ... but no more than these, of some 2.5 KiB in the kernel
  ACCEPT_PAUSE_MS = 100,  // after descriptors ran out altogether
  TICK_MS = 1000,         // certificates' expiry and what else has no event
  // A peer told to open no more streams may have some on their way to us: so long they are taken. Round trips are
  // shorter.
  WARNING_MS = 1000,
  LINGER_MS = 20,        // a tunnel that is to be closed looks so often whether its last bytes have arrived ...
  LINGER_MOST_MS = 3000, // ... for so long
  // An engine that was told to end keeps records so long for an agent that is away: longer than a restart takes.
  RECORDS_PATIENCE_MS = 60000,
  WORKERS_MAX = 64,
};

#endif
