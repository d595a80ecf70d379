/* Config of shardkv.proto, to and from struct config.
 *
 * Thread: any; no state. Invariant: what config_decode gives has tables as long as its counts say,
 * groups by ascending id, and names no group that is not listed, so that nobody above checks it
 * again. */
#include "proto/messages_parts.h"

#include "base/assert.h"
#include <stdlib.h>
#include <string.h>

static bool config_put_group(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                             uint32_t index)
{
    const struct config *config = context;
    return msg__put_group(stream, field, &config->groups[index]);
}

void config_encode(const struct config *config, struct buf *out)
{
    ASSERT_CMP(config->shard_count, <=, SHARD_COUNT_MAX);
    ASSERT_CMP(config->group_count, <=, GROUPS_MAX);
    shardkv_v1_Config pb = shardkv_v1_Config_init_zero;
    struct wire_numbers_out owners;
    struct wire_numbers_out sources;
    struct wire_parts groups;
    pb.number = config->number;
    pb.shard_count = config->shard_count;
    wire_put_numbers(&pb.owners, &owners, config->shard_count, config->owners);
    wire_put_numbers(&pb.sources, &sources, config->shard_count, config->sources);
    wire_put_parts(&pb.groups, &groups, config->group_count, config_put_group, config);
    wire_encode(shardkv_v1_Config_fields, &pb, out);
}

/* ---- decoding ---- */

struct groups_in {
    uint32_t count;
    uint32_t capacity;
    void *items; /* struct config_group */
};

static bool replicas_are_right(const struct config_group *group)
{
    for (uint32_t i = 0; i < group->replica_count; i++) {
        if (group->replicas[i].id == 0 || group->replicas[i].address[0] == '\0') {
            return false;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (group->replicas[j].id == group->replicas[i].id) {
                return false;
            }
        }
    }
    return group->replica_count > 0;
}

static int config_take_group(void *context, struct bytes element)
{
    struct groups_in *in = context;
    int error = wire_array_grow(&in->items, &in->capacity, in->count, GROUPS_MAX,
                                sizeof(struct config_group));
    if (error != ERR_OK) {
        return error;
    }
    struct config_group *groups = in->items;
    struct config_group *group = &groups[in->count];
    error = msg__group_decode(element, group);
    if (error != ERR_OK) {
        return error;
    }
    uint64_t id_before = in->count == 0 ? 0 : groups[in->count - 1].id;
    if (group->id <= id_before || !replicas_are_right(group)) {
        return ERR_PROTOCOL;
    }
    in->count++;
    return ERR_OK;
}

/* Each shard's owner and source is nobody or a listed group; who has left owns nothing. */
static bool tables_are_right(const struct config *config)
{
    for (uint32_t shard = 0; shard < config->shard_count; shard++) {
        uint64_t owner_id = config->owners[shard];
        if (owner_id != 0) {
            const struct config_group *owner = config_find_group(config, owner_id);
            if (owner == NULL || owner->departed) {
                return false;
            }
        }
        uint64_t source_id = config->sources[shard];
        if (source_id != 0 && config_find_group(config, source_id) == NULL) {
            return false;
        }
    }
    return true;
}

/* The config of parts that were read; takes the groups and copies the tables. NULL when they do not
 * fit each other. */
static struct config *config_of_parts(const shardkv_v1_Config *pb,
                                      const struct wire_numbers *owners,
                                      const struct wire_numbers *sources, struct groups_in *groups)
{
    if (pb->shard_count == 0 || pb->shard_count > SHARD_COUNT_MAX ||
        owners->count != pb->shard_count || sources->count != pb->shard_count) {
        return NULL;
    }
    struct config *config = config_create(pb->number, pb->shard_count);
    memcpy(config->owners, owners->items, owners->count * sizeof(*owners->items));
    memcpy(config->sources, sources->items, sources->count * sizeof(*sources->items));
    config->group_count = groups->count;
    config->groups = groups->items;
    groups->items = NULL;
    if (!tables_are_right(config)) {
        config_free(config);
        return NULL;
    }
    return config;
}

int config_decode(struct bytes bytes, struct config **out)
{
    shardkv_v1_Config pb = shardkv_v1_Config_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_numbers owners;
    struct wire_numbers sources;
    struct groups_in groups_in = {0};
    struct wire_list groups;
    *out = NULL;
    wire_bind_numbers(&pb.owners, &owners, &decoder, SHARD_COUNT_MAX);
    wire_bind_numbers(&pb.sources, &sources, &decoder, SHARD_COUNT_MAX);
    wire_bind_list(&pb.groups, &groups, &decoder, config_take_group, &groups_in);
    int error = wire_decode(&decoder, shardkv_v1_Config_fields, &pb);
    if (error == ERR_OK) {
        *out = config_of_parts(&pb, &owners, &sources, &groups_in);
        error = *out == NULL ? ERR_PROTOCOL : ERR_OK;
    }
    free(owners.items);
    free(sources.items);
    free(groups_in.items);
    return error;
}
