/* A shard's life, the part of config and source: transitions of proto/config.h but Install. Apply
 * thread; every outcome follows from the command and the replicated state.
 *
 *   ABSENT   -> SERVING, PULLING   config_gain
 *   FROZEN   -> SERVING            config_gain: ours again, and nobody had it meanwhile
 *   SERVING  -> FROZEN             config_lose
 *   FROZEN   -> FROZEN             config_lose: had no owner, now has; the fence is the new config
 *   FROZEN   -> DROPPING           kv__apply_drop
 *   DROPPING -> ABSENT             kv__apply_step
 *   PULLING  -> SERVING, PULLING   kv_install.c */
#include "shardkv/kv_machine_internal.h"

#include "base/codec.h"
#include "base/log.h"
#include "base/metrics.h"

#include <inttypes.h>
#include <stdlib.h>

METRIC(config_applied_count, COUNTER, "configs taken by this group");
METRIC(shard_frozen_count, COUNTER, "shards frozen");
METRIC(shard_dropped_count, COUNTER, "shards dropped with all their rows");
METRIC(session_expired_count, COUNTER, "client sessions forgotten after their time");

static void trace(const struct kv_machine *machine, uint32_t shard, const char *event)
{
    const struct shard_record *record = &machine->shards[shard];
    log_event(LOG_INFO, event, "shard=%u state=%s config=%" PRIu64 " peer_group=%" PRIu64,
              (unsigned)shard, shard_state_name(record->state), record->number, record->peer_group);
}

/* ---- configs ---- */

static uint64_t config_number(const struct kv_machine *machine)
{
    return machine->config == NULL ? 0 : config_share_get(machine->config)->number;
}

static bool is_settled(const struct kv_machine *machine)
{
    for (uint32_t i = 0; i < machine->shard_count; i++) {
        if (!shard_record_is_settled(&machine->shards[i])) {
            return false;
        }
    }
    return true;
}

/* A config that gives us back what is said to be here, while it is not, would serve an empty shard:
 * it is refused, and the group stays where it is until a person looks. */
int kv__serves(const struct kv_machine *machine, const struct shard_record *record)
{
    int error = shard_record_serves(record);
    return error == 0 && config_number(machine) < machine->serves_from ? ERR_SHARD_MOVING : error;
}

static int config_judge(const struct kv_machine *machine, const struct config *config)
{
    uint64_t current = config_number(machine);
    if (config->number <= current) {
        return ERR_EXISTS;
    }
    if (config->number != current + 1 || config->shard_count == 0 ||
        (machine->config != NULL && config->shard_count != machine->shard_count)) {
        return ERR_INVALID;
    }
    if (!is_settled(machine)) {
        return ERR_BUSY;
    }
    for (uint32_t i = 0; i < config->shard_count; i++) {
        bool absent = machine->config == NULL || machine->shards[i].state == SHARD_ABSENT;
        if (absent && config->owners[i] == machine->options.group_id &&
            config->sources[i] == machine->options.group_id) {
            log_event(LOG_ERROR, "config.contradiction", "config=%" PRIu64 " shard=%u",
                      config->number, (unsigned)i);
            return ERR_INVALID;
        }
    }
    return 0;
}

static void config_gain(struct kv_machine *machine, const struct config *config, uint32_t shard)
{
    struct shard_record *record = &machine->shards[shard];
    if (record->state == SHARD_SERVING) {
        return;
    }
    uint64_t source = config->sources[shard];
    bool ours = record->state == SHARD_FROZEN || source == 0;
    record->state = ours ? SHARD_SERVING : SHARD_PULLING;
    record->number = config->number;
    record->peer_group = ours ? 0 : source;
    record->frozen_ms = 0;
    kv__shard_touch(machine, shard);
    trace(machine, shard, ours ? "shard.serving" : "shard.pulling");
}

static void config_lose(struct kv_machine *machine, const struct config *config, uint32_t shard,
                        uint64_t time_ms)
{
    struct shard_record *record = &machine->shards[shard];
    uint64_t owner = config->owners[shard];
    bool freezes = record->state == SHARD_SERVING;
    bool refenced = record->state == SHARD_FROZEN && owner != 0;
    if (!freezes && !refenced) {
        return;
    }
    record->state = SHARD_FROZEN;
    record->number = config->number;
    record->peer_group = owner;
    if (freezes) {
        record->frozen_ms = time_ms;
        metric_add(&shard_frozen_count, 1);
    }
    kv__shard_touch(machine, shard);
    trace(machine, shard, "shard.frozen");
}

