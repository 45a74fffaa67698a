#include "report.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "answers.h"
#include "build.h"
#include "conn.h"
#include "listener.h"
#include "stash.h"
#include "tunnel.h"
#include "worker.h"

static size_t padded(size_t n) { return (n + 7) & ~(size_t)7; }

// Head, struct, tail, padding. 0: no room.
static size_t put(uint8_t *to, size_t room, enum amb_type type, uint16_t fds, const void *body, size_t body_len,
                  const void *tail, size_t tail_len) {
  size_t used = sizeof(struct amb_head) + body_len + tail_len, size = padded(used);
  if (size > room || size > AMB_MESSAGE_MAX) return 0;
  struct amb_head head = {.type = (uint16_t)type, .fds = fds, .size = (uint16_t)size, .body = (uint16_t)body_len};
  memcpy(to, &head, sizeof head);
  memcpy(to + sizeof head, body, body_len);
  if (tail_len) memcpy(to + sizeof head + body_len, tail, tail_len);
  memset(to + used, 0, size - used);
  return size;
}

// ---- parcels

static bool post(struct worker *w, enum amb_type type, const void *body, size_t body_len, const void *tail,
                 size_t tail_len, int fd) {
  struct control *c = &w->control;
  size_t size = padded(sizeof(struct amb_head) + body_len + tail_len);
  struct parcel *p = c->agent.fd >= 0 && size <= AMB_MESSAGE_MAX ? malloc(sizeof *p + size) : NULL;
  if (!p) return false;
  put(p->bytes, size, type, fd >= 0, body, body_len, tail, tail_len);
  p->size = (uint32_t)size;
  p->fd = fd;
  c->parcels_bytes += size;
  DL_APPEND(c->parcels, p);
  control_flush_soon(w);
  return true;
}

bool report_pod(struct worker *w, enum amb_type type, uint64_t pod, uint32_t have, uint32_t want) {
  struct amb_pod_ref body = {.pod = pod, .have = have, .want = want};
  return w->control.parcels_bytes < NOTICES_MAX && post(w, type, &body, sizeof body, NULL, 0, -1);
}

void report_dial_failed(struct worker *w, const struct amb_dial_failed *body) {
  if (w->control.parcels_bytes < NOTICES_MAX) post(w, AMB_DIAL_FAILED, body, sizeof *body, NULL, 0, -1);
}

// ---- questions

bool question_ask(struct worker *w, struct question *q, enum amb_type type, void (*late)(struct timer *)) {
  struct control *c = &w->control;
  if (HASH_COUNT(c->questions) >= QUESTIONS_MAX) return false;
  q->id = ++c->last_question;
  q->type = type;
  q->sent = false;
  q->deadline.fire = late;
  HASH_ADD(hh, c->questions, id, sizeof q->id, q);
  DL_APPEND(c->unsent, q);
  loop_arm(&w->loop, TIMER_ANSWER, &q->deadline, w->settings.answer_ms);
  control_flush_soon(w);
  return true;
}

void question_drop(struct worker *w, struct question *q) {
  struct control *c = &w->control;
  if (!q->id) return;
  HASH_DEL(c->questions, q);
  if (q->sent)
    DL_DELETE(c->sent, q);
  else
    DL_DELETE(c->unsent, q);
  loop_disarm(&q->deadline);
  q->id = 0;
}

struct question *question_find(struct worker *w, uint64_t id) {
  struct question *q;
  HASH_FIND(hh, w->control.questions, &id, sizeof id, q);
  return q;
}

static size_t write_tunnel(const struct tunnel *t, uint8_t *to, size_t room) {
  struct amb_tunnel_q body = {.question = t->question.id, .target = t->target_id, .from = t->from, .to = t->to};
  body.listener = t->inbound ? t->listener : 0;
  body.handshake_ns = t->handshake_ns;
  body.cert_len = t->der_len;
  return put(to, room, AMB_TUNNEL, 0, &body, sizeof body, t->der, t->der_len);
}

static size_t write_request(const struct conn *c, uint8_t *to, size_t room) {
  struct amb_request body = {.question = c->question.id, .listener = c->record.listener, .from = c->record.from};
  body.to = c->tunnel_to;
  body.peer = c->peer->id;
  body.headers_len = c->headers_len;
  return put(to, room, AMB_REQUEST, 0, &body, sizeof body, c->headers, c->headers_len);
}

size_t report_write_question(struct worker *w, const struct question *q, uint8_t *to, size_t room) {
  (void)w;
  if (q->type == AMB_TUNNEL) return write_tunnel(container_of(q, struct tunnel, question), to, room);
  const struct conn *c = container_of(q, struct conn, question);
  if (q->type == AMB_REQUEST) return write_request(c, to, room);
  struct amb_accepted body = {
      .question = q->id, .listener = c->record.listener, .from = c->record.from, .to = c->record.to};
  return put(to, room, AMB_ACCEPTED, 0, &body, sizeof body, NULL, 0);
}

// ---- records

bool report_has_room(const struct worker *w) { return w->control.endings_count + w->conn_count < BACKLOG_MAX; }

