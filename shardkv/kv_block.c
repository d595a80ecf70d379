/* Blocks of operations: applied from the log, and read. Apply thread.
 *
 * An operation is executed when its shard is SERVING, and then it ends in a result that is kept in
 * the client's session; what is refused (wrong group, full tables, too old) is not executed and not
 * kept, so that the same sequence may run elsewhere or later. */
#include "shardkv/kv_machine_internal.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "proto/command.h"

#include <string.h>

struct block_run {
    struct kv_machine *machine;
    const struct block_header *header;
    uint64_t time_ms;
    uint8_t flags;
};

/* A row as the batch sees it. */
struct row_view {
    bool found;
    uint64_t version;
    struct bytes value;
    struct store_value pinned;
};

static int parse_data_row(struct bytes stored, struct row_view *out)
{
    struct reader reader = reader_of(stored);
    out->version = get_varint(&reader);
    out->value = get_bytes(&reader, reader_left(&reader));
    out->found = true;
    return reader.failed ? ERR_CORRUPT : 0;
}

static int row_get(struct kv_machine *machine, uint32_t shard, struct bytes key,
                   struct row_view *out)
{
    *out = (struct row_view){0};
    const struct overlay_row *row = overlay_find(&machine->overlay, shard, key);
    if (row != NULL) {
        out->found = !row->deleted;
        out->version = row->version;
        out->value = row->value;
        return 0;
    }
    struct store_key store_key;
    key_of_data(shard, key, &store_key);
    int error = machine->store.ops->get(machine->store.store, NULL, store_key_view(&store_key),
                                        &out->pinned);
    if (error == ERR_NOT_FOUND) {
        return 0;
    }
    return error != 0 ? error : parse_data_row(out->pinned.bytes, out);
}

static void row_release(struct kv_machine *machine, struct row_view *row)
{
    machine->store.ops->value_release(machine->store.store, &row->pinned);
}

static uint64_t next_version(struct kv_machine *machine, uint32_t shard)
{
    kv__shard_touch(machine, shard);
    machine->shards[shard].version++;
    return machine->shards[shard].version;
}

/* ---- the operations
 * ------------------------------------------------------------------------------------------ */

static int run_append(struct kv_machine *machine, const struct op *op, struct op_result *result)
{
    struct row_view row;
    int error = row_get(machine, op->shard, op->key, &row);
    if (error != 0) {
        return error;
    }
    if (op->value.size > VALUE_BYTES_MAX - row.value.size) {
        result->error = ERR_TOO_LARGE;
        result->version = row.version;
    } else {
        result->version = next_version(machine, op->shard);
        overlay_row_append(overlay_row_of(&machine->overlay, op->shard, op->key), row.value,
                           op->value, result->version);
    }
    row_release(machine, &row);
    return 0;
}

static int run_cas(struct kv_machine *machine, const struct op *op, struct op_result *result)
{
    struct row_view row;
    int error = row_get(machine, op->shard, op->key, &row);
    if (error != 0) {
        return error;
    }
    if (row.version != op->expected_version) {
        result->error = ERR_VERSION_MISMATCH;
        result->version = row.version;
    } else {
        result->version = next_version(machine, op->shard);
        overlay_row_set(overlay_row_of(&machine->overlay, op->shard, op->key), op->value,
                        result->version);
    }
    row_release(machine, &row);
    return 0;
}

static int run(struct kv_machine *machine, const struct op *op, struct op_result *result)
{
    switch (op->kind) {
    case OP_PUT:
        result->version = next_version(machine, op->shard);
        overlay_row_set(overlay_row_of(&machine->overlay, op->shard, op->key), op->value,
                        result->version);
        return 0;
    case OP_DELETE: /* of an absent key too: no read, and done either way */
        overlay_row_delete(overlay_row_of(&machine->overlay, op->shard, op->key));
        return 0;
    case OP_APPEND:
        return run_append(machine, op, result);
    case OP_CAS:
        return run_cas(machine, op, result);
    case OP_GET: /* never in the log */
        result->error = ERR_PROTOCOL;
        return 0;
    }
    UNREACHABLE();
}

/* ---- sessions ---- */

/* The client's session of this shard, made if it has none. *refused: SESSIONS_FULL. */
static int session_of(struct kv_machine *machine, uint32_t shard, uint64_t client_id,
                      struct session_entry **out, int *refused)
{
    int error = session_cache_get(&machine->sessions, &machine->store, shard, client_id, out);
    if (error != ERR_NOT_FOUND) {
        return error;
    }
    if (machine->shards[shard].session_count >= machine->options.sessions_per_shard_max) {
        *refused = ERR_SESSIONS_FULL;
        return 0;
    }
    machine->shards[shard].session_count++;
    kv__shard_touch(machine, shard);
    if (machine->shards[shard].session_count == 1) {
        machine->table_dirty =
            true; /* the driver wants to know whether there is anything to expire */
    }
    *out = session_cache_add(&machine->sessions, shard, client_id);
    return 0;
}

