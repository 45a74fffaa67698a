#include "answers.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "worker.h"

// One question with its answer. In worker->memories and in its answer's list; freed when forgotten.
struct memory {
  UT_hash_handle hh;
  struct memory_key key;
  struct answer *answer;
  uint32_t uses_left; // 0: no limit
  struct memory *prev, *next;
};

static size_t size_of(const struct memory *m) { return sizeof *m + sizeof *m->answer + m->answer->tail_len; }

struct answer *answer_find(struct worker *w, uint64_t id) {
  struct answer *answer;
  HASH_FIND(hh, w->answers, &id, sizeof id, answer);
  return answer;
}

static bool says_the_same(const struct answer *a, const struct amb_answer *told, const uint8_t *tail, size_t n) {
  struct amb_answer one = a->told, other = *told;
  one.question = other.question = 0;
  return !memcmp(&one, &other, sizeof one) && a->tail_len == n && !memcmp(a->tail, tail, n);
}

struct answer *answer_introduce(struct worker *w, const struct amb_answer *told, const uint8_t *tail, size_t n) {
  struct answer *a = answer_find(w, told->answer);
  if (a) return says_the_same(a, told, tail, n) ? a : NULL;
  if (!(a = calloc(1, sizeof *a + n))) return NULL;
  a->worker = w;
  a->id = told->answer;
  a->pod = told->pod;
  a->verdict = told->verdict;
  a->flags = told->flags;
  a->status = told->status;
  a->choices = told->choices;
  a->told = *told;
  a->tail_len = n;
  memcpy(a->tail, tail, n);
  a->choice = (const struct amb_choice *)(const void *)a->tail;
  a->label = (const char *)a->tail + told->choices * sizeof *a->choice;
  a->baggage = a->label + told->label_len;
  a->host = a->baggage + told->baggage_len;
  HASH_ADD(hh, w->answers, id, sizeof a->id, a);
  return a;
}

static void release(struct garbage *garbage) { free(container_of(garbage, struct answer, garbage)); }

void answer_hold(struct answer *a) { a->holders++; }

void answer_release(struct answer *a) {
  if (--a->holders) return;
  HASH_DEL(a->worker->answers, a);
  loop_bury(&a->worker->loop, &a->garbage, release);
}

static void forget(struct memory *m) {
  struct answer *a = m->answer;
  HASH_DEL(a->worker->memories, m);
  a->worker->remembered -= size_of(m);
  DL_DELETE(a->memories, m);
  free(m);
  answer_release(a);
}

void answer_remember(struct answer *a, const struct memory_key *key) {
  struct worker *w = a->worker;
  struct memory *old, *m = calloc(1, sizeof *m);
  if (!m) return; // then it will be asked again
  m->key = *key;
  m->answer = a;
  m->uses_left = a->told.uses;
  answer_hold(a);
  HASH_FIND(hh, w->memories, key, sizeof *key, old);
  if (old) forget(old);
  HASH_ADD(hh, w->memories, key, sizeof m->key, m);
  DL_APPEND(a->memories, m);
  w->remembered += size_of(m);
  while (w->remembered > REMEMBERED_MAX) forget(w->memories); // uthash keeps them in the order they came in
}

struct answer *answer_recall(struct worker *w, const struct memory_key *key) {
  struct memory *m;
  HASH_FIND(hh, w->memories, key, sizeof *key, m);
  if (!m) return NULL;
  struct answer *a = m->answer;
  answer_hold(a);
  if (m->uses_left && !--m->uses_left) forget(m);
  return a;
}

void answer_forget(struct answer *a) {
  answer_hold(a);
  while (a->memories) forget(a->memories);
  answer_release(a);
}

void answers_forget_all(struct worker *w) {
  while (w->memories) forget(w->memories);
}

void answers_forget_listener(struct worker *w, uint64_t listener) {
  struct memory *m, *next;
  HASH_ITER(hh, w->memories, m, next) {
    if (m->key.id == listener && m->key.role) forget(m);
  }
}

void answers_close(struct worker *w) { answers_forget_all(w); }
