/* See kv_ask.h. */
#include "node/kv_ask.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kv_ask_init(struct kv_ask *ask)
{
    memset(ask, 0, sizeof(*ask));
}

void kv_ask_deinit(struct kv_ask *ask)
{
    buf_deinit(&ask->value);
}

static void command_done(void *context, int error, struct raft_position position,
                         struct bytes result)
{
    struct kv_ask *ask = context;
    ASSERT(!ask->answered);
    ask->answered = true;
    ask->error = error;
    ask->position = position;
    if (error == ERR_OK) {
        struct bytes value;
        int decoded = kv_answer_decode(result, &ask->code, &value);
        ASSERT_CMP(decoded, ==, ERR_OK);
        buf_append_bytes(&ask->value, value);
    }
}

static void get_done(void *context, int error)
{
    struct kv_ask *ask = context;
    ASSERT(!ask->answered);
    ask->answered = true;
    ask->error = error;
    if (error == ERR_OK) {
        bool found = kv_machine_get(ask->sm, bytes_of_string(ask->key), &ask->value);
        ask->code = found ? ERR_OK : ERR_NOT_FOUND;
    }
}

void kv_ask_command(struct harness *harness, uint32_t slot, const struct kv_command *command,
                    struct kv_ask *ask)
{
    struct buf bytes;
    buf_init(&bytes);
    kv_command_encode(command, &bytes);
    harness_propose(harness, slot, buf_view(&bytes), command_done, ask);
    buf_deinit(&bytes);
}

void kv_ask_put(struct harness *harness, uint32_t slot, const char *key, const char *value,
                struct kv_ask *ask)
{
    struct kv_command command = {
        .kind = KV_PUT, .key = bytes_of_string(key), .value = bytes_of_string(value)};
    kv_ask_command(harness, slot, &command, ask);
}

void kv_ask_get(struct harness *harness, uint32_t slot, const char *key, struct kv_ask *ask)
{
    ask->sm = harness_machine_of(harness, slot);
    snprintf(ask->key, sizeof(ask->key), "%s", key);
    harness_read(harness, slot, get_done, ask);
}

static bool is_answered(struct harness *harness, void *context)
{
    (void)harness;
    return ((const struct kv_ask *)context)->answered;
}

bool kv_ask_wait(struct harness *harness, struct kv_ask *ask, uint64_t limit_ns)
{
    return harness_run_until(harness, is_answered, ask, limit_ns);
}

bool kv_do(struct harness *harness, const struct kv_command *command, uint64_t limit_ns)
{
    uint64_t end_ns = harness_now_ns(harness) + limit_ns;
    while (harness_now_ns(harness) < end_ns) {
        int leader = harness_wait_leader(harness, end_ns - harness_now_ns(harness));
        if (leader < 0) {
            return false;
        }
        struct kv_ask ask;
        kv_ask_init(&ask);
        kv_ask_command(harness, (uint32_t)leader, command, &ask);
        bool answered = kv_ask_wait(harness, &ask, 60 * SIM_S);
        ASSERT(answered); /* a leader that lost its majority says so */
        int error = ask.error;
        kv_ask_deinit(&ask);
        if (error == ERR_OK) {
            return true;
        }
        harness_run_for(harness, 10 * SIM_MS);
    }
    return false;
}

bool kv_put(struct harness *harness, const char *key, const char *value, uint64_t limit_ns)
{
    struct kv_command command = {
        .kind = KV_PUT, .key = bytes_of_string(key), .value = bytes_of_string(value)};
    return kv_do(harness, &command, limit_ns);
}

bool kv_put_many(struct harness *harness, const char *prefix, uint32_t count, size_t value_bytes,
                 uint64_t limit_ns)
{
    char *value = mem_alloc(value_bytes + 1);
    bool fine = true;
    memset(value, 'v', value_bytes);
    value[value_bytes] = '\0';
    for (uint32_t i = 0; i < count && fine; i++) {
        char key[64];
        snprintf(key, sizeof(key), "%s%u", prefix, i);
        fine = kv_put(harness, key, value, limit_ns);
    }
    free(value);
    return fine;
}

bool kv_get(struct harness *harness, const char *key, struct buf *out, uint64_t limit_ns)
{
    uint64_t end_ns = harness_now_ns(harness) + limit_ns;
    while (harness_now_ns(harness) < end_ns) {
        int leader = harness_wait_leader(harness, end_ns - harness_now_ns(harness));
        if (leader < 0) {
            return false;
        }
        struct kv_ask ask;
        kv_ask_init(&ask);
        kv_ask_get(harness, (uint32_t)leader, key, &ask);
        bool answered = kv_ask_wait(harness, &ask, 60 * SIM_S);
        ASSERT(answered);
        bool fine = ask.error == ERR_OK;
        if (fine) {
            buf_append_bytes(out, buf_view(&ask.value));
        }
        kv_ask_deinit(&ask);
        if (fine) {
            return true;
        }
        harness_run_for(harness, 10 * SIM_MS);
    }
    return false;
}

bool kv_holds(struct harness *harness, uint32_t slot, const char *key, const char *value)
{
    struct buf held;
    buf_init(&held);
    bool found = harness_is_up(harness, slot) &&
                 kv_machine_get(harness_machine_of(harness, slot), bytes_of_string(key), &held);
    bool equal = found && bytes_equal(buf_view(&held), bytes_of_string(value));
    buf_deinit(&held);
    return equal;
}

bool kv_all_equal(struct harness *harness)
{
    bool any = false;
    uint64_t first_hash = 0;
    struct raft_position first = {0, 0};
    for (uint32_t slot = 0; slot < HARNESS_SLOTS_MAX; slot++) {
        uint64_t hash;
        struct raft_position position;
        if (!harness_is_up(harness, slot)) {
            continue;
        }
        struct state_machine *sm = harness_machine_of(harness, slot);
        int error = sm->ops->hash(sm->sm, &hash, &position);
        ASSERT_CMP(error, ==, ERR_OK);
        if (any && (hash != first_hash || !raft_position_equal(position, first))) {
            return false;
        }
        any = true;
        first_hash = hash;
        first = position;
    }
    return any;
}
