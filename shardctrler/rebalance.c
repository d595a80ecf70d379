/* See rebalance.h. Three passes: what each group may keep, what it must give, who takes it. */
#include "shardctrler/rebalance.h"

#include "base/assert.h"
#include "base/bytes.h"
#include <stdlib.h>
#include <string.h>

struct load {
    uint64_t group;
    uint32_t count;  /* shards it has now */
    uint32_t target; /* shards it will have */
};

static struct load *find_load(struct load *loads, size_t count, uint64_t group)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (loads[middle].group < group) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && loads[low].group == group ? &loads[low] : NULL;
}

static int by_count_descending(const void *a, const void *b)
{
    const struct load *x = *(const struct load *const *)a;
    const struct load *y = *(const struct load *const *)b;
    if (x->count != y->count) {
        return x->count > y->count ? -1 : 1;
    }
    return x->group < y->group ? -1 : x->group > y->group;
}

/* The groups that have most keep the shard that does not divide evenly: any other choice moves
 * more. */
static void set_targets(struct load *loads, size_t count, uint32_t shard_count)
{
    struct load **order = mem_calloc(count, sizeof *order);
    for (size_t i = 0; i < count; i++) {
        order[i] = &loads[i];
    }
    qsort(order, count, sizeof *order, by_count_descending);
    uint32_t share = (uint32_t)(shard_count / count);
    size_t larger_count = shard_count % count;
    for (size_t i = 0; i < count; i++) {
        order[i]->target = share + (i < larger_count ? 1 : 0);
    }
    free(order);
}

/* Takes what is over target, from the highest shard down, so that low shards stay where they are.
 */
static void release_surplus(uint64_t *owners, uint32_t shard_count, struct load *loads,
                            size_t count)
{
    for (uint32_t shard = shard_count; shard-- > 0;) {
        struct load *load = find_load(loads, count, owners[shard]);
        if (load != NULL && load->count > load->target) {
            owners[shard] = 0;
            load->count--;
        }
    }
}

static void return_to_sources(uint64_t *owners, const uint64_t *sources, uint32_t shard_count,
                              struct load *loads, size_t count)
{
    for (uint32_t shard = 0; shard < shard_count; shard++) {
        struct load *load = owners[shard] == 0 ? find_load(loads, count, sources[shard]) : NULL;
        if (load != NULL && load->count < load->target) {
            owners[shard] = load->group;
            load->count++;
        }
    }
}

static void fill(uint64_t *owners, uint32_t shard_count, struct load *loads, size_t count)
{
    size_t next = 0;
    for (uint32_t shard = 0; shard < shard_count; shard++) {
        if (owners[shard] != 0) {
            continue;
        }
        while (loads[next].count == loads[next].target) {
            next++;
            ASSERT(next < count);
        }
        owners[shard] = loads[next].group;
        loads[next].count++;
    }
}

void rebalance(uint64_t *owners, const uint64_t *sources, uint32_t shard_count,
               const uint64_t *groups, size_t group_count)
{
    if (group_count == 0) {
        memset(owners, 0, shard_count * sizeof *owners);
        return;
    }
    struct load *loads = mem_calloc(group_count, sizeof *loads);
    for (size_t i = 0; i < group_count; i++) {
        ASSERT(i == 0 || groups[i - 1] < groups[i]);
        loads[i].group = groups[i];
    }
    bool *was_unowned = mem_calloc(shard_count, sizeof *was_unowned);
    for (uint32_t shard = 0; shard < shard_count; shard++) {
        was_unowned[shard] = owners[shard] == 0;
        struct load *load = find_load(loads, group_count, owners[shard]);
        if (load != NULL) {
            load->count++;
        } else {
            owners[shard] = 0;
        }
    }
    set_targets(loads, group_count, shard_count);

    /* Only a shard that had no owner still lies at its source; one that is taken from an owner now
     * does not. */
    uint64_t *returnable = mem_calloc(shard_count, sizeof *returnable);
    for (uint32_t shard = 0; shard < shard_count; shard++) {
        returnable[shard] = was_unowned[shard] ? sources[shard] : 0;
    }
    release_surplus(owners, shard_count, loads, group_count);
    return_to_sources(owners, returnable, shard_count, loads, group_count);
    fill(owners, shard_count, loads, group_count);
    free(returnable);
    free(was_unowned);
    free(loads);
}
