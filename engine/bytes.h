// Bytes that wait for a socket: chunks from a pool of the worker, so that waiting costs no allocation in the long run.
#ifndef AMBIENT_BYTES_H
#define AMBIENT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chunk;
struct buffer {
  struct buffer *next;
  size_t from, to; // what is in it
  uint8_t bytes[];
};

// The worker's. Owns what is not in use.
struct pool {
  struct chunk *chunks;
  struct buffer *buffers;
  unsigned spare_chunks, spare_buffers;
};

// Belongs to the leg it waits for; queue_clear before that goes away. Bounded by who fills it (a window, a read).
struct queue {
  struct chunk *head, *tail;
  size_t bytes;
};

bool queue_add(struct pool *, struct queue *, const uint8_t *, size_t); // false: out of memory
int queue_send(struct pool *, struct queue *, int fd);                  // 0, or errno (EAGAIN: the rest waits)
void queue_clear(struct pool *, struct queue *);

struct buffer *pool_buffer(struct pool *); // CIPHER_MAX bytes; NULL: out of memory
void pool_give_back(struct pool *, struct buffer *);
void pool_close(struct pool *);

#endif