int kv__apply_config(struct kv_machine *machine, const struct kv_command *command, uint64_t time_ms,
                     int *answer)
{
    struct config *config = NULL;
    *answer = config_decode(command->config, &config);
    if (*answer != 0) {
        return 0;
    }
    *answer = config_judge(machine, config);
    if (*answer != 0) {
        config_free(config);
        return 0;
    }
    if (machine->config == NULL) {
        machine->shard_count = config->shard_count;
        machine->shards = mem_calloc(config->shard_count, sizeof *machine->shards);
        machine->shard_dirty = mem_calloc(config->shard_count, sizeof *machine->shard_dirty);
        machine->dirty_shards = mem_calloc(config->shard_count, sizeof *machine->dirty_shards);
        machine->serves_from = command->number > config->number ? command->number : config->number;
        uint8_t serves_from[sizeof(uint64_t)];
        store_u64(serves_from, machine->serves_from);
        machine->store.ops->batch_put(machine->batch, key_serves_from(),
                                      bytes_of(serves_from, sizeof serves_from));
    }
    for (uint32_t i = 0; i < config->shard_count; i++) {
        if (config->owners[i] == machine->options.group_id) {
            config_gain(machine, config, i);
        } else {
            config_lose(machine, config, i, time_ms);
        }
    }
    config_share_unref(machine->config);
    machine->config = config_share_create(config);
    machine->store.ops->batch_put(machine->batch, key_config(), command->config);
    machine->batch_meta = true;
    machine->table_dirty = true;
    metric_add(&config_applied_count, 1);
    log_event(LOG_INFO, "config.applied", "config=%" PRIu64, config->number);
    return 0;
}

/* ---- the source
 * ---------------------------------------------------------------------------------------------- */

int kv__source_check(const struct shard_record *record, uint64_t number_here, uint64_t number,
                     uint64_t to_group)
{
    if (number_here < number) {
        return ERR_CONFIG_BEHIND;
    }
    if (record->state == SHARD_FROZEN && record->number == number) {
        return record->peer_group == to_group && to_group != 0 ? 0 : ERR_INVALID;
    }
    if (number_here > number) {
        return ERR_NOT_FOUND; /* that config was settled here: what it took was dropped */
    }
    /* Under this very config: gone already, or never taken from us by it. */
    return record->state == SHARD_ABSENT || record->state == SHARD_DROPPING ? ERR_NOT_FOUND
                                                                            : ERR_INVALID;
}

int kv__apply_drop(struct kv_machine *machine, const struct kv_command *command, int *answer)
{
    struct shard_record *record = kv__shard(machine, command->shard);
    if (record == NULL) {
        *answer = machine->config == NULL ? ERR_CONFIG_BEHIND : ERR_SHARD_RANGE;
        return 0;
    }
    *answer = kv__source_check(record, config_number(machine), command->number, command->group);
    if (*answer == ERR_NOT_FOUND) {
        *answer = 0; /* done before: a repeated or late drop changes nothing */
    } else if (*answer == 0) {
        record->state = SHARD_DROPPING;
        kv__shard_touch(machine, command->shard);
        machine->table_dirty = true;
        trace(machine, command->shard, "shard.dropping");
    }
    return 0;
}

static int step_finish(struct kv_machine *machine, uint32_t shard)
{
    struct shard_record *record = &machine->shards[shard];
    session_cache_drop_shard(&machine->sessions, shard);
    if (record->state == SHARD_DROPPING) {
        shard_record_clear(record);
        kv__reclaim_later(machine, shard);
        metric_add(&shard_dropped_count, 1);
        trace(machine, shard, "shard.absent");
    } else {
        record->clearing = false;
        blob_unref(record->last_row);
        record->last_row = NULL;
    }
    return 0;
}

/* Deletes up to *budget rows of one space after the record's cursor, and moves the cursor. */
static int delete_rows(struct kv_machine *machine, enum key_space space, uint32_t shard,
                       uint32_t *budget)
{
    const struct store_ops *ops = machine->store.ops;
    struct store_key from;
    struct store_key to;
    key_range(space, shard, &from, &to);
    struct bytes cursor = shard_record_last_row(&machine->shards[shard]);
    if (cursor.size > 0 && cursor.data[0] > (uint8_t)space) {
        return 0;
    }
    if (cursor.size > 0 && cursor.data[0] == (uint8_t)space) {
        /* Deleted keys leave tombstones; starting after them keeps a step's cost even. */
        bool valid = key_of_row(shard, cursor, &from);
        ASSERT(valid);
    }
    struct store_iterator *iterator = ops->iterator_create(
        machine->store.store, NULL, store_key_view(&from), store_key_view(&to));
    struct store_key last = {.size = 0};
    while (*budget > 0 && ops->iterator_valid(iterator)) {
        struct bytes key = ops->iterator_key(iterator);
        ops->batch_delete(machine->batch, key);
        machine->batch_rows = true;
        (*budget)--;
        if (*budget == 0) {
            row_key_of(key, &last);
        }
        ops->iterator_next(iterator);
    }
    int error = ops->iterator_error(iterator);
    ops->iterator_destroy(iterator);
    if (last.size > 0) {
        shard_record_set_last_row(&machine->shards[shard], store_key_view(&last));
    }
    return error;
}

