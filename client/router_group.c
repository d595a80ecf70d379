/* Groups and their leaders; building the blocks that leave.
 *
 * Who leads is a belief: `leader`, changed by router__group_declined. A hint of a server is
 * followed at once; without one the replicas are tried in turn, each once, and then the group
 * rests: nothing is sent to it for a while that grows and is jittered. So a dead group costs
 * little, and two servers that point at each other make no loop.
 *
 * When a block leaves: at once when fewer than batches_eager are flying to this leader, so that an
 * idle path has the least latency; otherwise when a slot is free and the block is full. What
 * arrives meanwhile waits in the queue, so the busier the path the larger the blocks, with no
 * timer. */
#include "client/router_internal.h"

#include "base/assert.h"
#include <stdlib.h>
#include <string.h>

/* A block's own header: version, client id, three varints and the count. */
#define BLOCK_HEADER_BYTES_MAX (1 + 8 + 10 + 10 + 5)

/* ---- the table of groups ---- */

static uint32_t group_place(const struct router *router, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = router->group_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (router->groups[middle]->id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct group *router__group_find(struct router *router, uint64_t id)
{
    uint32_t place = group_place(router, id);
    return place < router->group_count && router->groups[place]->id == id ? router->groups[place]
                                                                          : NULL;
}

struct group *router__group_get(struct router *router, uint64_t id)
{
    uint32_t place = group_place(router, id);
    if (place < router->group_count && router->groups[place]->id == id) {
        return router->groups[place];
    }
    if (router->group_count == router->group_capacity) {
        router->group_capacity = router->group_capacity == 0 ? 16 : router->group_capacity * 2;
        router->groups =
            mem_realloc(router->groups, router->group_capacity * sizeof(struct group *));
    }
    memmove(&router->groups[place + 1], &router->groups[place],
            (router->group_count - place) * sizeof(struct group *));
    struct group *group = mem_calloc(1, sizeof *group);
    group->id = id;
    group->timer.kind = TIMER_GROUP;
    group->reads_max = BLOCK_OPERATIONS_MAX;
    group->patience_ns = ROUTER_PATIENCE_MIN_NS;
    group->turn = (uint32_t)rng_below(&router->rng, GROUP_REPLICAS_MAX);
    router->groups[place] = group;
    router->group_count++;
    return group;
}

/* ---- endpoints ---- */

static struct endpoint *endpoint_ref(struct router *router, const char *address)
{
    for (struct endpoint *at = router->endpoints; at != NULL; at = at->next) {
        if (strcmp(at->address, address) == 0) {
            at->references++;
            return at;
        }
    }
    struct endpoint *endpoint = mem_calloc(1, sizeof *endpoint);
    size_t size = strlen(address);
    ASSERT_CMP(size, <, sizeof endpoint->address);
    memcpy(endpoint->address, address, size + 1);
    endpoint->connection = router->next_connection++;
    endpoint->references = 1;
    endpoint->next = router->endpoints;
    if (endpoint->next != NULL) {
        endpoint->next->prev = endpoint;
    }
    router->endpoints = endpoint;
    return endpoint;
}

void router__endpoint_unref(struct router *router, struct endpoint *endpoint)
{
    ASSERT_CMP(endpoint->references, >, 0);
    if (--endpoint->references > 0) {
        return;
    }
    ASSERT(endpoint->batches == NULL);
    if (endpoint->prev != NULL) {
        endpoint->prev->next = endpoint->next;
    } else {
        router->endpoints = endpoint->next;
    }
    if (endpoint->next != NULL) {
        endpoint->next->prev = endpoint->prev;
    }
    free(endpoint);
}

/* ---- who leads ---- */

static void set_leader(struct router *router, struct group *group, const char *address)
{
    struct endpoint *before = group->leader;
    group->leader = address != NULL ? endpoint_ref(router, address) : NULL;
    group->leader_epoch++;
    memset(group->flying, 0, sizeof group->flying); /* those flying are of the former epoch now */
    if (before != NULL) {
        router__endpoint_unref(router, before);
    }
}

static void next_in_turn(struct router *router, struct group *group)
{
    group->turn++;
    set_leader(router, group,
               group->address_count > 0 ? group->addresses[group->turn % group->address_count]
                                        : NULL);
}

void router__group_addresses(struct router *router, struct group *group, uint64_t number,
                             const char *const *addresses, uint32_t count)
{
    ASSERT_CMP(count, <=, GROUP_REPLICAS_MAX);
    if (group->address_count > 0 && number < group->number) {
        return;
    }
    group->number = number;
    if (count == 0) {
        return; /* a route without addresses: what is known stays */
    }
    for (uint32_t i = 0; i < count; i++) {
        (void)strncpy(group->addresses[i], addresses[i], ADDRESS_BYTES_MAX - 1);
        group->addresses[i][ADDRESS_BYTES_MAX - 1] = '\0';
    }
    group->address_count = count;
    /* A leader that is not listed may be a member added since; it will say so itself if it is not.
     */
    if (group->leader == NULL) {
        next_in_turn(router, group);
    }
}

void router__group_rest(struct router *router, struct group *group, uint64_t now_ns)
{
    uint64_t limit_ns = (2 * ROUTER_HOLD_MIN_NS) << (group->rests > 5 ? 5 : group->rests);
    if (limit_ns > ROUTER_BACKOFF_MAX_NS) {
        limit_ns = ROUTER_BACKOFF_MAX_NS;
    }
    if (group->rests >= 3) {
        router__want_config(router); /* perhaps it has left, or moved to other machines */
    }
    group->rests++;
    group->hops = 0;
    group->resting = true;
    timers_set(&router->timers, &group->timer, now_ns + limit_ns * router__jitter(router) / 1024);
}

void router__group_rested(struct router *router, struct group *group)
{
    group->resting = false;
    router__group_ready(router, group);
}

void router__group_answered(struct group *group)
{
    group->hops = 0;
    group->rests = 0;
}

void router__group_heard(struct group *group, uint64_t latency_ns)
{
    uint64_t wanted_ns = latency_ns > ROUTER_PATIENCE_MAX_NS / ROUTER_PATIENCE_FACTOR
                             ? ROUTER_PATIENCE_MAX_NS
                             : latency_ns * ROUTER_PATIENCE_FACTOR;
    if (wanted_ns < ROUTER_PATIENCE_MIN_NS) {
        wanted_ns = ROUTER_PATIENCE_MIN_NS;
    }
    if (wanted_ns > group->patience_ns) {
        group->patience_ns = wanted_ns;
    } else {
        group->patience_ns -= (group->patience_ns - wanted_ns) / 8;
    }
}

void router__group_declined(struct router *router, struct group *group, uint64_t epoch,
                            const char *hint, uint64_t now_ns)
{
    if (group->leader_epoch != epoch || group->leader == NULL) {
        return;
    }
    bool hinted = hint[0] != '\0' && strcmp(hint, group->leader->address) != 0;
    if (hinted) {
        set_leader(router, group, hint);
    } else {
        next_in_turn(router, group);
    }
    group->hops++;
    if (group->hops >= group->address_count + (hinted ? 2 : 0)) {
        router__group_rest(router, group, now_ns);
    } else {
        router__group_ready(router, group);
    }
}

void router__group_ready(struct router *router, struct group *group)
{
    if (group->ready) {
        return;
    }
    group->ready = true;
    group->ready_next = NULL;
    if (router->ready_last != NULL) {
        router->ready_last->ready_next = group;
    } else {
        router->ready_first = group;
    }
    router->ready_last = group;
}

static struct group *take_ready(struct router *router)
{
    struct group *group = router->ready_first;
    if (group != NULL) {
        router->ready_first = group->ready_next;
        if (router->ready_first == NULL) {
            router->ready_last = NULL;
        }
        group->ready = false;
    }
    return group;
}

void router__group_sweep(struct router *router)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < router->group_count; i++) {
        struct group *group = router->groups[i];
        if (group->listed || group->ready || group->batch_count > 0 ||
            group->queues[ROUTER_WRITES].count > 0 || group->queues[ROUTER_READS].count > 0) {
            router->groups[kept++] = group;
            continue;
        }
        set_leader(router, group, NULL);
        timers_clear(&router->timers, &group->timer);
        free(group);
    }
    router->group_count = kept;
}

