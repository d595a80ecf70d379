/* Commands from submit to completion, and which group owns which shard. See router_internal.h for
 * the whole picture. */
#include "client/router_internal.h"

#include "base/assert.h"
#include "proto/shard_hash.h"
#include <stdlib.h>
#include <string.h>

struct router_options router_options_default(void)
{
    return (struct router_options){
        .outstanding_max = 4096,
        .outstanding_bytes_max = 64ull * 1024 * 1024,
        .batches_in_flight_max = 4,
        .batches_eager = 1, /* what comes meanwhile goes together: half the messages of 2 */
        .batch_bytes_full = 256 * 1024,
    };
}

struct router *router_create(const struct router_options *options)
{
    ASSERT(options->client_id != 0);
    ASSERT_CMP(options->outstanding_max, >, 0);
    ASSERT_CMP(options->outstanding_max, <=, SESSION_OUTSTANDING_MAX);
    ASSERT_CMP(options->batches_eager, >, 0);
    ASSERT_CMP(options->batches_eager, <=, options->batches_in_flight_max);
    ASSERT_CMP(options->batch_bytes_full, <=, BLOCK_BYTES_MAX);
    struct router *router = mem_calloc(1, sizeof *router);
    router->options = *options;
    rng_init(&router->rng, options->seed);
    timers_init(&router->timers);
    router->next_sequence = 1;
    router->next_batch_id = 1;
    router->next_connection = 1;
    router->query_delay_ns = ROUTER_QUERY_MIN_NS;
    router->picked = mem_calloc(BLOCK_OPERATIONS_MAX, sizeof(struct command *));
    return router;
}

static void free_list(struct command_list *list)
{
    while (list->first != NULL) {
        struct command *command = list->first;
        list->first = command->next;
        blob_unref(command->owner);
        free(command);
    }
}

static void free_batches(struct batch *batch)
{
    while (batch != NULL) {
        struct batch *next = batch->next;
        for (uint32_t i = 0; i < batch->count; i++) {
            free(batch->commands[i]);
        }
        free(batch);
        batch = next;
    }
}

void router_destroy(struct router *router)
{
    if (router == NULL) {
        return;
    }
    free_list(&router->held);
    free_list(&router->ended);
    for (uint32_t i = 0; i < router->group_count; i++) {
        free_list(&router->groups[i]->queues[ROUTER_WRITES]);
        free_list(&router->groups[i]->queues[ROUTER_READS]);
        free(router->groups[i]);
    }
    while (router->endpoints != NULL) {
        struct endpoint *endpoint = router->endpoints;
        router->endpoints = endpoint->next;
        free_batches(endpoint->batches);
        free(endpoint);
    }
    while (router->resets != NULL) {
        struct reset *reset = router->resets;
        router->resets = reset->next;
        free(reset);
    }
    timers_deinit(&router->timers);
    buf_deinit(&router->block);
    free(router->picked);
    free(router->groups);
    free(router->shards);
    free(router);
}

/* ---- lists ---- */

void router__list_append(struct command_list *list, struct command *command)
{
    command->next = NULL;
    command->prev = list->last;
    if (list->last != NULL) {
        list->last->next = command;
    } else {
        list->first = command;
    }
    list->last = command;
    list->count++;
    list->bytes += router__command_bytes(command);
}

void router__list_prepend(struct command_list *list, struct command *command)
{
    command->prev = NULL;
    command->next = list->first;
    if (list->first != NULL) {
        list->first->prev = command;
    } else {
        list->last = command;
    }
    list->first = command;
    list->count++;
    list->bytes += router__command_bytes(command);
}

void router__list_remove(struct command_list *list, struct command *command)
{
    if (command->prev != NULL) {
        command->prev->next = command->next;
    } else {
        list->first = command->next;
    }
    if (command->next != NULL) {
        command->next->prev = command->prev;
    } else {
        list->last = command->prev;
    }
    command->next = NULL;
    command->prev = NULL;
    list->count--;
    list->bytes -= router__command_bytes(command);
}

static void shard_append(struct shard *shard, struct command *command)
{
    command->ordinal = shard->issued++;
    command->shard_prev = shard->last;
    if (shard->last != NULL) {
        shard->last->shard_next = command;
    } else {
        shard->first = command;
    }
    shard->last = command;
}

static void shard_remove(struct shard *shard, struct command *command)
{
    if (command->shard_prev != NULL) {
        command->shard_prev->shard_next = command->shard_next;
    } else {
        shard->first = command->shard_next;
    }
    if (command->shard_next != NULL) {
        command->shard_next->shard_prev = command->shard_prev;
    } else {
        shard->last = command->shard_prev;
    }
}

