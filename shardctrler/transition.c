/* See transition.h.
 *
 * Sources. In config N+1, sources[s] is where s's data was under N: its owner, or, when it had
 * none, the source it had under N (its last owner keeps it, frozen). Departed groups. A group that
 * is not active any more stays listed, with its addresses, in every config where some shard's
 * source it is and another group (or nobody) is that shard's owner: that shard may still have to be
 * fetched from it. A config thus holds everything its moves need.
 *
 * UpdateMembers makes the same config again with other replicas of one group: owners, sources and
 * who is listed stay, so that nobody moves anything because of it. But for one case: groups take
 * configs one at a time, so a group that is behind may still ask one that has left under an older
 * config than the newest that lists it. When that one is replaced meanwhile, replica by replica, it
 * is listed once more. */
#include "shardctrler/transition.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/flags.h"
#include "shardctrler/rebalance.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_group_id(const void *a, const void *b)
{
    uint64_t x = ((const struct config_group *)a)->id;
    uint64_t y = ((const struct config_group *)b)->id;
    return x < y ? -1 : x > y;
}

static const struct config_group *find_active(const struct config *config, uint64_t id)
{
    const struct config_group *group = config_find_group(config, id);
    return group != NULL && !group->departed ? group : NULL;
}

/* Copies the active groups; room for `more` after them. gives. */
static struct config_group *copy_active(const struct config *config, size_t more, size_t *count)
{
    struct config_group *groups = mem_calloc(config->group_count + more + 1, sizeof *groups);
    *count = 0;
    for (uint32_t i = 0; i < config->group_count; i++) {
        if (!config->groups[i].departed) {
            groups[(*count)++] = config->groups[i];
        }
    }
    return groups;
}

static bool lists_group(const struct config_group *groups, size_t count, uint64_t id)
{
    const struct config_group key = {.id = id};
    return bsearch(&key, groups, count, sizeof *groups, by_group_id) != NULL;
}

struct config *transition_make(const struct config *config, const uint64_t *owners,
                               const struct config_group *groups, size_t group_count)
{
    struct config *next = config_create(config->number + 1, config->shard_count);
    for (uint32_t shard = 0; shard < config->shard_count; shard++) {
        next->owners[shard] = owners[shard];
        next->sources[shard] =
            config->owners[shard] != 0 ? config->owners[shard] : config->sources[shard];
    }
    struct config_group *all = mem_calloc(group_count + config->group_count + 1, sizeof *all);
    size_t count = 0;
    for (size_t i = 0; i < group_count; i++) {
        ASSERT(!groups[i].departed);
        all[count++] = groups[i];
    }
    for (uint32_t i = 0; i < config->group_count; i++) {
        const struct config_group *old = &config->groups[i];
        if (lists_group(groups, group_count, old->id)) {
            continue;
        }
        for (uint32_t shard = 0; shard < config->shard_count; shard++) {
            if (next->sources[shard] == old->id) { /* never its owner: it is not active */
                all[count] = *old;
                all[count++].departed = true;
                break;
            }
        }
    }
    qsort(all, count, sizeof *all, by_group_id);
    free(next->groups);
    next->groups = all;
    next->group_count = (uint32_t)count;
    return next;
}

struct config *transition_make_members(const struct config *config,
                                       const struct config_group *members)
{
    struct config *next = config_clone(config);
    next->number = config->number + 1;
    uint32_t place = 0;
    while (place < next->group_count && next->groups[place].id < members->id) {
        place++;
    }
    bool departed = true;
    if (place < next->group_count && next->groups[place].id == members->id) {
        departed = next->groups[place].departed;
    } else {
        ASSERT_CMP(next->group_count, <, GROUPS_MAX);
        next->groups = mem_realloc(next->groups, (next->group_count + 1) * sizeof *next->groups);
        memmove(&next->groups[place + 1], &next->groups[place],
                (next->group_count - place) * sizeof *next->groups);
        next->group_count++;
    }
    next->groups[place] = *members;
    next->groups[place].departed = departed;
    return next;
}

