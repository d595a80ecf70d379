/* Every invariant of router_internal.h, checked from scratch; for tests and the simulator. */
#include "client/router_internal.h"

#include "base/assert.h"

struct totals {
    uint32_t commands;
    uint32_t writes;
    uint64_t bytes;
};

static void count(struct totals *totals, const struct command *command)
{
    totals->commands++;
    totals->writes += command->sequence != 0;
    totals->bytes += (uint64_t)command->key_size + command->value_size;
    ASSERT(command->timer.place != 0);
    ASSERT_CMP(command->timer.at_ns, <=, command->deadline_ns);
    ASSERT((command->sequence == 0) == (command->kind == OP_GET));
}

static void check_list(const struct command_list *list, enum command_state state,
                       const struct group *group, struct totals *totals)
{
    uint32_t number = 0;
    uint64_t bytes = 0;
    const struct command *before = NULL;
    for (const struct command *at = list->first; at != NULL; at = at->next) {
        ASSERT(at->prev == before);
        ASSERT(at->state == state);
        ASSERT(group == NULL || at->group == group);
        number++;
        bytes += router__command_bytes(at);
        before = at;
        if (totals != NULL) {
            count(totals, at);
        }
    }
    ASSERT(list->last == before);
    ASSERT_CMP(list->count, ==, number);
    ASSERT_CMP(list->bytes, ==, bytes);
}

static uint32_t check_shards(const struct router *router)
{
    uint32_t writes = 0;
    for (uint32_t i = 0; i < router->shard_count; i++) {
        const struct command *before = NULL;
        for (const struct command *at = router->shards[i].first; at != NULL; at = at->shard_next) {
            ASSERT(at->shard_prev == before);
            ASSERT_CMP(at->shard, ==, i);
            ASSERT(before == NULL || before->sequence < at->sequence);
            ASSERT_CMP(at->sequence, <, router->next_sequence);
            before = at;
            writes++;
        }
        ASSERT(router->shards[i].last == before);
    }
    return writes;
}

static void check_group(const struct router *router, const struct group *group)
{
    uint32_t flying[ROUTER_KINDS] = {0, 0};
    uint32_t all = 0;
    for (const struct endpoint *at = router->endpoints; at != NULL; at = at->next) {
        for (const struct batch *batch = at->batches; batch != NULL; batch = batch->next) {
            if (batch->group == group) {
                all++;
                flying[batch->kind] += batch->leader_epoch == group->leader_epoch;
            }
        }
    }
    ASSERT_CMP(group->batch_count, ==, all);
    ASSERT_CMP(group->flying[ROUTER_WRITES], ==, flying[ROUTER_WRITES]);
    ASSERT_CMP(group->flying[ROUTER_READS], ==, flying[ROUTER_READS]);
    ASSERT_CMP(flying[ROUTER_WRITES], <=, router->options.batches_in_flight_max);
    ASSERT_CMP(flying[ROUTER_READS], <=, router->options.batches_in_flight_max);
    ASSERT(group->resting == (group->timer.place != 0));
    ASSERT(group->leader != NULL || group->address_count == 0);
}

void router_check(const struct router *router)
{
    struct totals totals = {0};
    check_list(&router->held, COMMAND_HELD, NULL, &totals);
    check_list(&router->ended, COMMAND_ENDED, NULL, NULL);
    for (uint32_t i = 0; i < router->group_count; i++) {
        const struct group *group = router->groups[i];
        ASSERT(i == 0 || router->groups[i - 1]->id < group->id);
        check_list(&group->queues[ROUTER_WRITES], COMMAND_QUEUED, group, &totals);
        check_list(&group->queues[ROUTER_READS], COMMAND_QUEUED, group, &totals);
        check_group(router, group);
    }
    for (const struct endpoint *at = router->endpoints; at != NULL; at = at->next) {
        ASSERT_CMP(at->references, >, 0);
        for (const struct batch *batch = at->batches; batch != NULL; batch = batch->next) {
            ASSERT(batch->endpoint == at);
            ASSERT(batch->timer.place != 0);
            for (uint32_t i = 0; i < batch->count; i++) {
                const struct command *command = batch->commands[i];
                if (command != NULL) {
                    ASSERT(command->state == COMMAND_FLYING);
                    ASSERT(command->batch == batch);
                    ASSERT_CMP(command->batch_index, ==, i);
                    count(&totals, command);
                }
            }
        }
    }
    ASSERT_CMP(check_shards(router), ==, totals.writes);
    ASSERT_CMP(router->outstanding, ==, totals.commands);
    ASSERT_CMP(router->outstanding_bytes, ==, totals.bytes);
}
