/* See history.h. A record is u8 kind, then
 *   FULL   the config, as config_encode writes it
 *   DELTA  varint count, count x { varint shard, varint owner }, then the active groups, as a
 * config without shards, when they differ from those before (a byte 1 and the sized bytes) or a
 * byte 0 and the config is transition_make() of the one before
 *   MEMBERS  one group, as a config without shards: transition_make_members() of the one before */
#include "shardctrler/history.h"

#include "base/assert.h"
#include "shardctrler/transition.h"
#include <stdlib.h>
#include <string.h>

enum { RECORD_FULL = 1, RECORD_DELTA = 2, RECORD_MEMBERS = 3 };
#define RECORD_BYTES_MAX (16u * 1024 * 1024)

struct history {
    struct buf *records; /* [count] */
    size_t count;        /* configs 0 .. count-1 */
    size_t capacity;
    struct config *latest;
};

static void add_record(struct history *history, struct buf *takes)
{
    if (history->count == history->capacity) {
        history->capacity = history->capacity == 0 ? 16 : history->capacity * 2;
        history->records =
            mem_realloc(history->records, history->capacity * sizeof *history->records);
    }
    history->records[history->count++] = *takes;
    buf_init(takes);
}

static void encode_full(const struct config *config, struct buf *out)
{
    put_u8(out, RECORD_FULL);
    config_encode(config, out);
}

static size_t active_groups(const struct config *config, struct config_group *out)
{
    size_t count = 0;
    for (uint32_t i = 0; i < config->group_count; i++) {
        if (!config->groups[i].departed) {
            out[count++] = config->groups[i];
        }
    }
    return count;
}

/* Groups alone, in the form of a config with one shard that nobody owns. */
static void encode_bare(uint64_t number, struct config_group *groups, size_t group_count,
                        struct buf *out)
{
    struct config *bare = config_create(number, 1);
    bare->groups = groups;
    bare->group_count = (uint32_t)group_count;
    config_encode(bare, out);
    bare->groups = NULL;
    config_free(bare);
}

static void encode_groups(const struct config *config, struct buf *out)
{
    struct config_group *groups = mem_calloc((size_t)config->group_count + 1, sizeof *groups);
    size_t group_count = active_groups(config, groups);
    encode_bare(config->number, groups, group_count, out);
    free(groups);
}

static bool same_active_groups(const struct config *a, const struct config *b)
{
    struct buf x, y;
    buf_init(&x);
    buf_init(&y);
    struct config renumbered = *b;
    renumbered.number = a->number;
    encode_groups(a, &x);
    encode_groups(&renumbered, &y);
    bool same = bytes_equal(buf_view(&x), buf_view(&y));
    buf_deinit(&x);
    buf_deinit(&y);
    return same;
}

static void encode_delta(const struct config *before, const struct config *config, struct buf *out)
{
    put_u8(out, RECORD_DELTA);
    uint32_t changed = 0;
    for (uint32_t shard = 0; shard < config->shard_count; shard++) {
        changed += before->owners[shard] != config->owners[shard];
    }
    put_varint(out, changed);
    for (uint32_t shard = 0; shard < config->shard_count; shard++) {
        if (before->owners[shard] != config->owners[shard]) {
            put_varint(out, shard);
            put_varint(out, config->owners[shard]);
        }
    }
    if (same_active_groups(before, config)) {
        put_u8(out, 0);
        return;
    }
    put_u8(out, 1);
    struct buf groups;
    buf_init(&groups);
    encode_groups(config, &groups);
    put_sized(out, buf_view(&groups));
    buf_deinit(&groups);
}

static bool same_group(const struct config_group *a, const struct config_group *b)
{
    if (a->id != b->id || a->departed != b->departed || a->members_index != b->members_index ||
        a->replica_count != b->replica_count) {
        return false;
    }
    for (uint32_t i = 0; i < a->replica_count; i++) {
        if (a->replicas[i].id != b->replicas[i].id ||
            strcmp(a->replicas[i].address, b->replicas[i].address) != 0) {
            return false;
        }
    }
    return true;
}

