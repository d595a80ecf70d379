/* Configs in memory: see config.h. The wire form is in config_codec.c.
 *
 * Thread: a config that is being changed has one owner; a shared one never changes. */
#include "proto/config.h"

#include "base/assert.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

const char *shard_state_name(enum shard_state state)
{
    switch (state) {
    case SHARD_ABSENT:
        return "absent";
    case SHARD_SERVING:
        return "serving";
    case SHARD_PULLING:
        return "pulling";
    case SHARD_FROZEN:
        return "frozen";
    case SHARD_DROPPING:
        return "dropping";
    }
    return "unknown";
}

struct config *config_create(uint64_t number, uint32_t shard_count)
{
    ASSERT_CMP(shard_count, >, 0);
    ASSERT_CMP(shard_count, <=, SHARD_COUNT_MAX);
    struct config *config = mem_calloc(1, sizeof(*config));
    config->number = number;
    config->shard_count = shard_count;
    config->owners = mem_calloc(shard_count, sizeof(*config->owners));
    config->sources = mem_calloc(shard_count, sizeof(*config->sources));
    return config;
}

struct config *config_clone(const struct config *config)
{
    struct config *clone = mem_calloc(1, sizeof(*clone));
    *clone = *config;
    clone->owners = mem_dup(config->owners, config->shard_count * sizeof(*config->owners));
    clone->sources = mem_dup(config->sources, config->shard_count * sizeof(*config->sources));
    clone->groups = NULL;
    if (config->group_count > 0) {
        clone->groups = mem_dup(config->groups, config->group_count * sizeof(*config->groups));
    }
    return clone;
}

void config_free(struct config *config)
{
    if (config == NULL) {
        return;
    }
    free(config->owners);
    free(config->sources);
    free(config->groups);
    free(config);
}

const struct config_group *config_find_group(const struct config *config, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = config->group_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (config->groups[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < config->group_count && config->groups[low].id == id;
    return found ? &config->groups[low] : NULL;
}

bool config_same_replicas(const struct config_group *a, const struct config_group *b)
{
    if (a->replica_count != b->replica_count) {
        return false;
    }
    for (uint32_t i = 0; i < a->replica_count; i++) {
        bool found = false;
        for (uint32_t j = 0; j < b->replica_count && !found; j++) {
            found = a->replicas[i].id == b->replicas[j].id &&
                    strcmp(a->replicas[i].address, b->replicas[j].address) == 0;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

/* ---- sharing ---- */

struct config_share {
    struct config *config;
    atomic_uint reference_count;
};

struct config_share *config_share_create(struct config *config)
{
    struct config_share *share = mem_calloc(1, sizeof(*share));
    share->config = config;
    atomic_init(&share->reference_count, 1);
    return share;
}

struct config_share *config_share_ref(struct config_share *share)
{
    if (share != NULL) {
        unsigned before =
            atomic_fetch_add_explicit(&share->reference_count, 1, memory_order_relaxed);
        ASSERT_CMP(before, >, 0);
    }
    return share;
}

void config_share_unref(struct config_share *share)
{
    if (share == NULL) {
        return;
    }
    /* acq_rel: whoever frees has seen all that the others did with it. */
    unsigned before = atomic_fetch_sub_explicit(&share->reference_count, 1, memory_order_acq_rel);
    ASSERT_CMP(before, >, 0);
    if (before == 1) {
        config_free(share->config);
        free(share);
    }
}

const struct config *config_share_get(const struct config_share *share)
{
    return share->config;
}