/* ---- commands ---- */

static int check_command(const struct router_command *command)
{
    switch (command->kind) {
    case OP_GET:
    case OP_PUT:
    case OP_APPEND:
    case OP_DELETE:
    case OP_CAS:
        break;
    default:
        return ERR_INVALID;
    }
    if (command->key.size == 0) {
        return ERR_INVALID;
    }
    if (command->key.size > KEY_BYTES_MAX || command->value.size > VALUE_BYTES_MAX) {
        return ERR_TOO_LARGE;
    }
    return 0;
}

int router_submit(struct router *router, const struct router_command *command, uint64_t now_ns)
{
    int error = check_command(command);
    if (error != 0) {
        return error;
    }
    if (router->shard_count == 0) {
        return ERR_UNAVAILABLE;
    }
    size_t bytes = command->key.size + command->value.size;
    if (router->outstanding >= router->options.outstanding_max ||
        (router->outstanding > 0 &&
         bytes > router->options.outstanding_bytes_max -
                     (router->outstanding_bytes < router->options.outstanding_bytes_max
                          ? router->outstanding_bytes
                          : router->options.outstanding_bytes_max))) {
        return ERR_BUSY;
    }
    uint32_t shard_index = shard_of_key(command->key, router->shard_count);
    struct shard *shard = &router->shards[shard_index];
    bool write = command->kind != OP_GET;
    /* The server keeps a result for each of them, and refuses more. */
    if (write && shard->first != NULL &&
        shard->issued - shard->first->ordinal >= SESSION_OUTSTANDING_MAX) {
        return ERR_BUSY;
    }
    struct command *taken = mem_alloc(sizeof *taken + bytes);
    *taken = (struct command){
        .timer = {.kind = TIMER_COMMAND},
        .kind = command->kind,
        .shard = shard_index,
        .key_size = (uint32_t)command->key.size,
        .value_size = (uint32_t)command->value.size,
        .sequence = write ? router->next_sequence++ : 0,
        .expected_version = command->expected_version,
        .deadline_ns = command->deadline_ns,
        .context = command->context,
    };
    memcpy(taken->bytes, command->key.data, command->key.size);
    if (command->value.size > 0) {
        memcpy(taken->bytes + command->key.size, command->value.data, command->value.size);
    }
    if (write) {
        shard_append(shard, taken);
    }
    router->outstanding++;
    router->outstanding_bytes += bytes;
    router->stats.commands++;
    timers_set(&router->timers, &taken->timer, taken->deadline_ns);
    router__route(router, taken, false, now_ns);
    return 0;
}

void router__end(struct router *router, struct command *command, enum err_outcome outcome,
                 int error)
{
    timers_clear(&router->timers, &command->timer);
    if (command->sequence != 0) {
        shard_remove(&router->shards[command->shard], command);
    }
    ASSERT_CMP(router->outstanding, >, 0);
    router->outstanding--;
    router->outstanding_bytes -= (uint64_t)command->key_size + command->value_size;
    command->state = COMMAND_ENDED;
    command->outcome = outcome;
    command->error = error;
    router__list_append(&router->ended, command);
}

/* Why a command that surely was not executed did not make it, in the words of the public interface.
 */
static int expired_error(const struct command *command)
{
    switch (command->last_error) {
    case 0:
        return ERR_TIMEOUT; /* it never got its turn */
    case ERR_BUSY:
    case ERR_SESSIONS_FULL:
        return ERR_BUSY;
    case ERR_NO_SPACE:
    case ERR_WRONG_CLUSTER:
        return command->last_error;
    default:
        return ERR_UNAVAILABLE;
    }
}

static void expire(struct router *router, struct command *command)
{
    bool write = command->sequence != 0;
    bool unknown = write && command->maybe_executed;
    switch (command->state) {
    case COMMAND_QUEUED:
        router__list_remove(&command->group->queues[write ? ROUTER_WRITES : ROUTER_READS], command);
        break;
    case COMMAND_HELD:
        router__list_remove(&router->held, command);
        break;
    case COMMAND_FLYING:
        command->batch->commands[command->batch_index] = NULL;
        unknown = write;
        command->last_error = 0;
        break;
    case COMMAND_ENDED:
        UNREACHABLE();
    }
    if (unknown) {
        router__end(router, command, OUTCOME_UNKNOWN, ERR_TIMEOUT);
    } else {
        router__end(router, command, OUTCOME_NOT_DONE, expired_error(command));
    }
}