/* The one group by which the two differ: with other replicas, or listed as one that has left, which
 * it was not before. NULL when they differ by more, or by none. */
static struct config_group *changed_group(const struct config *before, const struct config *config)
{
    size_t tables_bytes = config->shard_count * sizeof *config->owners;
    uint32_t added = config->group_count - before->group_count; /* or many: fewer are listed */
    if (added > 1 || memcmp(before->owners, config->owners, tables_bytes) != 0 ||
        memcmp(before->sources, config->sources, tables_bytes) != 0) {
        return NULL;
    }
    uint32_t at = 0;
    while (at < before->group_count && same_group(&before->groups[at], &config->groups[at])) {
        at++;
    }
    if (at == config->group_count) {
        return NULL;
    }
    struct config_group *changed = &config->groups[at];
    bool fits = added == 1 ? changed->departed
                           : before->groups[at].id == changed->id &&
                                 before->groups[at].departed == changed->departed;
    for (uint32_t i = at + 1; fits && i < config->group_count; i++) {
        fits = same_group(&before->groups[i - added], &config->groups[i]);
    }
    return fits ? changed : NULL;
}

static void encode_difference(const struct config *before, const struct config *config,
                              struct buf *out)
{
    struct config_group *changed = changed_group(before, config);
    if (changed == NULL) {
        encode_delta(before, config, out);
    } else {
        put_u8(out, RECORD_MEMBERS);
        encode_bare(config->number, changed, 1, out);
    }
}

/* Every shard belongs to one of these groups (ascending) or to nobody. */
static bool owners_known(const uint64_t *owners, uint32_t shard_count,
                         const struct config_group *groups, size_t group_count)
{
    const struct config listed = {.groups = (struct config_group *)(uintptr_t)groups,
                                  .group_count = (uint32_t)group_count};
    for (uint32_t shard = 0; shard < shard_count; shard++) {
        bool checked = shard > 0 && owners[shard] == owners[shard - 1];
        if (!checked && owners[shard] != 0 && config_find_group(&listed, owners[shard]) == NULL) {
            return false;
        }
    }
    return true;
}

static int decode_members(struct bytes bytes, const struct config *before, struct config **out)
{
    struct config *bare = NULL;
    if (config_decode(bytes, &bare) != 0) {
        return ERR_CORRUPT;
    }
    bool fits =
        bare->group_count == 1 && (config_find_group(before, bare->groups[0].id) != NULL ||
                                   (bare->groups[0].departed && before->group_count < GROUPS_MAX));
    if (fits) {
        *out = transition_make_members(before, &bare->groups[0]);
    }
    config_free(bare);
    return fits ? 0 : ERR_CORRUPT;
}

/* gives *out = what the record makes of `before` (NULL for a full one). */
static int decode_record(struct bytes record, const struct config *before, struct config **out)
{
    struct reader reader = reader_of(record);
    uint8_t kind = get_u8(&reader);
    if (kind == RECORD_FULL) {
        return config_decode(get_bytes(&reader, reader_left(&reader)), out) == 0 ? 0 : ERR_CORRUPT;
    }
    if (before == NULL) {
        return ERR_CORRUPT;
    }
    if (kind == RECORD_MEMBERS) {
        return decode_members(get_bytes(&reader, reader_left(&reader)), before, out);
    }
    if (kind != RECORD_DELTA) {
        return ERR_CORRUPT;
    }
    uint64_t *owners = mem_dup(before->owners, before->shard_count * sizeof *owners);
    uint64_t changed = get_varint(&reader);
    for (uint64_t i = 0; i < changed && !reader.failed; i++) {
        uint64_t shard = get_varint(&reader);
        uint64_t owner = get_varint(&reader);
        if (shard >= before->shard_count) {
            reader.failed = true;
        } else {
            owners[shard] = owner;
        }
    }
    struct config *bare = NULL;
    if (get_u8(&reader) == 1) {
        struct bytes groups = get_sized(&reader, RECORD_BYTES_MAX);
        if (!reader.failed && config_decode(groups, &bare) != 0) {
            reader.failed = true;
        }
    }
    int error = reader_done(&reader) ? 0 : ERR_CORRUPT;
    if (error == 0) {
        const struct config *from = bare != NULL ? bare : before;
        struct config_group *groups = mem_calloc((size_t)from->group_count + 1, sizeof *groups);
        size_t group_count = active_groups(from, groups);
        if (owners_known(owners, before->shard_count, groups, group_count)) {
            *out = transition_make(before, owners, groups, group_count);
        } else {
            error = ERR_CORRUPT;
        }
        free(groups);
    }
    if (bare != NULL) {
        config_free(bare);
    }
    free(owners);
    return error;
}

