#include "kv_fixture.h"

#include "base/assert.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- logs ---- */

void kv_log_deinit(struct kv_log *log)
{
    for (size_t i = 0; i < log->count; i++) {
        blob_unref(log->commands[i].payload);
    }
    free(log->commands);
    *log = (struct kv_log){0};
}

void kv_log_entry(struct kv_log *log, uint64_t ms)
{
    log->last_index++;
    log->time_ms += ms;
}

void kv_log_add(struct kv_log *log, struct buf *payload)
{
    if (log->count == log->capacity) {
        log->capacity = log->capacity == 0 ? 64 : log->capacity * 2;
        log->commands = mem_realloc(log->commands, log->capacity * sizeof *log->commands);
    }
    log->commands[log->count] =
        (struct log_command){log->last_index, log->time_ms, blob_take_buf(payload)};
    log->count++;
}

/* ---- replicas ---- */

static void open_machine(struct kv_replica *replica)
{
    char why[256] = "";
    struct kv_machine_options options = {
        .group_id = replica->group_id,
        .store = &replica->store,
        .vfs = vfs_system(),
        .session_cache_bytes = replica->session_cache_bytes,
        .sessions_per_shard_max = replica->sessions_max,
    };
    int error = kv_machine_create(&options, &replica->machine, why, sizeof why);
    assert_string_equal(why, "");
    assert_int_equal(error, 0);
    replica->sm = kv_machine_ops(replica->machine);
}

void kv_replica_open(struct kv_replica *replica, uint64_t group_id)
{
    replica->fake = fake_store_create(vfs_system());
    replica->store = fake_store_as_store(replica->fake);
    replica->group_id = group_id;
    replica->next = 0;
    open_machine(replica);
}

void kv_replica_close(struct kv_replica *replica)
{
    kv_machine_destroy(replica->machine);
    fake_store_destroy(replica->fake);
}

void kv_replica_crash(struct kv_replica *replica, size_t keep)
{
    kv_machine_destroy(replica->machine);
    fake_store_crash(replica->fake, keep);
    open_machine(replica);
    replica->next = SIZE_MAX; /* found again by the next apply */
}

static void find_next(struct kv_replica *replica, const struct kv_log *log)
{
    uint64_t applied = replica->sm.ops->applied(replica->sm.sm).index;
    if (replica->next == SIZE_MAX) {
        replica->next = 0;
        while (replica->next < log->count && log->commands[replica->next].index <= applied) {
            replica->next++;
        }
    }
}

void kv_replica_apply(struct kv_replica *replica, const struct kv_log *log, uint64_t index,
                      struct buf *results)
{
    find_next(replica, log);
    size_t count = 0;
    while (replica->next + count < log->count &&
           log->commands[replica->next + count].index <= index) {
        count++;
    }
    struct sm_command *commands = mem_calloc(count + 1, sizeof *commands);
    for (size_t i = 0; i < count; i++) {
        const struct log_command *command = &log->commands[replica->next + i];
        commands[i] = (struct sm_command){
            .position = {command->index, 1},
            .time_ms = command->time_ms,
            .payload = blob_view(command->payload),
            .result = results,
        };
    }
    struct sm_batch batch = {.commands = commands, .count = count, .last = {index, 1}};
    assert_int_equal(replica->sm.ops->apply(replica->sm.sm, &batch), 0);
    assert_int_equal(replica->sm.ops->applied(replica->sm.sm).index, index);
    replica->next += count;
    free(commands);
}

void kv_replica_apply_random(struct kv_replica *replica, const struct kv_log *log, struct rng *rng)
{
    uint64_t applied = replica->sm.ops->applied(replica->sm.sm).index;
    while (applied < log->last_index) {
        uint64_t left = log->last_index - applied;
        applied += 1 + rng_below(rng, left < 20 ? left : 20);
        kv_replica_apply(replica, log, applied, NULL);
    }
}

uint64_t kv_replica_hash(struct kv_replica *replica)
{
    uint64_t hash = 0;
    struct raft_position position;
    assert_int_equal(replica->sm.ops->hash(replica->sm.sm, &hash, &position), 0);
    assert_int_equal(position.index, replica->sm.ops->applied(replica->sm.sm).index);
    return hash;
}

/* ---- one replica ---- */

void kv_single_open(struct kv_single *single, uint64_t group_id)
{
    uint32_t sessions_max = single->replica.sessions_max;
    *single = (struct kv_single){.replica = {.sessions_max = sessions_max}};
    kv_replica_open(&single->replica, group_id);
}

void kv_single_close(struct kv_single *single)
{
    kv_replica_close(&single->replica);
    kv_log_deinit(&single->log);
    buf_deinit(&single->result);
}

static void run_payload(struct kv_single *single, struct buf *payload)
{
    kv_log_entry(&single->log, 1);
    kv_log_add(&single->log, payload);
    buf_clear(&single->result);
    kv_replica_apply(&single->replica, &single->log, single->log.last_index, &single->result);
}

int kv_single_run(struct kv_single *single, const struct kv_command *command)
{
    struct buf payload = {0};
    kv_command_encode(command, &payload);
    run_payload(single, &payload);
    return kv_command_result(buf_view(&single->result));
}

static struct op_result only_result(const struct buf *answer, enum op_kind kind)
{
    struct reader reader;
    struct op_result result;
    uint32_t count = 0;
    assert_true(answer->size > 1);
    assert_int_equal(results_open(bytes_of(answer->data + 1, answer->size - 1), &reader, &count),
                     0);
    assert_int_equal(count, 1);
    assert_int_equal(results_next(&reader, kind, &result), 0);
    bool refused = result.error == ERR_WRONG_GROUP || result.error == ERR_SHARD_MOVING;
    assert_int_equal(answer->data[0], refused ? KV_RESULT_REFUSED : 0);
    return result;
}

