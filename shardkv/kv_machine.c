/* The state machine's frame: loading, the batch, what is written when, the published table. Threads
 * and invariants: kv_machine.h.
 *
 * How a batch is written. Blocks change the overlay, sessions and shard records in memory; at the
 * end of the batch all of it becomes one store write together with `ma`. A command that scans rows
 * (a step, an expiry, a chunk) must see what earlier commands of its batch did, and later ones must
 * see what it did: around it stands a barrier, which writes what there is at once. So that a crash
 * between two writes of one batch does no harm, a barrier's `ma` keeps the old `applied` and says
 * how many commands of which entry are in; replay skips exactly those. */
#include "shardkv/kv_machine_internal.h"

#include "base/codec.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_CACHE_BYTES_DEFAULT (8ull * 1024 * 1024)

enum { SCRATCH_BYTES_KEPT_MAX = 1024 * 1024 };

/* ---- `ma` ---- */

static void put_applied(struct kv_machine *machine, struct raft_position position)
{
    buf_clear(&machine->scratch);
    put_u64(&machine->scratch, position.index);
    put_u64(&machine->scratch, position.term);
    put_u64(&machine->scratch, machine->partial_index);
    put_u32(&machine->scratch, machine->partial_count);
    machine->store.ops->batch_put(machine->batch, key_applied(), buf_view(&machine->scratch));
}

static int load_applied(struct kv_machine *machine)
{
    struct store_value value;
    machine->partial_index = 0;
    machine->partial_count = 0;
    struct raft_position position = {0};
    int error = machine->store.ops->get(machine->store.store, NULL, key_applied(), &value);
    if (error == 0) {
        struct reader reader = reader_of(value.bytes);
        position.index = get_u64(&reader);
        position.term = get_u64(&reader);
        machine->partial_index = get_u64(&reader);
        machine->partial_count = get_u32(&reader);
        error = reader_done(&reader) ? 0 : ERR_CORRUPT;
        machine->store.ops->value_release(machine->store.store, &value);
    } else if (error == ERR_NOT_FOUND) {
        error = 0;
    }
    pthread_mutex_lock(&machine->state_mutex);
    machine->applied = position;
    machine->durable = position; /* what was just loaded has survived */
    pthread_mutex_unlock(&machine->state_mutex);
    return error;
}

void kv__set_applied(struct kv_machine *machine, struct raft_position position)
{
    pthread_mutex_lock(&machine->state_mutex);
    machine->applied = position;
    pthread_mutex_unlock(&machine->state_mutex);
}

static struct raft_position get_applied(void *sm)
{
    struct kv_machine *machine = sm;
    pthread_mutex_lock(&machine->state_mutex);
    struct raft_position position = machine->applied;
    pthread_mutex_unlock(&machine->state_mutex);
    return position;
}

static struct raft_position get_durable(void *sm)
{
    struct kv_machine *machine = sm;
    pthread_mutex_lock(&machine->state_mutex);
    struct raft_position position = machine->durable;
    pthread_mutex_unlock(&machine->state_mutex);
    return position;
}

/* ---- shard records and pending drops
 * ------------------------------------------------------------------------- */

struct shard_record *kv__shard(struct kv_machine *machine, uint32_t shard)
{
    return shard < machine->shard_count ? &machine->shards[shard] : NULL;
}

void kv__shard_touch(struct kv_machine *machine, uint32_t shard)
{
    ASSERT_CMP(shard, <, machine->shard_count);
    if (!machine->shard_dirty[shard]) {
        machine->shard_dirty[shard] = true;
        machine->dirty_shards[machine->dirty_shard_count] = shard;
        machine->dirty_shard_count++;
    }
}

static int compare_pending(const struct pending_drop *drop, uint32_t shard, uint64_t number)
{
    if (drop->shard != shard) {
        return drop->shard < shard ? -1 : 1;
    }
    return drop->number < number ? -1 : drop->number > number;
}