/* ---- batches ---- */

struct batch *router__batch_find(struct router *router, uint64_t id)
{
    struct batch *batch = router->buckets[id % ROUTER_BATCH_BUCKETS];
    while (batch != NULL && batch->id != id) {
        batch = batch->bucket_next;
    }
    return batch;
}

void router__batch_unlink(struct router *router, struct batch *batch)
{
    struct batch **link = &router->buckets[batch->id % ROUTER_BATCH_BUCKETS];
    while (*link != batch) {
        link = &(*link)->bucket_next;
    }
    *link = batch->bucket_next;
    if (batch->prev != NULL) {
        batch->prev->next = batch->next;
    } else {
        batch->endpoint->batches = batch->next;
    }
    if (batch->next != NULL) {
        batch->next->prev = batch->prev;
    }
    timers_clear(&router->timers, &batch->timer);
    struct group *group = batch->group;
    group->batch_count--;
    if (batch->leader_epoch == group->leader_epoch) {
        ASSERT_CMP(group->flying[batch->kind], >, 0);
        group->flying[batch->kind]--;
    }
    router__group_ready(router, group); /* a slot is free */
}

size_t router__command_bytes(const struct command *command)
{
    struct op op = router__command_op(command);
    return block_op_bytes(&op);
}

struct op router__command_op(const struct command *command)
{
    return (struct op){
        .kind = command->kind,
        .sequence = command->sequence,
        .shard = command->shard,
        .expected_version = command->expected_version,
        .key = bytes_of(command->bytes, command->key_size),
        .value = bytes_of(command->bytes + command->key_size, command->value_size),
    };
}

