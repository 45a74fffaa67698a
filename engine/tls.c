#include "tls.h"

#include <errno.h>
#include <malloc.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "tunnel.h"
#include "worker.h"

// ---- between OpenSSL and the socket
// Our own BIO, for two things the stock one cannot: a short read counts as drained (it saves the recv() that only says
// EAGAIN), and all records of a batch leave with one send().

static BIO_METHOD *method; // made before the threads, then only read

static int bio_read(BIO *bio, char *to, int room) {
  struct tunnel *t = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (t->readable) {
    ssize_t n = recv(t->source.fd, to, (size_t)room, 0);
    if (n > 0) {
      if (n < room && !t->hung_up) t->readable = false;
      return (int)n;
    }
    if (n == 0) return 0;
    if (errno != EAGAIN) {
      t->socket_error = errno;
      return -1;
    }
    t->readable = false;
  }
  BIO_set_retry_read(bio);
  return -1;
}

static int bio_write(BIO *bio, const char *from, int n) {
  struct tunnel *t = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (!t->out && !(t->out = pool_buffer(&t->worker->pool))) return -1;
  // Full only if a peer wants replies (key updates) faster than it reads: an error, and the end of the tunnel.
  if (t->out->to + (size_t)n > CIPHER_MAX) return -1;
  memcpy(t->out->bytes + t->out->to, from, (size_t)n);
  t->out->to += (size_t)n;
  return n;
}

static long bio_control(BIO *bio, int command, long number, void *pointer) {
  (void)bio, (void)number, (void)pointer;
  return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *bio) {
  BIO_set_init(bio, 1);
  return 1;
}

// While a key is read, what OpenSSL gives back is wiped: its decoders leave copies of the key behind.
static _Thread_local bool wiping;

static void *allocate(size_t n, const char *file, int line) {
  (void)file, (void)line;
  return malloc(n);
}

static void give_back(void *p, const char *file, int line) {
  (void)file, (void)line;
  if (p && wiping) explicit_bzero(p, malloc_usable_size(p));
  free(p);
}

static void *reallocate(void *p, size_t n, const char *file, int line) {
  if (!p || !wiping) return realloc(p, n);
  size_t had = malloc_usable_size(p);
  void *moved = malloc(n);
  if (!moved) return NULL;
  memcpy(moved, p, had < n ? had : n);
  give_back(p, file, line);
  return moved;
}

bool tls_start(void) {
  if (!CRYPTO_set_mem_functions(allocate, reallocate, give_back)) return false; // OpenSSL was used before
  method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ambient");
  return method && BIO_meth_set_read(method, bio_read) && BIO_meth_set_write(method, bio_write) &&
         BIO_meth_set_ctrl(method, bio_control) && BIO_meth_set_create(method, bio_create);
}

bool tls_push(struct tunnel *t) {
  struct buffer *out = t->out;
  if (!out) return true;
  while (out->from < out->to) {
    ssize_t n = send(t->source.fd, out->bytes + out->from, out->to - out->from, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      t->blocked = true;
      return true;
    }
    if (n < 0) {
      t->socket_error = errno;
      return false;
    }
    out->from += (size_t)n;
  }
  t->out = NULL;
  t->blocked = false;
  pool_give_back(&t->worker->pool, out);
  return true;
}

// ---- contexts

static const uint8_t alpn[] = {2, 'h', '2'};

static int select_h2(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in, unsigned in_len, void *arg) {
  (void)ssl, (void)arg;
  uint8_t *chosen;
  if (SSL_select_next_proto(&chosen, out_len, alpn, sizeof alpn, in, in_len) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL; // no_application_protocol
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

static bool use_chain(SSL_CTX *ctx, BIO *pem) {
  X509 *leaf = PEM_read_bio_X509(pem, NULL, NULL, NULL), *next;
  bool ok = leaf && SSL_CTX_use_certificate(ctx, leaf) == 1;
  X509_free(leaf);
  while (ok && (next = PEM_read_bio_X509(pem, NULL, NULL, NULL)))
    if (!SSL_CTX_add0_chain_cert(ctx, next)) {
      X509_free(next);
      ok = false;
    }
  return ok;
}

static bool use_key(SSL_CTX *ctx, BIO *pem) {
  EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, NULL, NULL);
  bool ok = key && SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
  EVP_PKEY_free(key);
  return ok;
}

static bool use_roots(SSL_CTX *ctx, BIO *pem) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx);
  int count = 0;
  for (X509 *root; (root = PEM_read_bio_X509(pem, NULL, NULL, NULL)); X509_free(root))
    count += X509_STORE_add_cert(store, root) == 1;
  return count > 0;
}

static bool with_pem(SSL_CTX *ctx, bool (*use)(SSL_CTX *, BIO *), const uint8_t *pem, uint32_t n) {
  BIO *bio = BIO_new_mem_buf(pem, (int)n);
  wiping = true;
  bool ok = bio && use(ctx, bio);
  wiping = false;
  BIO_free(bio);
  return ok;
}

static bool configure(SSL_CTX *ctx) {
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS); // an idle tunnel keeps no 64 KiB
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_read_ahead(ctx, 1); // several records a recv()
  SSL_CTX_set_default_read_buffer_len(ctx, 64 << 10);
  SSL_CTX_set_alpn_select_cb(ctx, select_h2, NULL);
  return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) && SSL_CTX_set_num_tickets(ctx, 0) &&
         SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384") &&
         !SSL_CTX_set_alpn_protos(ctx, alpn, sizeof alpn) && SSL_CTX_set_session_id_context(ctx, alpn, sizeof alpn);
}

