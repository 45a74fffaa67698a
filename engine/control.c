#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "report.h"
#include "stash.h"
#include "worker.h"

union rights {
  struct cmsghdr head;
  char bytes[CMSG_SPACE(sizeof(int) * AMB_FDS_MAX)];
};

static void on_door(struct source *, uint32_t);
static void on_agent(struct source *, uint32_t);
static void on_former(struct source *, uint32_t);
static void flush(struct later *);
static void on_records(struct timer *);

void control_open(struct worker *w, int listening_socket) {
  struct control *c = &w->control;
  c->door = (struct source){.fd = listening_socket, .ready = on_door};
  c->agent = (struct source){.fd = -1, .ready = on_agent};
  c->former = (struct source){.fd = -1, .ready = on_former};
  c->flush.run = flush;
  c->records.fire = on_records;
  if (listening_socket >= 0) loop_watch(&w->loop, &c->door, EPOLLIN);
}

static void parcel_drop(struct control *c, struct parcel *p) {
  DL_DELETE(c->parcels, p);
  c->parcels_bytes -= p->size;
  if (p->fd >= 0) close(p->fd);
  free(p);
}

void control_close(struct worker *w) {
  loop_forget(&w->loop, &w->control.flush);
  loop_disarm(&w->control.records);
  report_drop_endings(w);
  loop_close_source(&w->control.former);
  loop_close_source(&w->control.door);
}

void control_detach(struct worker *w, const char *why) {
  struct control *c = &w->control;
  if (c->agent.fd < 0) return;
  if (why) fprintf(stderr, "ambient-engine: worker %u: the agent's attachment ended: %s\n", w->index, why);
  loop_close_source(&c->agent);
  c->left_at = monotonic_ns();
  c->writable = false;
  while (c->parcels) parcel_drop(c, c->parcels);
}

// What is told again to the next one would have two records: so the one before is listened to as long as it can be.
static void step_aside(struct worker *w) {
  struct control *c = &w->control;
  int fd = c->agent.fd < 0 ? -1 : fcntl(c->agent.fd, F_DUPFD_CLOEXEC, 0);
  control_detach(w, "a newer agent attached");
  loop_close_source(&c->former);
  if (fd < 0) return;
  shutdown(fd, SHUT_WR); // it reads what it was sent, and then that this is the end
  c->former.fd = fd;
  if (loop_watch(&w->loop, &c->former, EPOLLIN)) loop_close_source(&c->former);
}

static void attach(struct worker *w, int fd) {
  struct control *c = &w->control;
  step_aside(w);
  c->agent.fd = fd;
  c->writable = true;
  c->ready = c->puzzled = false;
  DL_CONCAT(c->sent, c->unsent); // every question is asked again, the oldest first
  c->unsent = c->sent;
  c->sent = NULL;
  for (struct question *q = c->unsent; q; q = q->next) q->sent = false;
  report_attached(w);
  if (loop_watch(&w->loop, &c->agent, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET))
    control_detach(w, "it cannot be polled: out of memory");
  control_flush_soon(w);
}

static void on_door(struct source *source, uint32_t events) {
  struct worker *w = container_of(source, struct worker, control.door);
  struct ucred peer;
  socklen_t n = sizeof peer;
  (void)events;
  int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0 && (errno == EMFILE || errno == ENFILE) && w->reserve >= 0) { // the agent matters most
    close(w->reserve);
    w->reserve = -1; // the tick gets it back
    fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  }
  if (fd < 0) return; // gone again, or still no descriptor: level-triggered, so we are told again
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) || peer.uid != 0) {
    fprintf(stderr, "ambient-engine: worker %u: refused an attachment of uid %d: only root may\n", w->index,
            (int)peer.uid);
    close(fd);
    return;
  }
  attach(w, fd);
}

// ---- in

// What a later version says that this one need not know: agents ask nobody for what they cannot do.
static const char *skip(struct worker *w, uint16_t type) {
  if (type < AMB_SETTINGS) return "a message that is not an agent's";
  if (!w->control.puzzled)
    fprintf(stderr, "ambient-engine: worker %u: messages of type %u are of a later version: skipped\n", w->index, type);
  w->control.puzzled = true;
  return NULL;
}