static bool may_send(const struct router *router, const struct group *group, uint32_t kind)
{
    const struct command_list *queue = &group->queues[kind];
    if (queue->count == 0 || group->resting || group->leader == NULL) {
        return false;
    }
    if (group->flying[kind] < router->options.batches_eager) {
        return true;
    }
    return group->flying[kind] < router->options.batches_in_flight_max &&
           (queue->bytes >= router->options.batch_bytes_full ||
            queue->count >= BLOCK_OPERATIONS_MAX);
}

/* A write so old that servers refuse it: if it surely never ran its age may start anew, otherwise
 * this is its end. */
static bool too_old(struct router *router, struct command *command, uint64_t now_ns)
{
    if (command->sequence == 0 || command->first_sent_ns == 0 ||
        now_ns - command->first_sent_ns < ROUTER_AGE_NS_MAX) {
        return false;
    }
    if (!command->maybe_executed) {
        command->first_sent_ns = now_ns;
        return false;
    }
    router__end(router, command, OUTCOME_UNKNOWN, ERR_SESSION_EXPIRED);
    return true;
}

/* Takes commands from the queue into router->picked, as many as make one block. */
static uint32_t pick(struct router *router, struct group *group, uint32_t kind, uint64_t now_ns)
{
    struct command_list *queue = &group->queues[kind];
    uint32_t count_max = kind == ROUTER_READS ? group->reads_max : BLOCK_OPERATIONS_MAX;
    size_t bytes = BLOCK_HEADER_BYTES_MAX;
    uint32_t count = 0;
    while (queue->first != NULL && count < count_max) {
        struct command *command = queue->first;
        size_t more = router__command_bytes(command);
        if (count > 0 &&
            (bytes + more > BLOCK_BYTES_MAX || bytes >= router->options.batch_bytes_full)) {
            break;
        }
        router__list_remove(queue, command);
        if (too_old(router, command, now_ns)) {
            continue;
        }
        router->picked[count++] = command;
        bytes += more;
    }
    return count;
}

static int compare_sequences(const void *a, const void *b)
{
    uint64_t left = (*(struct command *const *)a)->sequence;
    uint64_t right = (*(struct command *const *)b)->sequence;
    return left < right ? -1 : left > right;
}

/* Retries stand in front of newer commands in no order; a block's sequences ascend. */
static void sort_picked(struct router *router, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        if (router->picked[i - 1]->sequence > router->picked[i]->sequence) {
            qsort(router->picked, count, sizeof(struct command *), compare_sequences);
            return;
        }
    }
}

/* The picked commands as a block in router->block. */
static void pack(struct router *router, uint32_t kind, uint32_t count, uint64_t now_ns)
{
    struct block_header header = {.client_id = router->options.client_id, .count = count};
    uint64_t oldest_ns = now_ns;
    header.acked_below = kind == ROUTER_WRITES ? UINT64_MAX : router->next_sequence;
    for (uint32_t i = 0; i < count; i++) {
        struct command *command = router->picked[i];
        if (command->first_sent_ns == 0) {
            command->first_sent_ns = now_ns;
        } else {
            router->stats.retries++;
        }
        if (command->first_sent_ns < oldest_ns) {
            oldest_ns = command->first_sent_ns;
        }
        if (kind == ROUTER_WRITES) {
            uint64_t lowest = router->shards[command->shard].first->sequence;
            header.acked_below = lowest < header.acked_below ? lowest : header.acked_below;
        }
    }
    if (kind == ROUTER_READS) {
        header.client_id = 0; /* nothing of a session is needed to read */
        header.acked_below = 0;
    }
    header.age_ms = (now_ns - oldest_ns) / NS_PER_MS;
    buf_clear(&router->block);
    block_put_header(&router->block, &header);
    for (uint32_t i = 0; i < count; i++) {
        struct op op = router__command_op(router->picked[i]);
        block_put_op(&router->block, &op);
    }
    ASSERT_CMP(router->block.size, <=, BLOCK_BYTES_MAX);
}

