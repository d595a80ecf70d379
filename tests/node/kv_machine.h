/* A key-value state machine for tests: in memory, with exactly-once sessions, flushed as one file,
 * snapshots as one image. Everything goes through the vfs it is given, so a fake disk can hurt it.
 * Safe for the node's three workers at once (one mutex).
 *
 * Command:  u8 kind, u64 client_id, varint sequence, varint acked_below, sized key, sized value
 * Answer:   varint code (base/error.h, positive), sized value after the command (before it, for
 * SESSION errors: empty) client_id 0: no session. */
#ifndef TESTS_NODE_KV_MACHINE_H
#define TESTS_NODE_KV_MACHINE_H

#include "base/vfs.h"
#include "node/harness.h"

enum kv_kind { KV_PUT = 1, KV_APPEND, KV_GET };

struct kv_command {
    enum kv_kind kind;
    uint64_t client_id;
    uint64_t sequence;
    uint64_t acked_below;
    struct bytes key;
    struct bytes value;
};
void kv_command_encode(const struct kv_command *command, struct buf *out);
/* ERR_PROTOCOL, or 0 with *code (negative enum err, or 0) and the value, a view. */
int kv_answer_decode(struct bytes answer, int *code, struct bytes *value) MUST_USE;

struct kv_machine;

/* gives; loads what `dir` holds. */
int kv_machine_open(const struct vfs *vfs, const char *dir, struct state_machine *out) MUST_USE;
void kv_machine_close(struct state_machine *sm); /* makes nothing durable */
/* The value of a key appended to `out`; false: absent. Any thread. */
bool kv_machine_get(struct state_machine *sm, struct bytes key, struct buf *out);
size_t kv_machine_count(struct state_machine *sm);

struct harness_machine kv_machine_for_harness(void);

#endif
