// What the engine tells the agent: questions, records, notices, inventory rows. Every message out is written here.
#ifndef AMBIENT_REPORT_H
#define AMBIENT_REPORT_H

#include <stdbool.h>

#include "abi.h"
#include "control.h"

struct conn;
struct tunnel;

// Questions
bool question_ask(struct worker *, struct question *, enum amb_type, void (*late)(struct timer *)); // false: too many
void question_drop(struct worker *, struct question *);                                             // also if not asked
struct question *question_find(struct worker *, uint64_t id);
size_t report_write_question(struct worker *, const struct question *, uint8_t *to, size_t room); // 0: no room

// Records
bool report_has_room(const struct worker *); // for one more connection and its ending
void report_ended(struct worker *, const struct amb_conn *, struct answer *, const char *text);
void report_stillborn(struct worker *, struct amb_conn *, struct answer *, const char *text); // gets its id
size_t report_write_ending(const struct ending *, uint8_t *to, size_t room);
void report_delivered(struct worker *, struct ending *);
void report_seen(struct worker *, uint64_t count); // SEEN
void report_retell(struct worker *);               // what was not seen until now is to be told to the newest agent
void report_drop_endings(struct worker *);

// Notices: dropped without an agent, or when one does not read. false: dropped
bool report_pod(struct worker *, enum amb_type, uint64_t pod, uint32_t have, uint32_t want);
void report_dial_failed(struct worker *, const struct amb_dial_failed *);

void report_hello(struct worker *);    // to the agent that is attached, if one is
void report_attached(struct worker *); // HELLO, and all undelivered records again
void report_inventory(struct worker *, const struct amb_inventory *);

#endif