/* Until when the batch waits. Never less long than another on its connection: running out of
 * patience with this one would end the other, too. */
static uint64_t answer_deadline(const struct batch *batch, uint32_t timeouts, uint64_t now_ns)
{
    uint64_t patience_ns = ROUTER_PATIENCE_MIN_NS << (timeouts > 3 ? 3 : timeouts);
    if (patience_ns < batch->group->patience_ns) {
        patience_ns = batch->group->patience_ns;
    }
    if (patience_ns > ROUTER_PATIENCE_MAX_NS) {
        patience_ns = ROUTER_PATIENCE_MAX_NS;
    }
    uint64_t deadline_ns = now_ns + patience_ns;
    for (const struct batch *at = batch->endpoint->batches; at != NULL; at = at->next) {
        deadline_ns = at->timer.at_ns > deadline_ns ? at->timer.at_ns : deadline_ns;
    }
    return deadline_ns;
}

static struct batch *launch(struct router *router, struct group *group, uint32_t kind,
                            uint32_t count, uint64_t now_ns)
{
    struct batch *batch = mem_alloc(sizeof *batch + count * sizeof(struct command *));
    *batch = (struct batch){
        .timer = {.kind = TIMER_BATCH},
        .id = router->next_batch_id++,
        .group = group,
        .endpoint = group->leader,
        .leader_epoch = group->leader_epoch,
        .sent_ns = now_ns,
        .kind = kind,
        .count = count,
    };
    uint32_t timeouts = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct command *command = router->picked[i];
        command->state = COMMAND_FLYING;
        command->batch = batch;
        command->batch_index = i;
        batch->commands[i] = command;
        timeouts = command->timeouts > timeouts ? command->timeouts : timeouts;
    }
    timers_set(&router->timers, &batch->timer, answer_deadline(batch, timeouts, now_ns));
    batch->next = batch->endpoint->batches;
    if (batch->next != NULL) {
        batch->next->prev = batch;
    }
    batch->endpoint->batches = batch;
    batch->endpoint->references++;
    batch->bucket_next = router->buckets[batch->id % ROUTER_BATCH_BUCKETS];
    router->buckets[batch->id % ROUTER_BATCH_BUCKETS] = batch;
    group->flying[kind]++;
    group->batch_count++;
    router->stats.batches++;
    return batch;
}

static bool send_block(struct router *router, struct group *group, uint32_t kind, uint64_t now_ns,
                       struct router_batch *out)
{
    if (!may_send(router, group, kind)) {
        return false;
    }
    uint32_t count = pick(router, group, kind, now_ns);
    if (count == 0) {
        return false;
    }
    if (kind == ROUTER_WRITES) {
        sort_picked(router, count);
    }
    pack(router, kind, count, now_ns);
    struct batch *batch = launch(router, group, kind, count, now_ns);
    struct msg_batch_request request = {
        .batch_id = batch->id,
        .cluster_id = router->options.cluster_id,
        .config_number = router->config_number,
        .reads = kind == ROUTER_READS,
        .operations = buf_view(&router->block),
    };
    out->id = batch->id;
    out->connection = batch->endpoint->connection;
    out->reads = request.reads;
    out->count = count;
    memcpy(out->address, batch->endpoint->address, sizeof out->address);
    buf_init(&out->message);
    (void)buf_reserve(&out->message, router->block.size + 64);
    msg_batch_request_encode(&request, &out->message);
    return true;
}

bool router_next_batch(struct router *router, uint64_t now_ns, struct router_batch *out)
{
    struct group *group;
    while ((group = take_ready(router)) != NULL) {
        for (uint32_t kind = 0; kind < ROUTER_KINDS; kind++) {
            if (send_block(router, group, kind, now_ns, out)) {
                router__group_ready(router, group); /* there may be more */
                return true;
            }
        }
    }
    return false;
}