void kv__pending_add(struct kv_machine *machine, uint32_t shard, uint64_t number,
                     struct blob *source)
{
    if (machine->pending_count == machine->pending_capacity) {
        machine->pending_capacity =
            machine->pending_capacity == 0 ? 16 : machine->pending_capacity * 2;
        machine->pending =
            mem_realloc(machine->pending, machine->pending_capacity * sizeof *machine->pending);
    }
    uint32_t at = machine->pending_count;
    while (at > 0 && compare_pending(&machine->pending[at - 1], shard, number) > 0) {
        machine->pending[at] = machine->pending[at - 1];
        at--;
    }
    machine->pending[at] = (struct pending_drop){shard, number, source};
    machine->pending_count++;
    machine->table_dirty = true;
}

bool kv__pending_remove(struct kv_machine *machine, uint32_t shard, uint64_t number)
{
    for (uint32_t i = 0; i < machine->pending_count; i++) {
        if (compare_pending(&machine->pending[i], shard, number) == 0) {
            blob_unref(machine->pending[i].source);
            machine->pending_count--;
            memmove(&machine->pending[i], &machine->pending[i + 1],
                    (machine->pending_count - i) * sizeof *machine->pending);
            machine->table_dirty = true;
            return true;
        }
    }
    return false;
}

void kv__publish(struct kv_machine *machine)
{
    struct kv_table *table =
        kv_table_create(machine->options.group_id, machine->config, machine->shards,
                        machine->pending, machine->pending_count);
    table->serves_from = machine->serves_from;
    pthread_mutex_lock(&machine->state_mutex);
    struct kv_table *old = machine->table;
    machine->table = table;
    pthread_mutex_unlock(&machine->state_mutex);
    kv_table_unref(old);
    machine->table_dirty = false;
    if (machine->options.changed != NULL) {
        machine->options.changed(machine->options.context);
    }
}

struct kv_table *kv_machine_table(struct kv_machine *machine)
{
    pthread_mutex_lock(&machine->state_mutex);
    struct kv_table *table = kv_table_ref(machine->table);
    pthread_mutex_unlock(&machine->state_mutex);
    return table;
}

/* ---- writing ---- */

static void write_overlay(struct kv_machine *machine)
{
    overlay_sort(&machine->overlay);
    for (uint32_t i = 0; i < machine->overlay.count; i++) {
        const struct overlay_row *row = &machine->overlay.rows[i];
        struct store_key key;
        key_of_data(row->shard, row->key, &key);
        if (row->deleted) {
            machine->store.ops->batch_delete(machine->batch, store_key_view(&key));
            continue;
        }
        buf_clear(&machine->scratch);
        put_varint(&machine->scratch, row->version);
        buf_append_bytes(&machine->scratch, row->value);
        machine->store.ops->batch_put(machine->batch, store_key_view(&key),
                                      buf_view(&machine->scratch));
    }
    overlay_clear(&machine->overlay);
}

static void write_shards(struct kv_machine *machine)
{
    for (uint32_t i = 0; i < machine->dirty_shard_count; i++) {
        uint32_t shard = machine->dirty_shards[i];
        machine->shard_dirty[shard] = false;
        struct store_key key;
        key_of_shard(shard, &key);
        if (machine->shards[shard].state == SHARD_ABSENT) {
            machine->store.ops->batch_delete(machine->batch, store_key_view(&key));
            continue;
        }
        buf_clear(&machine->scratch);
        shard_record_encode(&machine->shards[shard], &machine->scratch);
        machine->store.ops->batch_put(machine->batch, store_key_view(&key),
                                      buf_view(&machine->scratch));
    }
    machine->dirty_shard_count = 0;
}

bool kv__is_unwritten(const struct kv_machine *machine)
{
    return machine->overlay.count > 0 || session_cache_has_dirty(&machine->sessions) ||
           machine->dirty_shard_count > 0 || machine->batch_rows || machine->batch_meta;
}