static struct config *make_rebalanced(const struct config *config,
                                      const struct config_group *groups, size_t group_count)
{
    uint64_t *ids = mem_calloc(group_count + 1, sizeof *ids);
    for (size_t i = 0; i < group_count; i++) {
        ids[i] = groups[i].id;
    }
    uint64_t *owners = mem_dup(config->owners, config->shard_count * sizeof *owners);
    rebalance(owners, config->sources, config->shard_count, ids, group_count);
    struct config *next = transition_make(config, owners, groups, group_count);
    free(owners);
    free(ids);
    return next;
}

/* ---- join
 * -------------------------------------------------------------------------------------------------
 */

static int check_group(const struct config_group *group, char *why, size_t why_size)
{
    if (group->id == 0) {
        snprintf(why, why_size, "group id 0 is not allowed; ids start at 1");
        return ERR_INVALID;
    }
    if (group->replica_count == 0) {
        snprintf(why, why_size, "group %" PRIu64 " has no replicas; give at least one address",
                 group->id);
        return ERR_INVALID;
    }
    for (uint32_t i = 0; i < group->replica_count; i++) {
        if (group->replicas[i].id == 0) {
            snprintf(why, why_size, "group %" PRIu64 ": replica id 0 is not allowed", group->id);
            return ERR_INVALID;
        }
        if (parse_address(group->replicas[i].address) != 0) {
            snprintf(why, why_size, "group %" PRIu64 ": '%.100s' is not an address; use host:port",
                     group->id, group->replicas[i].address);
            return ERR_INVALID;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (group->replicas[j].id == group->replicas[i].id) {
                snprintf(why, why_size, "group %" PRIu64 ": replica id %" PRIu64 " is given twice",
                         group->id, group->replicas[i].id);
                return ERR_INVALID;
            }
            if (strcmp(group->replicas[j].address, group->replicas[i].address) == 0) {
                snprintf(why, why_size, "group %" PRIu64 ": address %.100s is given twice",
                         group->id, group->replicas[i].address);
                return ERR_ADDRESS_IN_USE;
            }
        }
    }
    return 0;
}

static const char *shared_address(const struct config_group *a, const struct config_group *b)
{
    for (uint32_t i = 0; i < a->replica_count; i++) {
        for (uint32_t j = 0; j < b->replica_count; j++) {
            if (strcmp(a->replicas[i].address, b->replicas[j].address) == 0) {
                return a->replicas[i].address;
            }
        }
    }
    return NULL;
}

static int check_against(const struct config_group *group, const struct config_group *other,
                         bool other_is_new, char *why, size_t why_size)
{
    if (other->id == group->id && (other_is_new || !other->departed)) {
        snprintf(why, why_size,
                 other_is_new ? "group %" PRIu64 " is given twice"
                              : "group %" PRIu64 " is in the config already",
                 group->id);
        return ERR_GROUP_EXISTS;
    }
    /* A departed group that comes back may, of course, have its own addresses. */
    const char *address = other->id != group->id ? shared_address(group, other) : NULL;
    if (address != NULL) {
        snprintf(why, why_size, "address %.100s of group %" PRIu64 " belongs to group %" PRIu64,
                 address, group->id, other->id);
        return ERR_ADDRESS_IN_USE;
    }
    return 0;
}

int transition_join(const struct config *config, const struct config_group *groups,
                    size_t group_count, struct config **out, char *why, size_t why_size)
{
    if (group_count == 0) {
        snprintf(why, why_size, "no group to join was given");
        return ERR_INVALID;
    }
    for (size_t i = 0; i < group_count; i++) {
        int error = check_group(&groups[i], why, why_size);
        for (size_t j = 0; error == 0 && j < i; j++) {
            error = check_against(&groups[i], &groups[j], true, why, why_size);
        }
        for (uint32_t j = 0; error == 0 && j < config->group_count; j++) {
            error = check_against(&groups[i], &config->groups[j], false, why, why_size);
        }
        if (error != 0) {
            return error;
        }
    }
    /* Departed groups may stay listed beside the new ones, so they count. */
    if (group_count > (size_t)GROUPS_MAX - config->group_count) {
        snprintf(why, why_size, "a config has room for %d groups, and %" PRIu32 " are there",
                 GROUPS_MAX, config->group_count);
        return ERR_TABLE_FULL;
    }
    size_t active_count;
    struct config_group *active = copy_active(config, group_count, &active_count);
    for (size_t i = 0; i < group_count; i++) {
        active[active_count] = groups[i];
        active[active_count].departed = false;
        active[active_count++].members_index = 0; /* whoever leads it says which they are */
    }
    qsort(active, active_count, sizeof *active, by_group_id);
    *out = make_rebalanced(config, active, active_count);
    free(active);
    return 0;
}

