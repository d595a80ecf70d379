/* What runs beside apply on the background thread and is no snapshot: flush, giving disk space
 * back, the hash of the state. */
#include "shardkv/kv_machine_internal.h"

#include "base/codec.h"

#include <stdlib.h>
#include <xxhash.h>

enum { HASH_ROWS_A_LOOK = 4096 }; /* rows between two looks at `replacing` */

/* ---- flush ---- */

void kv__reclaim_later(struct kv_machine *machine, uint32_t shard)
{
    pthread_mutex_lock(&machine->state_mutex);
    if (machine->reclaim_count == machine->reclaim_capacity) {
        machine->reclaim_capacity =
            machine->reclaim_capacity == 0 ? 16 : machine->reclaim_capacity * 2;
        machine->reclaim =
            mem_realloc(machine->reclaim, machine->reclaim_capacity * sizeof *machine->reclaim);
    }
    machine->reclaim[machine->reclaim_count] = shard;
    machine->reclaim_count++;
    pthread_mutex_unlock(&machine->state_mutex);
}

/* Deleted rows lie on the disk until their tables are compacted, which need not come by itself; and
 * it does nothing before the deletions are in tables too, so it is asked for after a flush. */
static void reclaim(struct kv_machine *machine, const uint32_t *shards, uint32_t count)
{
    const enum key_space spaces[] = {KEY_SPACE_DATA, KEY_SPACE_SESSION};
    for (uint32_t i = 0; i < count; i++) {
        for (size_t j = 0; j < sizeof spaces / sizeof spaces[0]; j++) {
            struct store_key from;
            struct store_key to;
            key_range(spaces[j], shards[i], &from, &to);
            machine->store.ops->reclaim(machine->store.store, store_key_view(&from),
                                        store_key_view(&to));
        }
    }
}

int kv__flush(void *sm)
{
    struct kv_machine *machine = sm;
    kv__gate_wait(machine);
    pthread_mutex_lock(&machine->state_mutex);
    struct raft_position position = machine->applied;
    uint32_t *dropped = machine->reclaim;
    uint32_t dropped_count = machine->reclaim_count;
    machine->reclaim = NULL;
    machine->reclaim_count = 0;
    machine->reclaim_capacity = 0;
    pthread_mutex_unlock(&machine->state_mutex);
    int error = machine->store.ops->flush(machine->store.store);
    if (error == 0) {
        pthread_mutex_lock(&machine->state_mutex);
        if (position.index > machine->durable.index) {
            machine->durable = position;
        }
        pthread_mutex_unlock(&machine->state_mutex);
        reclaim(machine, dropped, dropped_count);
    }
    free(dropped);
    kv__gate_leave(machine);
    return error;
}

/* ---- the hash ---- */

static int hash_rows(struct kv_machine *machine, const struct store_view *view, XXH3_state_t *state)
{
    const struct store_ops *ops = machine->store.ops;
    struct store_iterator *iterator =
        ops->iterator_create(machine->store.store, view, BYTES_EMPTY, BYTES_EMPTY);
    int error = 0;
    for (uint64_t i = 0; error == 0 && ops->iterator_valid(iterator); i++) {
        struct bytes key = ops->iterator_key(iterator);
        struct bytes value = ops->iterator_value(iterator);
        if (!bytes_equal(key, key_applied())) { /* how batches were cut is no part of the state */
            uint8_t sizes[16];
            store_u64(sizes, key.size);
            store_u64(sizes + 8, value.size);
            XXH3_64bits_update(state, sizes, sizeof sizes);
            XXH3_64bits_update(state, key.data, key.size);
            XXH3_64bits_update(state, value.data, value.size);
        }
        ops->iterator_next(iterator);
        if (i % HASH_ROWS_A_LOOK == 0 && atomic_load(&machine->replacing)) {
            error = ERR_BUSY;
        }
    }
    error = error != 0 ? error : ops->iterator_error(iterator);
    ops->iterator_destroy(iterator);
    return error;
}

int kv__hash(void *sm, uint64_t *hash, struct raft_position *position)
{
    struct kv_machine *machine = sm;
    int error = kv__gate_enter(machine);
    if (error != 0) {
        return error;
    }
    pthread_mutex_lock(&machine->apply_mutex);
    struct store_view *view = machine->store.ops->view_open(machine->store.store);
    pthread_mutex_lock(&machine->state_mutex);
    *position = machine->applied;
    pthread_mutex_unlock(&machine->state_mutex);
    pthread_mutex_unlock(&machine->apply_mutex);
    XXH3_state_t *state = XXH3_createState();
    ASSERT(state != NULL);
    XXH3_64bits_reset(state);
    error = hash_rows(machine, view, state);
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    machine->store.ops->view_close(machine->store.store, view);
    kv__gate_leave(machine);
    return error;
}