uint32_t router__jitter(struct router *router)
{
    return (uint32_t)rng_between(&router->rng, 512, 1024);
}

void router__hold(struct router *router, struct command *command, uint32_t jitter, uint64_t now_ns)
{
    uint64_t limit_ns = (2 * ROUTER_HOLD_MIN_NS) << (command->holds > 5 ? 5 : command->holds);
    if (limit_ns > ROUTER_BACKOFF_MAX_NS) {
        limit_ns = ROUTER_BACKOFF_MAX_NS;
    }
    command->holds++;
    command->hops = 0;
    command->state = COMMAND_HELD;
    command->wake_ns = now_ns + limit_ns * jitter / 1024;
    router__list_append(&router->held, command);
    timers_set(&router->timers, &command->timer,
               command->wake_ns < command->deadline_ns ? command->wake_ns : command->deadline_ns);
}

void router__route(struct router *router, struct command *command, bool retry, uint64_t now_ns)
{
    struct group *group = router->shards[command->shard].owner;
    if (group == NULL) {
        if (command->last_error == 0) {
            command->last_error = ERR_UNAVAILABLE; /* nobody owns the shard */
        }
        router__want_config(router);
        router__hold(router, command, router__jitter(router), now_ns);
        return;
    }
    struct command_list *queue =
        &group->queues[command->sequence != 0 ? ROUTER_WRITES : ROUTER_READS];
    command->state = COMMAND_QUEUED;
    command->group = group;
    if (retry) {
        router__list_prepend(queue, command);
    } else {
        router__list_append(queue, command);
    }
    if (command->timer.at_ns != command->deadline_ns) {
        timers_set(&router->timers, &command->timer, command->deadline_ns);
    }
    router__group_ready(router, group);
}

static void command_timer(struct router *router, struct command *command, uint64_t now_ns)
{
    if (now_ns >= command->deadline_ns) {
        expire(router, command);
        return;
    }
    ASSERT(command->state == COMMAND_HELD);
    router__list_remove(&router->held, command);
    router__route(router, command, true, now_ns);
}

void router_tick(struct router *router, uint64_t now_ns)
{
    /* Everything set in here is set later than now, so this ends. */
    struct timer_node *node;
    while ((node = timers_first(&router->timers)) != NULL && node->at_ns <= now_ns) {
        uint8_t *at = (uint8_t *)node;
        switch (node->kind) {
        case TIMER_COMMAND:
            command_timer(router, (struct command *)(void *)(at - offsetof(struct command, timer)),
                          now_ns);
            break;
        case TIMER_BATCH:
            router__batch_timed_out(
                router, (struct batch *)(void *)(at - offsetof(struct batch, timer)), now_ns);
            break;
        case TIMER_GROUP:
            timers_clear(&router->timers, node);
            router__group_rested(router,
                                 (struct group *)(void *)(at - offsetof(struct group, timer)));
            break;
        default:
            UNREACHABLE();
        }
    }
}

uint64_t router_wake_ns(const struct router *router)
{
    struct timer_node *node = timers_first(&router->timers);
    uint64_t wake_ns = node != NULL ? node->at_ns : UINT64_MAX;
    if (router->wants_config && router->query_after_ns < wake_ns) {
        wake_ns = router->query_after_ns;
    }
    return wake_ns;
}

bool router_next_completion(struct router *router, struct router_completion *out)
{
    struct command *command = router->ended.first;
    if (command == NULL) {
        return false;
    }
    router__list_remove(&router->ended, command);
    *out = (struct router_completion){
        .context = command->context,
        .kind = command->kind,
        .outcome = command->outcome,
        .error = command->error,
        .version = command->version,
        .value = command->value,
        .owner = command->owner,
    };
    free(command);
    return true;
}

bool router_has_completion(const struct router *router)
{
    return router->ended.first != NULL;
}

bool router_next_reset(struct router *router, uint64_t *connection)
{
    struct reset *reset = router->resets;
    if (reset == NULL) {
        return false;
    }
    router->resets = reset->next;
    *connection = reset->connection;
    free(reset);
    return true;
}

/* ---- configs and routes ---- */

void router__want_config(struct router *router)
{
    router->wants_config = true;
}

