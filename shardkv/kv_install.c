/* A shard's life, the destination's part: chunks and Install. Apply thread.
 *
 * A chunk is taken when it continues exactly where the pull stands: same config, same generation,
 * its `after_row` is our last row. Anything else is late or doubled and changes nothing. A chunk is
 * judged whole before any of it is put.
 *
 * An Install whose numbers are not the source's does not install: it begins the next generation,
 * whose first work is to delete, step by step, what the former one put. */
#include "shardkv/kv_machine_internal.h"

#include "base/codec.h"
#include "base/log.h"
#include "base/metrics.h"
#include "shardkv/move_rows.h"

#include <inttypes.h>

METRIC(move_rows_count, COUNTER, "rows received of moving shards");
METRIC(move_bytes, COUNTER, "bytes of rows received of moving shards");
METRIC(move_installed_count, COUNTER, "shards installed");
METRIC(move_restart_count, COUNTER, "pulls begun again because the rows did not add up");

struct chunk_sum {
    uint64_t rows;
    uint64_t bytes;
    uint64_t checksum;
    uint64_t sessions;
    uint64_t version; /* of the counter's row; 0: it was not there */
    struct bytes last_row;
};

static bool data_row_is_valid(struct bytes value)
{
    struct reader reader = reader_of(value);
    uint64_t version = get_varint(&reader);
    return !reader.failed && version > 0 && reader_left(&reader) <= VALUE_BYTES_MAX;
}

static bool session_row_is_valid(struct bytes value)
{
    struct session session;
    session_init(&session);
    int error = session_decode(value, &session);
    session_deinit(&session);
    return error == 0;
}

static bool version_row_read(struct bytes key, struct bytes value, uint64_t *version)
{
    struct reader reader = reader_of(value);
    *version = get_varint(&reader);
    return key.size == 1 && reader_done(&reader);
}

static bool row_judge(uint32_t shard, struct bytes key, struct bytes value, struct chunk_sum *sum)
{
    struct store_key store_key;
    switch (key.data[0]) {
    case KEY_SPACE_DATA:
        return key_of_row(shard, key, &store_key) && data_row_is_valid(value);
    case KEY_SPACE_SESSION:
        sum->sessions++;
        return key_of_row(shard, key, &store_key) && session_row_is_valid(value);
    case ROW_SPACE_VERSION:
        return version_row_read(key, value, &sum->version);
    default:
        return false;
    }
}

/* Everything that could be wrong with the rows, before any is put. */
static int chunk_judge(const struct kv_command *command, struct chunk_sum *sum)
{
    *sum = (struct chunk_sum){.last_row = command->after_row};
    struct reader reader = reader_of(command->rows);
    struct bytes key;
    struct bytes value;
    int error = 0;
    while ((error = move_row_next(&reader, &key, &value)) == 0) {
        if (bytes_compare(key, sum->last_row) <= 0 || !row_judge(command->shard, key, value, sum)) {
            return ERR_PROTOCOL;
        }
        sum->rows++;
        sum->bytes += key.size + value.size;
        sum->checksum += move_row_hash(key, value);
        sum->last_row = key;
    }
    if (error != ERR_NOT_FOUND || sum->rows == 0 ||
        !bytes_equal(sum->last_row, command->last_row)) {
        return ERR_PROTOCOL;
    }
    return 0;
}

static void chunk_put(struct kv_machine *machine, const struct kv_command *command,
                      uint64_t time_ms)
{
    struct reader reader = reader_of(command->rows);
    struct bytes key;
    struct bytes value;
    while (move_row_next(&reader, &key, &value) == 0) {
        struct store_key store_key;
        if (!key_of_row(command->shard, key, &store_key)) {
            continue; /* the counter's row: in the record */
        }
        if (key.data[0] == KEY_SPACE_SESSION) {
            buf_clear(&machine->scratch);
            int error = move_session_unpack(value, time_ms, &machine->scratch);
            ASSERT(error == 0); /* judged before */
            value = buf_view(&machine->scratch);
        }
        machine->store.ops->batch_put(machine->batch, store_key_view(&store_key), value);
    }
    machine->batch_rows = true;
}

/* The record when the command belongs to the attempt that is under way; else NULL with the answer.
 */