void report_ended(struct worker *w, const struct amb_conn *record, struct answer *answer, const char *text) {
  struct control *c = &w->control;
  size_t n = text ? strnlen(text, TEXT_MAX) : 0;
  struct ending *e = malloc(sizeof *e + n);
  if (!e) return; // a machine this short of memory loses more than a record
  *e = (struct ending){.conn = *record, .answer = answer};
  e->conn.text_len = (uint32_t)n;
  if (n) memcpy(e->text, text, n);
  if (answer) answer_hold(answer);
  DL_APPEND(c->endings, e);
  c->endings_count++;
  control_flush_later(w);
}

void report_stillborn(struct worker *w, struct amb_conn *record, struct answer *answer, const char *text) {
  if (w->control.endings_count >= BACKLOG_MAX) return; // refused without a record: nobody took the others either
  record->id = ++w->last_conn;
  if (!record->start_at) record->start_at = (uint64_t)realtime_ns();
  report_ended(w, record, answer, text);
}

size_t report_write_ending(const struct ending *e, uint8_t *to, size_t room) {
  return put(to, room, AMB_ENDED, 0, &e->conn, sizeof e->conn, e->text, e->conn.text_len);
}

static void drop(struct control *c, struct ending **list, struct ending *e) {
  DL_DELETE(*list, e);
  c->endings_count--;
  if (e->answer) answer_release(e->answer);
  free(e);
}

void report_delivered(struct worker *w, struct ending *e) {
  struct control *c = &w->control;
  c->delivered_count++;
  DL_DELETE(c->endings, e);
  DL_APPEND(c->delivered, e);
  if (!c->acknowledges && !e->old) drop(c, &c->delivered, e);
}

void report_seen(struct worker *w, uint64_t count) {
  struct control *c = &w->control;
  while (c->delivered && c->seen_count < count && c->seen_count < c->delivered_count) {
    drop(c, &c->delivered, c->delivered);
    c->seen_count++;
  }
}

void report_drop_endings(struct worker *w) {
  struct control *c = &w->control;
  while (c->delivered) drop(c, &c->delivered, c->delivered);
  while (c->endings) drop(c, &c->endings, c->endings);
}

// ---- attaching

void report_hello(struct worker *w) {
  struct amb_hello hello = {
      .abi = AMB_ABI, .oldest = AMB_ABI_OLDEST, .worker = w->index, .workers = w->workers, .start_at = w->start_at};
  hello.pid = (uint32_t)getpid();
  hello.leaving = w->leave.told;
  hello.build_len = (uint32_t)strlen(engine_build);
  post(w, AMB_HELLO, &hello, sizeof hello, engine_build, hello.build_len, -1);
}

void report_attached(struct worker *w) {
  struct control *c = &w->control;
  report_hello(w);
  if (!c->acknowledges)
    while (c->delivered) drop(c, &c->delivered, c->delivered);
  for (struct ending *e = c->endings; e; e = e->next) e->old = true;
  pods_attached(w);
  c->acknowledges = true;
}

void report_retell(struct worker *w) {
  struct control *c = &w->control;
  for (struct ending *e = c->delivered; e; e = e->next) e->old = true;
  DL_CONCAT(c->delivered, c->endings); // what the former agent did not see, then what it was not told
  c->endings = c->delivered;
  c->delivered = NULL;
  c->delivered_count = c->seen_count = 0;
}

// ---- inventory

static void row_answer(struct worker *w, const struct answer *a) {
  struct amb_answer_row row = {.answer = a->id, .opened = a->opened, .closed = a->closed, .sent = a->sent};
  row.received = a->received;
  row.flags = a->flags;
  row.verdict = a->verdict;
  row.label_len = a->told.label_len;
  for (const struct conn *c = a->conns; c; c = c->in_answer.next) {
    row.sent += c->record.sent;
    row.received += c->record.received;
  }
  post(w, AMB_ROW_ANSWER, &row, sizeof row, a->label, row.label_len, -1);
}

static void row_conn(struct worker *w, const struct conn *c) {
  struct amb_conn row = c->record;
  row.duration_ns = (uint64_t)(monotonic_ns() - c->started);
  row.reason = AMB_OPEN;
  post(w, AMB_ROW_CONN, &row, sizeof row, NULL, 0, -1);
}

static void row_listener(struct worker *w, const struct listener *l) {
  struct amb_listen row = {.listener = l->id, .pod = l->pod, .context = l->context, .role = l->role};
  int fd = fcntl(l->source.fd, F_DUPFD_CLOEXEC, 0); // ours may be closed before the row is read
  if (fd < 0) return;                               // out of descriptors: the agent makes a new socket
  if (!post(w, AMB_ROW_LISTENER, &row, sizeof row, NULL, 0, fd)) close(fd);
}

void report_inventory(struct worker *w, const struct amb_inventory *asked) {
  struct answer *a, *next_answer;
  struct listener *l, *next_listener;
  struct amb_ref end = {.id = asked->id};
  if (asked->answers) HASH_ITER(hh, w->answers, a, next_answer) row_answer(w, a);
  if (asked->conns)
    for (const struct conn *c = w->conns; c; c = c->next) row_conn(w, c);
  if (asked->listeners) HASH_ITER(hh, w->listeners, l, next_listener) row_listener(w, l);
  post(w, AMB_ROW_END, &end, sizeof end, NULL, 0, -1);
  if (!w->control.acknowledges && asked->answers) // the labels of what it was told are told
    while (w->control.delivered) drop(&w->control, &w->control.delivered, w->control.delivered);
}