static const char *handle_one(struct worker *w, uint8_t *at, size_t left, int **fds, unsigned *fd_count, bool cut) {
  const struct amb_head *head = (const void *)at;
  if (left < sizeof *head || head->size < sizeof *head || head->size > left || head->size % 8 || head->body % 8)
    return "a message of an impossible size";
  const struct form *form = message_form(head->type);
  int expected = form ? form->fds : -1;
  unsigned present = head->fds <= *fd_count ? head->fds : *fd_count;
  if ((expected >= 0 && head->fds != expected) || head->fds > AMB_FDS_MAX)
    return "a message with a wrong number of descriptors";
  if (present < head->fds && !(cut && expected < 0))
    return cut ? "out of file descriptors" : "a message without its descriptors";
  struct message message = {.fds = *fds, .fd_count = present};
  *fds += present;
  *fd_count -= present;
  if (!form) return skip(w, head->type);
  size_t length = head->body ? head->body : form->least;
  if (length < form->least || head->size < sizeof *head + length) return "a message that is too short";
  union body body = {0};
  memcpy(&body, at + sizeof *head, length < form->size ? length : form->size);
  message.body = &body;
  message.tail = at + sizeof *head + length;
  message.tail_len = head->size - sizeof *head - length;
  return form->handle(w, &message);
}

void control_receive(struct worker *w, uint8_t *packet, size_t size, int *fds, unsigned fd_count, bool fds_cut) {
  const char *wrong = NULL;
  unsigned all = fd_count;
  int *rest = fds;
  for (size_t at = 0; at < size && !wrong;) {
    size_t step = size - at >= sizeof(struct amb_head) ? ((struct amb_head *)(void *)(packet + at))->size : 0;
    wrong = handle_one(w, packet + at, size - at, &rest, &fd_count, fds_cut);
    at += step;
  }
  if (!wrong && fd_count) wrong = "descriptors that belong to no message";
  for (unsigned i = 0; i < all; i++)
    if (fds[i] >= 0) close(fds[i]);
  pods_tell_low(w);
  if (wrong) control_detach(w, wrong);
}

static void receive(struct worker *w) {
  struct control *c = &w->control;
  c->unread = false;
  for (int turn = 0; turn < EVENTS && c->agent.fd >= 0; turn++) {
    union rights rights;
    struct iovec vector = {c->packet, sizeof c->packet};
    struct msghdr header = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
    ssize_t n = recvmsg(c->agent.fd, &header, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return control_detach(w, NULL); // it closed, or died with packets unread (ECONNRESET)
    int fds[AMB_FDS_MAX];
    unsigned count = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&header); h; h = CMSG_NXTHDR(&header, h)) {
      if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
      unsigned k = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      memcpy(fds + count, CMSG_DATA(h), k * sizeof(int));
      count += k;
    }
    bool cut = header.msg_flags & MSG_CTRUNC;
    if (header.msg_flags & MSG_TRUNC) {
      for (unsigned i = 0; i < count; i++) close(fds[i]);
      return control_detach(w, "a packet larger than AMB_PACKET_MAX");
    }
    control_receive(w, c->packet, (size_t)n, fds, count, cut);
  }
  c->unread = true; // edge-triggered: nobody else would come back to the rest
  if (c->agent.fd >= 0) loop_again(&w->loop, &c->flush);
}

// Whether it said something. Of all that only SEEN counts any more.
static bool hear_former(struct worker *w) {
  struct control *c = &w->control;
  ssize_t n = recv(c->former.fd, c->packet, sizeof c->packet, 0); // descriptors that come along are closed
  if (n < 0 && errno == EAGAIN) return false;
  bool sound = n > 0;
  for (size_t at = 0; sound && at < (size_t)n;) {
    size_t left = (size_t)n - at;
    const struct amb_head *head = (const void *)(c->packet + at);
    sound = left >= sizeof *head && head->size >= sizeof *head && head->size <= left && head->size % 8 == 0;
    if (sound && head->type == AMB_SEEN && head->size >= sizeof *head + sizeof(struct amb_ref))
      report_seen(w, ((const struct amb_ref *)(const void *)(head + 1))->id);
    at += sound ? head->size : 0;
  }
  if (!sound) loop_close_source(&c->former);
  return sound;
}