static int run_with_session(struct block_run *block, const struct op *op, uint32_t fingerprint,
                            struct op_result *result)
{
    struct kv_machine *machine = block->machine;
    struct session_entry *entry = NULL;
    int error = session_of(machine, op->shard, block->header->client_id, &entry, &result->error);
    if (error != 0 || result->error != 0) {
        return error;
    }
    const struct session_result *kept = NULL;
    session_cache_mark_dirty(&machine->sessions, entry);
    switch (session_check(&entry->session, block->header->acked_below, op->sequence, fingerprint,
                          block->time_ms, &kept)) {
    case SESSION_EXECUTE:
        break;
    case SESSION_REPEAT:
        result->error = err_from_wire(kept->code);
        result->version = kept->version;
        return 0;
    case SESSION_STALE:
        result->error = ERR_SEQUENCE_STALE;
        return 0;
    case SESSION_REUSED:
        result->error = ERR_SEQUENCE_REUSED;
        return 0;
    case SESSION_FULL:
        result->error = ERR_BUSY;
        return 0;
    }
    error = run(machine, op, result);
    if (error == 0) {
        session_record(&entry->session, &(struct session_result){
                                            .sequence = op->sequence,
                                            .fingerprint = fingerprint,
                                            .code = err_to_wire(result->error),
                                            .version = result->version,
                                        });
    }
    return error;
}

/* ---- blocks ---- */

static int run_op(struct block_run *block, const struct op *op, uint32_t fingerprint,
                  struct op_result *result)
{
    const struct shard_record *record = kv__shard(block->machine, op->shard);
    result->error = record == NULL ? ERR_WRONG_GROUP : kv__serves(block->machine, record);
    if (result->error != 0) {
        block->flags |= KV_RESULT_REFUSED;
        return 0;
    }
    if (block->header->client_id == 0) {
        return run(block->machine, op, result);
    }
    if (block->header->age_ms > COMMAND_AGE_MS_MAX) {
        result->error = ERR_SESSION_EXPIRED;
        return 0;
    }
    return run_with_session(block, op, fingerprint, result);
}

int kv__apply_block(struct kv_machine *machine, const struct sm_command *command)
{
    struct block_reader reader;
    struct buf *out = command->result;
    if (block_open(command->payload, &reader) != 0) {
        return 0; /* the leader checked it before; whoever waits sees an empty answer */
    }
    struct block_run block = {
        .machine = machine, .header = &reader.header, .time_ms = command->time_ms};
    size_t flags_at = 0;
    if (out != NULL) {
        flags_at = out->size;
        put_u8(out, 0);
        results_put_count(out, reader.header.count);
    }
    for (uint32_t i = 0; i < reader.header.count; i++) {
        struct op op = {.kind = OP_PUT};
        struct op_result result = {0};
        const uint8_t *start = reader.reader.at;
        result.error = block_next(&reader, &op);
        if (result.error == 0) {
            uint32_t fingerprint = crc32c_extend(0, start, (size_t)(reader.reader.at - start));
            int error = run_op(&block, &op, fingerprint, &result);
            if (error != 0) {
                return error;
            }
        }
        if (out != NULL) {
            results_put(out, op.kind, &result);
        }
    }
    if (out != NULL) {
        out->data[flags_at] = block.flags;
    }
    return 0;
}

/* ---- reading ---- */

/* Appends one get's result. A value that does not fit any more is answered BUSY: it was not read,
 * ask again. */
static int read_one(struct kv_machine *machine, const struct op *op, size_t *value_bytes,
                    uint8_t *flags, struct buf *out)
{
    struct op_result result = {0};
    struct row_view row = {0};
    const struct shard_record *record = kv__shard(machine, op->shard);
    result.error = record == NULL ? ERR_WRONG_GROUP : kv__serves(machine, record);
    if (result.error != 0) {
        *flags |= KV_RESULT_REFUSED;
    } else {
        int error = row_get(machine, op->shard, op->key, &row);
        if (error != 0) {
            return error;
        }
        if (!row.found) {
            result.error = ERR_NOT_FOUND;
        } else if (row.value.size > VALUE_BYTES_MAX - *value_bytes) {
            result.error = ERR_BUSY;
        } else {
            *value_bytes += row.value.size;
            result.version = row.version;
            result.value = row.value;
        }
    }
    results_put(out, OP_GET, &result);
    row_release(machine, &row);
    return 0;
}

int kv_machine_read(struct kv_machine *machine, struct bytes bytes, struct buf *out)
{
    struct block_reader reader;
    if (block_open(bytes, &reader) != 0) {
        return 0;
    }
    ASSERT(!kv__is_unwritten(machine));
    size_t flags_at = out->size;
    put_u8(out, 0);
    results_put_count(out, reader.header.count);
    size_t value_bytes = 0;
    uint8_t flags = 0;
    for (uint32_t i = 0; i < reader.header.count; i++) {
        struct op op = {.kind = OP_GET};
        int error = block_next(&reader, &op);
        if (error != 0) {
            struct op_result result = {.error = error};
            results_put(out, OP_GET, &result);
            continue;
        }
        error = read_one(machine, &op, &value_bytes, &flags, out);
        if (error != 0) {
            return error;
        }
    }
    out->data[flags_at] = flags;
    return 0;
}