int kv__apply_step(struct kv_machine *machine, const struct kv_command *command, int *answer)
{
    struct shard_record *record = kv__shard(machine, command->shard);
    bool steps =
        record != NULL && record->number == command->number &&
        (record->state == SHARD_DROPPING || (record->state == SHARD_PULLING && record->clearing));
    if (!steps) {
        *answer = 0; /* finished by another driver */
        return 0;
    }
    uint32_t budget = KV_STEP_ROWS_MAX;
    int error = delete_rows(machine, KEY_SPACE_DATA, command->shard, &budget);
    if (error == 0) {
        error = delete_rows(machine, KEY_SPACE_SESSION, command->shard, &budget);
    }
    if (error == 0 && budget > 0) {
        error = step_finish(machine, command->shard);
    }
    kv__shard_touch(machine, command->shard);
    machine->table_dirty = true;
    *answer = 0;
    return error;
}

int kv__apply_drop_confirmed(struct kv_machine *machine, const struct kv_command *command,
                             int *answer)
{
    *answer = 0;
    if (command->shard < machine->shard_count &&
        kv__pending_remove(machine, command->shard, command->number)) {
        struct store_key key;
        key_of_pending(command->shard, command->number, &key);
        machine->store.ops->batch_delete(machine->batch, store_key_view(&key));
        machine->batch_meta = true;
    }
    return 0;
}

/* ---- session expiry
 * ------------------------------------------------------------------------------------------ */

/* Judges the session row the iterator stands at; deletes it when its time is over. */
static int expire_row(struct kv_machine *machine, struct bytes key, struct bytes value,
                      uint64_t time_ms, uint64_t *client_id)
{
    uint32_t shard = 0;
    struct session session;
    session_init(&session);
    if (!key_parse_session(key, &shard, client_id) || session_decode(value, &session) != 0) {
        session_deinit(&session);
        return ERR_CORRUPT;
    }
    if (session_is_expired(&session, time_ms)) {
        machine->store.ops->batch_delete(machine->batch, key);
        machine->batch_rows = true;
        session_cache_drop(&machine->sessions, shard, *client_id);
        ASSERT_CMP(machine->shards[shard].session_count, >, 0);
        machine->shards[shard].session_count--;
        metric_add(&session_expired_count, 1);
    }
    session_deinit(&session);
    return 0;
}

int kv__apply_expire(struct kv_machine *machine, const struct kv_command *command, uint64_t time_ms,
                     int *answer)
{
    struct shard_record *record = kv__shard(machine, command->shard);
    *answer = record == NULL ? ERR_SHARD_RANGE : shard_record_serves(record);
    if (*answer != 0) {
        return 0;
    }
    const struct store_ops *ops = machine->store.ops;
    struct store_key from;
    struct store_key to;
    key_range(KEY_SPACE_SESSION, command->shard, &from, &to);
    key_of_session(command->shard, record->expire_from, &from);
    struct store_iterator *iterator = ops->iterator_create(
        machine->store.store, NULL, store_key_view(&from), store_key_view(&to));
    uint64_t next = record->expire_from;
    int error = 0;
    for (uint32_t i = 0; i < KV_EXPIRE_ROWS_MAX && error == 0 && ops->iterator_valid(iterator);
         i++) {
        uint64_t client_id = 0;
        error = expire_row(machine, ops->iterator_key(iterator), ops->iterator_value(iterator),
                           time_ms, &client_id);
        next = client_id + 1;
        ops->iterator_next(iterator);
    }
    if (error == 0) {
        error = ops->iterator_error(iterator);
    }
    record->expire_from = ops->iterator_valid(iterator) ? next : 0; /* 0: the round is complete */
    ops->iterator_destroy(iterator);
    kv__shard_touch(machine, command->shard);
    machine->table_dirty = true;
    return error;
}
