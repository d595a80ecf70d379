/* Requests to replicas of the harness with the key-value machine, and waiting for their answers. An
 * ask must stay where it is until it is answered; every one is, exactly once: a second answer ends
 * the program. */
#ifndef TESTS_NODE_KV_ASK_H
#define TESTS_NODE_KV_ASK_H

#include "node/harness.h"
#include "node/kv_machine.h"

struct kv_ask {
    bool answered;
    int error; /* of the node */
    int code;  /* of the machine, when error is 0 */
    struct raft_position position;
    struct buf value; /* of a read */
    struct state_machine *sm;
    char key[64];
};

void kv_ask_init(struct kv_ask *ask);
void kv_ask_deinit(struct kv_ask *ask);
void kv_ask_command(struct harness *harness, uint32_t slot, const struct kv_command *command,
                    struct kv_ask *ask);
void kv_ask_put(struct harness *harness, uint32_t slot, const char *key, const char *value,
                struct kv_ask *ask);
/* A linearizable read; code ERR_NOT_FOUND when the key is absent. */
void kv_ask_get(struct harness *harness, uint32_t slot, const char *key, struct kv_ask *ask);
/* False: not answered in time. */
bool kv_ask_wait(struct harness *harness, struct kv_ask *ask, uint64_t limit_ns);

/* Asks whoever leads, again and again, until it worked; false after limit_ns. The command must be
 * one that may run twice, or have a session. */
bool kv_do(struct harness *harness, const struct kv_command *command, uint64_t limit_ns);
bool kv_put(struct harness *harness, const char *key, const char *value, uint64_t limit_ns);
/* Puts `count` keys "<prefix><i>" with values of `value_bytes` bytes. */
bool kv_put_many(struct harness *harness, const char *prefix, uint32_t count, size_t value_bytes,
                 uint64_t limit_ns);
/* What the leader says; false when nobody answered in time. Absent: an empty `out`. */
bool kv_get(struct harness *harness, const char *key, struct buf *out, uint64_t limit_ns);
/* What this replica's machine holds right now. */
bool kv_holds(struct harness *harness, uint32_t slot, const char *key, const char *value);
/* All slots that are up have the same position and the same hash. */
bool kv_all_equal(struct harness *harness);

#endif
