/* See applied.h. Thread: one. */
#include "sim/applied.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "sim/cluster.h"

#include <stdlib.h>
#include <string.h>

/* Term 0: no replica has applied commands of it yet. */
struct entry {
    uint64_t term;
    uint32_t checksum; /* of its commands, one behind the other */
    uint32_t count;
};

struct group_entries {
    uint64_t group_id;
    struct entry *entries; /* by index */
    size_t capacity;
};

/* Its callers have no context: see sim.h. */
static struct {
    struct group_entries groups[CLUSTER_GROUPS_MAX + 1];
    uint32_t group_count;
    uint64_t compared;
    bool on;
} applied;

void applied_begin(void)
{
    ASSERT(!applied.on);
    applied.on = true;
    applied.compared = 0;
}

void applied_end(void)
{
    for (uint32_t i = 0; i < applied.group_count; i++) {
        free(applied.groups[i].entries);
    }
    memset(&applied, 0, sizeof applied);
}

uint64_t applied_compared(void)
{
    return applied.compared;
}

static struct group_entries *entries_of(uint64_t group_id)
{
    for (uint32_t i = 0; i < applied.group_count; i++) {
        if (applied.groups[i].group_id == group_id) {
            return &applied.groups[i];
        }
    }
    ASSERT_CMP(applied.group_count, <=, CLUSTER_GROUPS_MAX);
    struct group_entries *group = &applied.groups[applied.group_count++];
    group->group_id = group_id;
    return group;
}

void applied_forget(uint64_t group_id)
{
    struct group_entries *group = entries_of(group_id);
    free(group->entries);
    group->entries = NULL;
    group->capacity = 0;
}

static struct entry *entry_at(struct group_entries *group, uint64_t index)
{
    if (index >= group->capacity) {
        size_t capacity = 2 * (size_t)index + 64;
        group->entries = mem_realloc(group->entries, capacity * sizeof group->entries[0]);
        memset(group->entries + group->capacity, 0,
               (capacity - group->capacity) * sizeof group->entries[0]);
        group->capacity = capacity;
    }
    return &group->entries[index];
}

static void compare(struct group_entries *group, uint64_t index, const struct entry *now)
{
    struct entry *before = entry_at(group, index);
    if (before->term == 0) {
        *before = *now;
        return;
    }
    applied.compared++;
    if (before->term != now->term || before->checksum != now->checksum ||
        before->count != now->count) {
        SIM_FAIL("entry %llu of group %llu changed after it was committed: %u commands of term "
                 "%llu, now %u of term %llu, applied by %s",
                 (unsigned long long)index, (unsigned long long)group->group_id, before->count,
                 (unsigned long long)before->term, now->count, (unsigned long long)now->term,
                 sim_world()->current->address);
    }
}

void applied_check(uint64_t group_id, const struct sm_batch *batch)
{
    if (!applied.on) {
        return;
    }
    struct group_entries *group = entries_of(group_id);
    size_t at = 0;
    while (at < batch->count) {
        struct raft_position position = batch->commands[at].position;
        struct entry now = {.term = position.term};
        for (; at < batch->count && batch->commands[at].position.index == position.index; at++) {
            struct bytes payload = batch->commands[at].payload;
            now.checksum = crc32c_extend(now.checksum, payload.data, payload.size);
            now.count++;
        }
        compare(group, position.index, &now);
    }
}