struct op_result kv_single_block(struct kv_single *single, const struct block_header *header,
                                 const struct op *op)
{
    struct buf payload = {0};
    block_put_header(&payload, header);
    block_put_op(&payload, op);
    run_payload(single, &payload);
    return only_result(&single->result, op->kind);
}

struct op_result kv_single_op(struct kv_single *single, uint64_t client_id, const struct op *op)
{
    struct block_header header = {.client_id = client_id, .count = 1};
    return kv_single_block(single, &header, op);
}

struct op_result kv_single_put(struct kv_single *single, uint32_t shard, const char *key,
                               const char *value)
{
    struct op op = {.kind = OP_PUT, .shard = shard, .key = KEY(key), .value = KEY(value)};
    return kv_single_op(single, 0, &op);
}

struct op_result kv_single_get(struct kv_single *single, uint32_t shard, const char *key,
                               struct buf *value)
{
    struct op op = {.kind = OP_GET, .shard = shard, .key = KEY(key)};
    struct block_header header = {.count = 1};
    struct buf block = {0};
    struct buf answer = {0};
    block_put_header(&block, &header);
    block_put_op(&block, &op);
    assert_int_equal(kv_machine_read(single->replica.machine, buf_view(&block), &answer), 0);
    struct op_result result = only_result(&answer, OP_GET);
    if (value != NULL) {
        buf_clear(value);
        buf_append_bytes(value, result.value);
        buf_append(value, "", 1);
    }
    result.value = BYTES_EMPTY; /* it lay in `answer` */
    buf_deinit(&block);
    buf_deinit(&answer);
    return result;
}

enum shard_state kv_single_state(struct kv_single *single, uint32_t shard)
{
    struct kv_table *table = kv_machine_table(single->replica.machine);
    assert_true(shard < table->shard_count);
    enum shard_state state = table->shards[shard].state;
    kv_table_unref(table);
    return state;
}

/* ---- configs and moves ---- */

static void list_group(struct config *config, uint64_t id)
{
    uint32_t at = 0;
    while (at < config->group_count && config->groups[at].id < id) {
        at++;
    }
    if (id == 0 || (at < config->group_count && config->groups[at].id == id)) {
        return;
    }
    config->groups =
        mem_realloc(config->groups, (config->group_count + 1) * sizeof *config->groups);
    memmove(&config->groups[at + 1], &config->groups[at],
            (config->group_count - at) * sizeof *config->groups);
    config->group_count++;
    config->groups[at] = (struct config_group){.id = id, .replica_count = 2};
    for (uint32_t i = 0; i < 2; i++) {
        config->groups[at].replicas[i].id = i + 1;
        snprintf(config->groups[at].replicas[i].address, ADDRESS_BYTES_MAX, "g%u-%u:1",
                 (unsigned)id, (unsigned)i + 1);
    }
}

struct config *test_config(uint64_t number, uint32_t shard_count, const uint64_t *owners,
                           const uint64_t *sources)
{
    struct config *config = config_create(number, shard_count);
    for (uint32_t i = 0; i < shard_count; i++) {
        config->owners[i] = owners[i];
        config->sources[i] = sources[i];
        list_group(config, owners[i]);
        list_group(config, sources[i]);
    }
    return config;
}

int kv_single_config(struct kv_single *single, uint64_t number, uint32_t shard_count,
                     const uint64_t *owners, const uint64_t *sources)
{
    struct config *config = test_config(number, shard_count, owners, sources);
    struct buf bytes = {0};
    config_encode(config, &bytes);
    int answer = kv_single_run(
        single, &(struct kv_command){.kind = KV_COMMAND_CONFIG, .config = buf_view(&bytes)});
    buf_deinit(&bytes);
    config_free(config);
    return answer;
}

int kv_copy_shard(struct kv_single *from, struct kv_single *to, uint32_t shard, uint64_t number,
                  size_t bytes_max)
{
    struct kv_move_rows rows = {0};
    uint64_t to_group = to->replica.group_id;
    int answer = 0;
    bool end = false;
    while (!end) {
        struct kv_table *table = kv_machine_table(to->replica.machine);
        struct bytes after = shard_record_last_row(&table->shards[shard]);
        assert_int_equal(
            kv_move_read(from->replica.machine, shard, number, to_group, after, bytes_max, &rows),
            0);
        answer = kv_single_run(to, &(struct kv_command){
                                       .kind = KV_COMMAND_CHUNK,
                                       .shard = shard,
                                       .number = number,
                                       .generation = table->shards[shard].generation,
                                       .after_row = after,
                                       .last_row = buf_view(&rows.last_row),
                                       .rows = buf_view(&rows.rows),
                                       .end = rows.end,
                                   });
        kv_table_unref(table);
        assert_int_equal(answer, 0);
        end = rows.end;
    }
    buf_deinit(&rows.rows);
    buf_deinit(&rows.last_row);
    struct kv_move_scan scan;
    kv_move_scan_init(&scan, shard, number, to_group);
    while (!scan.done) {
        assert_int_equal(kv_move_scan_step(from->replica.machine, &scan, 3), 0);
    }
    struct kv_table *table = kv_machine_table(to->replica.machine);
    answer = kv_single_run(to, &(struct kv_command){
                                   .kind = KV_COMMAND_INSTALL,
                                   .shard = shard,
                                   .number = number,
                                   .generation = table->shards[shard].generation,
                                   .row_count = scan.rows,
                                   .row_bytes = scan.bytes,
                                   .checksum = scan.checksum,
                               });
    kv_table_unref(table);
    kv_move_scan_deinit(&scan);
    return answer;
}