static int write_all(struct kv_machine *machine, struct raft_position position)
{
    write_overlay(machine);
    session_cache_write(&machine->sessions, &machine->store, machine->batch, &machine->scratch);
    write_shards(machine);
    put_applied(machine, position);
    int error = machine->store.ops->write(machine->store.store, machine->batch);
    machine->batch_rows = false;
    machine->batch_meta = false;
    return error;
}

int kv__barrier(struct kv_machine *machine, uint64_t index, uint32_t count)
{
    machine->partial_index = index;
    machine->partial_count = count;
    return write_all(machine, get_applied(machine));
}

/* ---- applying ---- */

static bool needs_barrier(const struct kv_machine *machine, enum kv_command_kind kind)
{
    switch (kind) {
    case KV_COMMAND_BLOCK: /* reads single rows: overlay and cache know all but what was put
                              directly */
        return machine->batch_rows;
    case KV_COMMAND_CHUNK:
    case KV_COMMAND_STEP:
    case KV_COMMAND_EXPIRE: /* scan rows, or write them directly after others */
        return kv__is_unwritten(machine);
    case KV_COMMAND_CONFIG:
    case KV_COMMAND_INSTALL:
    case KV_COMMAND_DROP:
    case KV_COMMAND_DROP_CONFIRMED: /* records in memory only */
        return false;
    }
    return false;
}

static int apply_lifecycle(struct kv_machine *machine, const struct kv_command *command,
                           uint64_t time_ms, int *answer)
{
    switch (command->kind) {
    case KV_COMMAND_CONFIG:
        return kv__apply_config(machine, command, time_ms, answer);
    case KV_COMMAND_CHUNK:
        return kv__apply_chunk(machine, command, time_ms, answer);
    case KV_COMMAND_INSTALL:
        return kv__apply_install(machine, command, answer);
    case KV_COMMAND_DROP:
        return kv__apply_drop(machine, command, answer);
    case KV_COMMAND_STEP:
        return kv__apply_step(machine, command, answer);
    case KV_COMMAND_DROP_CONFIRMED:
        return kv__apply_drop_confirmed(machine, command, answer);
    case KV_COMMAND_EXPIRE:
        return kv__apply_expire(machine, command, time_ms, answer);
    case KV_COMMAND_BLOCK:
        break;
    }
    UNREACHABLE();
}

/* `ordinal`: how many commands of the same entry came before this one. */
static int apply_command(struct kv_machine *machine, const struct sm_command *command,
                         uint32_t ordinal)
{
    if (command->position.index < machine->partial_index ||
        (command->position.index == machine->partial_index && ordinal < machine->partial_count)) {
        return 0; /* in the store already: a barrier was durable before the crash */
    }
    struct kv_command decoded;
    int answer = kv_command_decode(command->payload, &decoded);
    int error = 0;
    if (answer == 0) {
        if (needs_barrier(machine, decoded.kind)) {
            error = kv__barrier(machine, command->position.index, ordinal);
        }
        if (error == 0 && decoded.kind == KV_COMMAND_BLOCK) {
            return kv__apply_block(machine, command);
        }
        if (error == 0) {
            error = apply_lifecycle(machine, &decoded, command->time_ms, &answer);
        }
    }
    if (error == 0 && command->result != NULL) {
        put_varint(command->result, err_to_wire(answer));
    }
    return error;
}