static void on_former(struct source *source, uint32_t events) {
  (void)events;
  if (source->fd >= 0) hear_former(container_of(source, struct worker, control.former));
}

void control_ready(struct worker *w) {
  struct control *c = &w->control;
  if (c->ready) return;
  for (int turn = 0; turn < EVENTS && c->former.fd >= 0 && hear_former(w);) turn++;
  loop_close_source(&c->former);
  report_retell(w);
  c->ready = true;
}

static void on_agent(struct source *source, uint32_t events) {
  struct worker *w = container_of(source, struct worker, control.agent);
  if (events & EPOLLOUT) {
    w->control.writable = true;
    control_flush_soon(w);
  }
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) receive(w);
}

// ---- out

void control_flush_soon(struct worker *w) {
  if (w->control.agent.fd >= 0) loop_soon(&w->loop, &w->control.flush);
}

void control_flush_later(struct worker *w) {
  struct control *c = &w->control;
  if (c->agent.fd >= 0 && !c->records.next) loop_arm(&w->loop, TIMER_RECORDS, &c->records, RECORDS_WAIT_MS);
}

static void on_records(struct timer *timer) { control_flush_soon(container_of(timer, struct worker, control.records)); }

// What of each kind went into a packet; taken out of the lists only when the packet was sent.
struct load {
  size_t size;
  unsigned parcels, endings, questions, fds;
  int fd[AMB_FDS_MAX];
};

static void collect(struct worker *w, struct load *load) {
  struct control *c = &w->control;
  for (struct parcel *p = c->parcels; p; p = p->next) {
    if (load->size + p->size > AMB_PACKET_MAX || load->fds == AMB_FDS_MAX) return;
    memcpy(c->packet + load->size, p->bytes, p->size);
    load->size += p->size;
    if (p->fd >= 0) load->fd[load->fds++] = p->fd;
    load->parcels++;
  }
  if (!c->ready) return;
  for (struct ending *e = c->endings; e; e = e->next) {
    size_t n = report_write_ending(e, c->packet + load->size, AMB_PACKET_MAX - load->size);
    if (!n) return;
    load->size += n;
    load->endings++;
  }
  for (struct question *q = c->unsent; q; q = q->next) {
    size_t n = report_write_question(w, q, c->packet + load->size, AMB_PACKET_MAX - load->size);
    if (!n) return;
    load->size += n;
    load->questions++;
  }
}

static void commit(struct worker *w, const struct load *load) {
  struct control *c = &w->control;
  for (unsigned i = 0; i < load->parcels; i++) parcel_drop(c, c->parcels);
  for (unsigned i = 0; i < load->endings; i++) report_delivered(w, c->endings);
  for (unsigned i = 0; i < load->questions; i++) {
    struct question *q = c->unsent;
    DL_DELETE(c->unsent, q);
    DL_APPEND(c->sent, q);
    q->sent = true;
  }
}

static void flush(struct later *later) {
  struct worker *w = container_of(later, struct worker, control.flush);
  struct control *c = &w->control;
  loop_disarm(&c->records); // they go along with whatever goes now
  while (c->agent.fd >= 0 && c->writable) {
    struct load load = {0};
    union rights rights;
    collect(w, &load);
    if (!load.size) break;
    struct iovec vector = {c->packet, load.size};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
    if (load.fds) {
      header.msg_control = &rights;
      header.msg_controllen = CMSG_SPACE(load.fds * sizeof(int));
      memset(&rights, 0, sizeof rights);
      rights.head = (struct cmsghdr){
          .cmsg_len = CMSG_LEN(load.fds * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
      memcpy(CMSG_DATA(&rights.head), load.fd, load.fds * sizeof(int));
    }
    if (sendmsg(c->agent.fd, &header, MSG_NOSIGNAL) == (ssize_t)load.size) {
      commit(w, &load);
    } else if (errno == EAGAIN) {
      c->writable = false;
    } else if (errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM) {
      return control_detach(w, "its packet could not be sent: the kernel is out of memory for it");
    } else {
      return control_detach(w, NULL); // EPIPE, ECONNRESET: it is gone
    }
  }
  if (c->unread && c->agent.fd >= 0) receive(w);
}
