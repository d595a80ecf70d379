/* What cores did, as lines of text for people: messages, writes, entries, status. Thread: one. */
#ifndef TESTS_GOLDEN_SHOW_H
#define TESTS_GOLDEN_SHOW_H

#include "unit/raft_pump.h"

const char *show_kind(enum raft_message_kind kind);
/* "append term=2 prev=3/1 commit=3 [4/2 \"x\"]": all that matters for this kind, nothing else. */
void show_message(struct buf *out, const struct raft_message *message);
/* "#3 sync state(term=2 vote=1) cut(from 4) [4/2 noop] holds(append_reply->1)" */
void show_write(struct buf *out, const struct pump_write *write);
void show_entry(struct buf *out, const struct raft_entry *entry);
void show_status(struct buf *out, const struct pump *pump, uint64_t id);
/* The log in memory by position, with `|` after the last durable entry; then what is on the disk.
 */
void show_log(struct buf *out, const struct pump *pump, uint64_t id);

#endif