bool router_wants_config(struct router *router, uint64_t now_ns)
{
    if (!router->wants_config || now_ns < router->query_after_ns) {
        return false;
    }
    router->wants_config = false;
    router->query_after_ns = now_ns + router->query_delay_ns;
    router->query_delay_ns *= 2;
    if (router->query_delay_ns > ROUTER_QUERY_MAX_NS) {
        router->query_delay_ns = ROUTER_QUERY_MAX_NS;
    }
    return true;
}

void router__learn_route(struct router *router, const struct msg_route *route)
{
    if (route->shard >= router->shard_count) {
        return;
    }
    if (route->config_number > router->config_number) {
        router__want_config(router);
    }
    struct shard *shard = &router->shards[route->shard];
    if (route->config_number <= shard->number) {
        return;
    }
    shard->number = route->config_number;
    if (shard->owner != NULL) {
        shard->owner->stale = true;
        router->any_stale = true;
    }
    shard->owner = NULL;
    if (route->group_id != 0) {
        struct group *group = router__group_get(router, route->group_id);
        const char *addresses[GROUP_REPLICAS_MAX];
        for (uint32_t i = 0; i < route->address_count; i++) {
            addresses[i] = route->addresses[i];
        }
        group->listed = true;
        router__group_addresses(router, group, route->config_number, addresses,
                                route->address_count);
        shard->owner = group;
    }
}

static void rehome_queue(struct router *router, struct group *group, struct command_list *queue,
                         uint64_t now_ns)
{
    struct command *next;
    for (struct command *command = queue->first; command != NULL; command = next) {
        next = command->next;
        if (router->shards[command->shard].owner != group) {
            router__list_remove(queue, command);
            router__route(router, command, false, now_ns);
        }
    }
}

void router__rehome(struct router *router, uint64_t now_ns)
{
    if (!router->any_stale) {
        return;
    }
    router->any_stale = false;
    for (uint32_t i = 0; i < router->group_count; i++) {
        struct group *group = router->groups[i];
        if (group->stale) {
            group->stale = false;
            rehome_queue(router, group, &group->queues[ROUTER_WRITES], now_ns);
            rehome_queue(router, group, &group->queues[ROUTER_READS], now_ns);
        }
    }
}

static void take_groups(struct router *router, const struct config *config)
{
    for (uint32_t i = 0; i < router->group_count; i++) {
        /* One that a newer route told of stays, whatever this config says. */
        router->groups[i]->listed = router->groups[i]->number > config->number;
    }
    for (uint32_t i = 0; i < config->group_count; i++) {
        const struct config_group *from = &config->groups[i];
        struct group *group = router__group_get(router, from->id);
        const char *addresses[GROUP_REPLICAS_MAX];
        for (uint32_t k = 0; k < from->replica_count; k++) {
            addresses[k] = from->replicas[k].address;
        }
        group->listed = true;
        router__group_addresses(router, group, config->number, addresses, from->replica_count);
    }
}

int router_config(struct router *router, const struct config *config, uint64_t now_ns)
{
    if (router->shard_count != 0 && config->shard_count != router->shard_count) {
        return ERR_PROTOCOL;
    }
    if (router->shard_count == 0) {
        router->shard_count = config->shard_count;
        router->shards = mem_calloc(config->shard_count, sizeof(struct shard));
    } else if (config->number <= router->config_number) {
        return 0;
    }
    router->config_number = config->number;
    router->query_delay_ns = ROUTER_QUERY_MIN_NS;
    take_groups(router, config);
    for (uint32_t i = 0; i < router->shard_count; i++) {
        struct shard *shard = &router->shards[i];
        if (shard->number <= config->number) {
            struct group *owner =
                config->owners[i] != 0 ? router__group_find(router, config->owners[i]) : NULL;
            if (shard->owner != NULL && shard->owner != owner) {
                shard->owner->stale = true;
                router->any_stale = true;
            }
            shard->number = config->number;
            shard->owner = owner;
        }
    }
    router__rehome(router, now_ns);
    /* What waits may have a place to go now; once around, since some of it is held again. */
    for (uint32_t left = router->held.count; left > 0; left--) {
        struct command *command = router->held.first;
        router__list_remove(&router->held, command);
        if (router->shards[command->shard].owner != NULL) {
            command->holds = 0;
            router__route(router, command, true, now_ns);
        } else {
            router__list_append(&router->held, command);
        }
    }
    router__group_sweep(router);
    return 0;
}

void router_stats(const struct router *router, struct router_stats *out)
{
    *out = router->stats;
    out->config_number = router->config_number;
    out->outstanding = router->outstanding;
}
