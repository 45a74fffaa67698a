#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "bounds.h"

struct chunk {
  struct chunk *next;
  uint32_t from, to;
  uint8_t bytes[CHUNK];
};

static struct chunk *chunk_take(struct pool *pool) {
  struct chunk *chunk = pool->chunks;
  if (chunk) {
    pool->chunks = chunk->next;
    pool->spare_chunks--;
  } else if (!(chunk = malloc(sizeof *chunk))) {
    return NULL;
  }
  chunk->next = NULL;
  chunk->from = chunk->to = 0;
  return chunk;
}

static void chunk_give_back(struct pool *pool, struct chunk *chunk) {
  if (pool->spare_chunks >= SPARE_CHUNKS) {
    free(chunk);
    return;
  }
  chunk->next = pool->chunks;
  pool->chunks = chunk;
  pool->spare_chunks++;
}

bool queue_add(struct pool *pool, struct queue *queue, const uint8_t *bytes, size_t n) {
  while (n) {
    struct chunk *tail = queue->tail;
    if (!tail || tail->to == CHUNK) {
      struct chunk *fresh = chunk_take(pool);
      if (!fresh) return false;
      if (tail)
        tail->next = fresh;
      else
        queue->head = fresh;
      queue->tail = tail = fresh;
    }
    size_t k = CHUNK - tail->to < n ? CHUNK - tail->to : n;
    memcpy(tail->bytes + tail->to, bytes, k);
    tail->to += (uint32_t)k;
    queue->bytes += k;
    bytes += k;
    n -= k;
  }
  return true;
}

static void queue_drop(struct pool *pool, struct queue *queue, size_t n) {
  queue->bytes -= n;
  while (n) {
    struct chunk *head = queue->head;
    size_t k = head->to - head->from < n ? head->to - head->from : n;
    head->from += (uint32_t)k;
    n -= k;
    if (head->from < head->to) return;
    queue->head = head->next;
    if (!queue->head) queue->tail = NULL;
    chunk_give_back(pool, head);
  }
}

int queue_send(struct pool *pool, struct queue *queue, int fd) {
  enum { VECTORS = 16 };
  while (queue->bytes) {
    struct iovec vectors[VECTORS];
    struct msghdr message = {.msg_iov = vectors};
    for (struct chunk *c = queue->head; c && message.msg_iovlen < VECTORS; c = c->next)
      vectors[message.msg_iovlen++] = (struct iovec){c->bytes + c->from, c->to - c->from};
    ssize_t k = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (k < 0) return errno;
    queue_drop(pool, queue, (size_t)k);
  }
  return 0;
}

void queue_clear(struct pool *pool, struct queue *queue) {
  if (queue->bytes) queue_drop(pool, queue, queue->bytes);
}

struct buffer *pool_buffer(struct pool *pool) {
  struct buffer *buffer = pool->buffers;
  if (buffer) {
    pool->buffers = buffer->next;
    pool->spare_buffers--;
  } else if (!(buffer = malloc(sizeof *buffer + CIPHER_MAX))) {
    return NULL;
  }
  buffer->from = buffer->to = 0;
  return buffer;
}

void pool_give_back(struct pool *pool, struct buffer *buffer) {
  if (pool->spare_buffers >= SPARE_BUFFERS) {
    free(buffer);
    return;
  }
  buffer->next = pool->buffers;
  pool->buffers = buffer;
  pool->spare_buffers++;
}

void pool_close(struct pool *pool) {
  for (struct chunk *c; (c = pool->chunks); free(c)) pool->chunks = c->next;
  for (struct buffer *b; (b = pool->buffers); free(b)) pool->buffers = b->next;
}