static SSL_CTX *ssl_context(const struct amb_context *told, const uint8_t *pems, const char **wrong) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());
  *wrong = "out of memory for a CONTEXT";
  if (ctx && configure(ctx)) {
    const uint8_t *key = pems + told->cert_len, *roots = key + told->key_len;
    *wrong = !with_pem(ctx, use_chain, pems, told->cert_len)     ? "CONTEXT with a certificate that cannot be read"
             : !with_pem(ctx, use_key, key, told->key_len)       ? "CONTEXT with a key that is not the certificate's"
             : !with_pem(ctx, use_roots, roots, told->roots_len) ? "CONTEXT without roots"
                                                                 : NULL;
  }
  ERR_clear_error(); // "no start line" ends every PEM file
  if (*wrong) SSL_CTX_free(ctx);
  return ctx;
}

static struct context *find(struct worker *w, uint64_t id) {
  struct context *context;
  HASH_FIND(hh, w->contexts, &id, sizeof id, context);
  return context;
}

void context_release(struct context *context) {
  if (!context || --context->holders) return;
  SSL_CTX_free(context->ssl);
  free(context);
}

static void drop(struct worker *w, struct context *context) {
  HASH_DEL(w->contexts, context);
  context_release(context);
}

const char *context_introduce(struct worker *w, const struct amb_context *told, const uint8_t *pems) {
  const char *wrong = "out of memory for a CONTEXT";
  struct context *fresh = calloc(1, sizeof *fresh), *old = find(w, told->context);
  SSL_CTX *ssl = fresh ? ssl_context(told, pems, &wrong) : NULL;
  if (wrong) {
    free(fresh);
    return wrong;
  }
  *fresh = (struct context){.id = told->context, .expires_at = told->expires_at, .ssl = ssl, .holders = 1};
  if (old) drop(w, old);
  HASH_ADD(hh, w->contexts, id, sizeof fresh->id, fresh);
  return NULL;
}

struct context *context_current(struct worker *w, uint64_t id) {
  struct context *context = find(w, id);
  return context && context->expires_at > (uint64_t)realtime_ns() ? context : NULL;
}

static bool is_among(uint64_t id, const uint64_t *ids, uint32_t count) {
  while (count)
    if (ids[--count] == id) return true;
  return false;
}

void contexts_keep(struct worker *w, const uint64_t *ids, uint32_t count) {
  struct context *context, *next;
  HASH_ITER(hh, w->contexts, context, next) {
    if (!is_among(context->id, ids, count)) drop(w, context);
  }
}

void contexts_expire(struct worker *w, uint64_t now) {
  struct context *context, *next;
  HASH_ITER(hh, w->contexts, context, next) {
    if (context->expires_at <= now) drop(w, context);
  }
}

void contexts_close(struct worker *w) { contexts_expire(w, UINT64_MAX); }

// ---- one tunnel

SSL *tls_new(struct tunnel *t, struct context *context, bool server) {
  SSL *ssl = SSL_new(context->ssl);
  BIO *bio = ssl ? BIO_new(method) : NULL;
  if (!bio) {
    SSL_free(ssl);
    return NULL;
  }
  BIO_set_data(bio, t);
  SSL_set_bio(ssl, bio, bio);
  if (server)
    SSL_set_accept_state(ssl);
  else
    SSL_set_connect_state(ssl);
  return ssl;
}

static enum tls_outcome outcome(struct tunnel *t, int result) {
  switch (SSL_get_error(t->ssl, result)) {
  case SSL_ERROR_WANT_READ:
    return TLS_WAIT;
  case SSL_ERROR_ZERO_RETURN:
    return TLS_CLOSED;
  default:
    return TLS_BROKEN; // also WANT_WRITE, which our BIO never causes
  }
}

enum tls_outcome tls_handshake(struct tunnel *t) {
  ERR_clear_error();
  int result = SSL_do_handshake(t->ssl);
  return result == 1 ? TLS_DONE : outcome(t, result);
}

enum tls_outcome tls_read(struct tunnel *t, uint8_t *to, size_t room, size_t *got) {
  *got = 0;
  while (*got + TLS_RECORD <= room) {
    ERR_clear_error();
    int n = SSL_read(t->ssl, to + *got, (int)(room - *got));
    if (n <= 0) return outcome(t, n);
    *got += (size_t)n;
  }
  return TLS_DONE;
}

bool tls_write(struct tunnel *t, const uint8_t *from, size_t n) {
  ERR_clear_error();
  return SSL_write(t->ssl, from, (int)n) == (int)n;
}

void tls_explain(const struct tunnel *t, char *text, size_t size) {
  unsigned long code = ERR_peek_last_error();
  const char *what = code ? ERR_reason_error_string(code) : NULL;
  long verified = SSL_get_verify_result(t->ssl);
  if (verified != X509_V_OK)
    snprintf(text, size, "the peer's certificate: %s", X509_verify_cert_error_string(verified));
  else if (what)
    snprintf(text, size, "TLS: %s", what);
  else if (t->socket_error)
    snprintf(text, size, "the connection broke: %s", strerror(t->socket_error));
  else
    snprintf(text, size, "the peer closed the connection");
}

uint64_t tls_peer_expires_at(X509 *certificate) {
  struct tm tm;
  if (!ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm)) return 0; // unreadable counts as expired
  return (uint64_t)timegm(&tm) * UINT64_C(1000000000);
}
