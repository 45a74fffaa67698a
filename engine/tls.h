// TLS: contexts (certificate, key, roots of one workload) and the bytes between OpenSSL and a tunnel's socket.
#ifndef AMBIENT_TLS_H
#define AMBIENT_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <uthash.h>

#include "abi.h"
#include "loop.h"

struct tunnel;
struct worker;

// Replaced whole by a CONTEXT of the same id. Lives until it is neither the newest nor used by a tunnel.
struct context {
  UT_hash_handle hh;
  uint64_t id, expires_at;
  SSL_CTX *ssl;
  uint32_t holders; // tunnels, and worker->contexts
};

bool tls_start(void); // once, before there are threads
const char *context_introduce(struct worker *, const struct amb_context *,
                              const uint8_t *pems);            // NULL or what is wrong
struct context *context_current(struct worker *, uint64_t id); // NULL: unknown or expired
void context_release(struct context *);
void contexts_keep(struct worker *, const uint64_t *ids, uint32_t count); // and forget the rest
void contexts_expire(struct worker *, uint64_t now);
void contexts_close(struct worker *);

enum tls_outcome { TLS_DONE, TLS_WAIT, TLS_CLOSED, TLS_BROKEN };

SSL *tls_new(struct tunnel *, struct context *, bool server);
enum tls_outcome tls_handshake(struct tunnel *);
// Up to `room` bytes; what came before the outcome is in *got.
enum tls_outcome tls_read(struct tunnel *, uint8_t *, size_t room, size_t *got);
bool tls_write(struct tunnel *, const uint8_t *, size_t); // all of it, into tunnel->out
bool tls_push(struct tunnel *);                           // tunnel->out to the socket; false: the socket is broken
void tls_explain(const struct tunnel *, char *text, size_t size);
uint64_t tls_peer_expires_at(X509 *);

#endif