/* ---- leave, move
 * --------------------------------------------------------------------------------------------- */

int transition_leave(const struct config *config, const uint64_t *group_ids, size_t group_count,
                     bool force, struct config **out, char *why, size_t why_size)
{
    if (group_count == 0) {
        snprintf(why, why_size, "no group to leave was given");
        return ERR_INVALID;
    }
    for (size_t i = 0; i < group_count; i++) {
        if (find_active(config, group_ids[i]) == NULL) {
            snprintf(why, why_size, "group %" PRIu64 " is not in config %" PRIu64, group_ids[i],
                     config->number);
            return ERR_GROUP_UNKNOWN;
        }
        for (size_t j = 0; j < i; j++) {
            if (group_ids[j] == group_ids[i]) {
                snprintf(why, why_size, "group %" PRIu64 " is given twice", group_ids[i]);
                return ERR_INVALID;
            }
        }
    }
    size_t active_count;
    struct config_group *active = copy_active(config, 0, &active_count);
    if (group_count == active_count && !force) {
        free(active);
        snprintf(why, why_size,
                 "this leaves no group: no shard would be served (its data stays, frozen); say "
                 "force to do it");
        return ERR_LAST_GROUP;
    }
    size_t kept = 0;
    for (size_t i = 0; i < active_count; i++) {
        bool leaves = false;
        for (size_t j = 0; j < group_count; j++) {
            leaves = leaves || group_ids[j] == active[i].id;
        }
        if (!leaves) {
            active[kept++] = active[i];
        }
    }
    *out = make_rebalanced(config, active, kept);
    free(active);
    return 0;
}

int transition_move(const struct config *config, uint32_t shard, uint64_t group_id,
                    struct config **out, char *why, size_t why_size)
{
    if (shard >= config->shard_count) {
        snprintf(why, why_size, "shard %" PRIu32 " is out of range; shards are 0 to %" PRIu32,
                 shard, config->shard_count - 1);
        return ERR_SHARD_RANGE;
    }
    if (find_active(config, group_id) == NULL) {
        snprintf(why, why_size, "group %" PRIu64 " is not in config %" PRIu64, group_id,
                 config->number);
        return ERR_GROUP_UNKNOWN;
    }
    size_t active_count;
    struct config_group *active = copy_active(config, 0, &active_count);
    uint64_t *owners = mem_dup(config->owners, config->shard_count * sizeof *owners);
    owners[shard] = group_id;
    *out = transition_make(config, owners, active, active_count);
    free(owners);
    free(active);
    return 0;
}

/* ---- members
 * ---------------------------------------------------------------------------------------------- */

/* Whether an address is another group's is not asked: these are what the group's own log has
 * committed, and who is there now is who answers there. */
int transition_update_members(const struct config *config, const struct config_group *members,
                              struct config **out, char *why, size_t why_size)
{
    *out = NULL;
    int error = check_group(members, why, why_size);
    if (error != 0) {
        return error;
    }
    if (members->members_index == 0) {
        snprintf(why, why_size, "group %" PRIu64 ": members_index 0 is not an entry of its log",
                 members->id);
        return ERR_INVALID;
    }
    const struct config_group *listed = config_find_group(config, members->id);
    if (listed == NULL && members->departed && config->group_count == GROUPS_MAX) {
        snprintf(why, why_size, "a config has room for %d groups", GROUPS_MAX);
        return ERR_TABLE_FULL;
    }
    if (listed == NULL && !members->departed) {
        snprintf(why, why_size, "group %" PRIu64 " is not in config %" PRIu64, members->id,
                 config->number);
        return ERR_GROUP_UNKNOWN;
    }
    if (listed == NULL || (members->members_index > listed->members_index &&
                           !config_same_replicas(members, listed))) {
        *out = transition_make_members(config, members);
    }
    return 0;
}