static int apply(void *sm, const struct sm_batch *batch)
{
    struct kv_machine *machine = sm;
    int error = 0;
    pthread_mutex_lock(&machine->apply_mutex);
    uint32_t ordinal = 0;
    for (size_t i = 0; i < batch->count && error == 0; i++) {
        const struct sm_command *command = &batch->commands[i];
        bool same_entry = i > 0 && batch->commands[i - 1].position.index == command->position.index;
        ordinal = same_entry ? ordinal + 1 : 0;
        error = apply_command(machine, command, ordinal);
    }
    if (error == 0) {
        if (machine->partial_index <= batch->last.index) {
            machine->partial_index = 0;
            machine->partial_count = 0;
        } /* else this replay was cut before what a barrier wrote: the next batch skips on */
        error = write_all(machine, batch->last);
    }
    if (machine->scratch.capacity > SCRATCH_BYTES_KEPT_MAX) {
        buf_deinit(&machine->scratch);
    }
    if (error == 0) {
        session_cache_trim(&machine->sessions);
        kv__set_applied(machine, batch->last);
        if (machine->table_dirty) {
            kv__publish(machine);
        }
    }
    pthread_mutex_unlock(&machine->apply_mutex);
    return error;
}

/* ---- loading ---- */

static int load_serves_from(struct kv_machine *machine)
{
    struct store_value value;
    int error = machine->store.ops->get(machine->store.store, NULL, key_serves_from(), &value);
    if (error != 0) {
        return error == ERR_NOT_FOUND ? ERR_CORRUPT : error; /* written with the first config */
    }
    bool whole = value.bytes.size == sizeof machine->serves_from;
    machine->serves_from = whole ? load_u64(value.bytes.data) : 0;
    machine->store.ops->value_release(machine->store.store, &value);
    return whole ? 0 : ERR_CORRUPT;
}

static int load_config(struct kv_machine *machine)
{
    struct store_value value;
    int error = machine->store.ops->get(machine->store.store, NULL, key_config(), &value);
    if (error == ERR_NOT_FOUND) {
        return 0;
    }
    if (error != 0) {
        return error;
    }
    struct config *config = NULL;
    error = config_decode(value.bytes, &config);
    machine->store.ops->value_release(machine->store.store, &value);
    if (error != 0) {
        return ERR_CORRUPT;
    }
    error = load_serves_from(machine);
    if (error != 0) {
        config_free(config);
        return error;
    }
    machine->config = config_share_create(config);
    machine->shard_count = config->shard_count;
    machine->shards = mem_calloc(machine->shard_count, sizeof *machine->shards);
    machine->shard_dirty = mem_calloc(machine->shard_count, sizeof *machine->shard_dirty);
    machine->dirty_shards = mem_calloc(machine->shard_count, sizeof *machine->dirty_shards);
    return 0;
}

static int load_shard_row(struct kv_machine *machine, struct bytes key, struct bytes value)
{
    uint32_t shard = 0;
    if (!key_parse_shard(key, &shard) || shard >= machine->shard_count) {
        return ERR_CORRUPT;
    }
    return shard_record_decode(value, &machine->shards[shard]);
}

static int load_pending_row(struct kv_machine *machine, struct bytes key, struct bytes value)
{
    uint32_t shard = 0;
    uint64_t number = 0;
    struct config_group group;
    if (!key_parse_pending(key, &shard, &number) || pending_source_decode(value, &group) != 0) {
        return ERR_CORRUPT;
    }
    kv__pending_add(machine, shard, number, blob_copy(value));
    return 0;
}

static int load_rows(struct kv_machine *machine, const struct store_key *from,
                     const struct store_key *to,
                     int (*load_row)(struct kv_machine *, struct bytes, struct bytes))
{
    const struct store_ops *ops = machine->store.ops;
    struct store_iterator *iterator =
        ops->iterator_create(machine->store.store, NULL, store_key_view(from), store_key_view(to));
    int error = 0;
    while (error == 0 && ops->iterator_valid(iterator)) {
        error = load_row(machine, ops->iterator_key(iterator), ops->iterator_value(iterator));
        ops->iterator_next(iterator);
    }
    error = error != 0 ? error : ops->iterator_error(iterator);
    ops->iterator_destroy(iterator);
    return error;
}