struct history *history_create(uint32_t shard_count)
{
    ASSERT(shard_count > 0);
    struct history *history = mem_calloc(1, sizeof *history);
    history->latest = config_create(0, shard_count);
    struct buf record;
    buf_init(&record);
    encode_full(history->latest, &record);
    add_record(history, &record);
    return history;
}

void history_destroy(struct history *history)
{
    if (history == NULL) {
        return;
    }
    for (size_t i = 0; i < history->count; i++) {
        buf_deinit(&history->records[i]);
    }
    free(history->records);
    if (history->latest != NULL) {
        config_free(history->latest);
    }
    free(history);
}

const struct config *history_latest(const struct history *history)
{
    return history->latest;
}

int history_append(struct history *history, struct config *config)
{
    ASSERT(config->number == history->latest->number + 1);
    if (history->count >= HISTORY_CONFIGS_MAX) {
        return ERR_TABLE_FULL;
    }
    struct buf record;
    buf_init(&record);
    if (config->number % HISTORY_FULL_INTERVAL == 0) {
        encode_full(config, &record);
    } else {
        encode_difference(history->latest, config, &record);
    }
    add_record(history, &record);
    config_free(history->latest);
    history->latest = config;
    return 0;
}

int history_get(const struct history *history, uint64_t number, struct config **out)
{
    if (number >= history->count) {
        return ERR_CONFIG_UNKNOWN;
    }
    if (number == history->latest->number) {
        *out = config_clone(history->latest);
        return 0;
    }
    struct config *config = NULL;
    for (uint64_t at = number - number % HISTORY_FULL_INTERVAL; at <= number; at++) {
        struct config *next = NULL;
        int error = decode_record(buf_view(&history->records[at]), config, &next);
        ASSERT(error == 0); /* written, or checked when decoded, by this file */
        if (config != NULL) {
            config_free(config);
        }
        config = next;
    }
    *out = config;
    return 0;
}

void history_encode(const struct history *history, struct buf *out)
{
    put_varint(out, history->count);
    for (size_t i = 0; i < history->count; i++) {
        put_sized(out, buf_view(&history->records[i]));
    }
}

int history_decode(struct reader *reader, struct history **out)
{
    struct history *history = mem_calloc(1, sizeof *history);
    uint64_t count = get_varint(reader);
    bool good = count >= 1 && count <= HISTORY_CONFIGS_MAX;
    for (uint64_t i = 0; good && i < count; i++) {
        struct bytes bytes = get_sized(reader, RECORD_BYTES_MAX);
        struct config *config = NULL;
        /* history_get begins at the full ones, and counts on where they are */
        bool must_be_full = i % HISTORY_FULL_INTERVAL == 0;
        good = !reader->failed &&
               decode_record(bytes, must_be_full ? NULL : history->latest, &config) == 0;
        if (!good) {
            break;
        }
        good = config->number == i && config->group_count <= GROUPS_MAX &&
               (history->latest == NULL || config->shard_count == history->latest->shard_count);
        if (history->latest != NULL) {
            config_free(history->latest);
        }
        history->latest = config;
        struct buf record;
        buf_init(&record);
        buf_append_bytes(&record, bytes);
        add_record(history, &record);
    }
    if (!good) {
        history_destroy(history);
        return ERR_CORRUPT;
    }
    *out = history;
    return 0;
}