static struct shard_record *pull_of(struct kv_machine *machine, const struct kv_command *command,
                                    int *answer)
{
    struct shard_record *record = kv__shard(machine, command->shard);
    *answer = 0;
    if (record == NULL) {
        *answer = ERR_SHARD_RANGE;
        return NULL;
    }
    bool current = record->state == SHARD_PULLING && record->number == command->number &&
                   record->generation == command->generation && !record->clearing;
    if (!current) {
        *answer = ERR_EXISTS; /* an old driver's, or one that came twice: nothing to do */
        return NULL;
    }
    return record;
}

int kv__apply_chunk(struct kv_machine *machine, const struct kv_command *command, uint64_t time_ms,
                    int *answer)
{
    struct shard_record *record = pull_of(machine, command, answer);
    if (record == NULL) {
        return 0;
    }
    if (record->complete || !bytes_equal(command->after_row, shard_record_last_row(record))) {
        *answer = ERR_EXISTS;
        return 0;
    }
    struct chunk_sum sum;
    *answer = chunk_judge(command, &sum);
    if (*answer != 0) {
        return 0;
    }
    chunk_put(machine, command, time_ms);
    record->rows += sum.rows;
    record->bytes += sum.bytes;
    record->checksum += sum.checksum;
    record->session_count += sum.sessions;
    if (sum.version > record->version) {
        record->version = sum.version;
    }
    record->complete = command->end;
    shard_record_set_last_row(record, sum.last_row);
    kv__shard_touch(machine, command->shard);
    machine->table_dirty = true;
    metric_add(&move_rows_count, sum.rows);
    metric_add(&move_bytes, sum.bytes);
    return 0;
}

static void restart(struct kv_machine *machine, uint32_t shard)
{
    struct shard_record *record = &machine->shards[shard];
    shard_record_restart(record);
    record->clearing = true;
    kv__shard_touch(machine, shard);
    machine->table_dirty = true;
    metric_add(&move_restart_count, 1);
    log_event(LOG_WARN, "move.restarted", "shard=%u config=%" PRIu64 " generation=%" PRIu64,
              (unsigned)shard, record->number, record->generation);
}

/* So that the source is told to drop, whatever becomes of this process and of later configs. */
static void remember_drop(struct kv_machine *machine, uint32_t shard,
                          const struct shard_record *record)
{
    const struct config_group *source =
        config_find_group(config_share_get(machine->config), record->peer_group);
    struct config_group unknown = {.id = record->peer_group};
    struct buf packed = {0};
    pending_source_encode(source == NULL ? &unknown : source, &packed);
    struct store_key key;
    key_of_pending(shard, record->number, &key);
    machine->store.ops->batch_put(machine->batch, store_key_view(&key), buf_view(&packed));
    machine->batch_meta = true;
    kv__pending_add(machine, shard, record->number, blob_take_buf(&packed));
}

int kv__apply_install(struct kv_machine *machine, const struct kv_command *command, int *answer)
{
    struct shard_record *record = pull_of(machine, command, answer);
    if (record == NULL) {
        return 0;
    }
    if (!record->complete) {
        *answer = ERR_BUSY;
        return 0;
    }
    if (record->rows != command->row_count || record->bytes != command->row_bytes ||
        record->checksum != command->checksum) {
        log_event(LOG_WARN, "move.mismatch",
                  "shard=%u config=%" PRIu64 " rows=%" PRIu64 " expected_rows=%" PRIu64,
                  (unsigned)command->shard, record->number, record->rows, command->row_count);
        restart(machine, command->shard);
        *answer = ERR_CORRUPT;
        return 0;
    }
    remember_drop(machine, command->shard, record);
    struct shard_record serving = {
        .state = SHARD_SERVING,
        .number = record->number,
        .version = record->version,
        .session_count = record->session_count,
    };
    metric_add(&move_installed_count, 1);
    log_event(LOG_INFO, "shard.installed",
              "shard=%u config=%" PRIu64 " source=%" PRIu64 " rows=%" PRIu64 " bytes=%" PRIu64,
              (unsigned)command->shard, record->number, record->peer_group, record->rows,
              record->bytes);
    shard_record_clear(record);
    *record = serving;
    kv__shard_touch(machine, command->shard);
    machine->table_dirty = true;
    return 0;
}