int kv__load(struct kv_machine *machine, char *why, size_t why_size)
{
    const char *what = "the applied position (ma)";
    int error = load_applied(machine);
    if (error == 0) {
        what = "the config (mc)";
        error = load_config(machine);
    }
    struct store_key from;
    struct store_key to;
    if (error == 0) {
        what = "a shard record (h)";
        key_range_all_shards(&from, &to);
        error = load_rows(machine, &from, &to, load_shard_row);
    }
    if (error == 0) {
        what = "a pending drop (mp)";
        key_range_pending(&from, &to);
        error = load_rows(machine, &from, &to, load_pending_row);
    }
    if (error != 0) {
        snprintf(why, why_size, "the store's row of %s cannot be read: %s", what, err_text(error));
    }
    return error;
}

void kv__unload(struct kv_machine *machine)
{
    overlay_clear(&machine->overlay);
    session_cache_clear(&machine->sessions);
    for (uint32_t i = 0; i < machine->shard_count; i++) {
        shard_record_clear(&machine->shards[i]);
    }
    for (uint32_t i = 0; i < machine->pending_count; i++) {
        blob_unref(machine->pending[i].source);
    }
    free(machine->pending);
    free(machine->shards);
    free(machine->shard_dirty);
    free(machine->dirty_shards);
    machine->serves_from = 0;
    config_share_unref(machine->config);
    machine->pending = NULL;
    machine->pending_count = 0;
    machine->pending_capacity = 0;
    machine->shards = NULL;
    machine->shard_dirty = NULL;
    machine->dirty_shards = NULL;
    machine->dirty_shard_count = 0;
    machine->shard_count = 0;
    machine->config = NULL;
}

int kv_machine_create(const struct kv_machine_options *options, struct kv_machine **out, char *why,
                      size_t why_size)
{
    struct kv_machine *machine = mem_calloc(1, sizeof *machine);
    machine->options = *options;
    machine->store = *options->store;
    machine->options.store = &machine->store;
    if (machine->options.sessions_per_shard_max == 0) {
        machine->options.sessions_per_shard_max = KV_SESSIONS_PER_SHARD_MAX;
    }
    pthread_mutex_init(&machine->apply_mutex, NULL);
    pthread_mutex_init(&machine->state_mutex, NULL);
    pthread_rwlock_init(&machine->gate, NULL);
    atomic_init(&machine->replacing, false);
    session_cache_init(&machine->sessions, options->session_cache_bytes > 0
                                               ? options->session_cache_bytes
                                               : SESSION_CACHE_BYTES_DEFAULT);
    overlay_init(&machine->overlay);
    machine->batch = machine->store.ops->batch_create(machine->store.store);
    int error = kv__load(machine, why, why_size);
    if (error != 0) {
        kv_machine_destroy(machine);
        return error;
    }
    kv__publish(machine);
    *out = machine;
    return 0;
}

void kv_machine_destroy(struct kv_machine *machine)
{
    if (machine == NULL) {
        return;
    }
    kv__unload(machine);
    kv_table_unref(machine->table);
    machine->store.ops->batch_destroy(machine->batch);
    session_cache_deinit(&machine->sessions);
    overlay_deinit(&machine->overlay);
    buf_deinit(&machine->scratch);
    free(machine->reclaim);
    pthread_rwlock_destroy(&machine->gate);
    pthread_mutex_destroy(&machine->state_mutex);
    pthread_mutex_destroy(&machine->apply_mutex);
    free(machine);
}

static const struct state_machine_ops machine_ops = {
    .apply = apply,
    .applied = get_applied,
    .durable = get_durable,
    .flush = kv__flush,
    .snapshot_open = kv__snapshot_open,
    .snapshot_read = kv__snapshot_read,
    .snapshot_close = kv__snapshot_close,
    .receive_open = kv__receive_open,
    .receive_write = kv__receive_write,
    .receive_finish = kv__receive_finish,
    .receive_close = kv__receive_close,
    .restore = kv__restore,
    .hash = kv__hash,
};

struct state_machine kv_machine_ops(struct kv_machine *machine)
{
    return (struct state_machine){.ops = &machine_ops, .sm = machine};
}
