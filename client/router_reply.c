/* What becomes of commands when their batch is answered, lost or was never sent.
 *
 * The one rule behind all of it: an attempt that ended without an answer leaves maybe_executed
 * behind, and from then on only an answer to this very command (same client id, same sequence)
 * decides; 'not executed' said about a later attempt says nothing about an earlier one. */
#include "client/router_internal.h"

#include "base/assert.h"
#include <stdlib.h>
#include <string.h>

static struct endpoint *endpoint_of(struct router *router, uint64_t connection)
{
    struct endpoint *at = router->endpoints;
    while (at != NULL && at->connection != connection) {
        at = at->next;
    }
    return at;
}

static void free_batch(struct router *router, struct batch *batch)
{
    struct endpoint *endpoint = batch->endpoint;
    free(batch);
    router__endpoint_unref(router, endpoint);
}

/* Sends a command again, in front of what has waited less. */
static void again(struct router *router, struct command *command, int error, uint64_t now_ns)
{
    command->batch = NULL;
    command->last_error = error;
    router__route(router, command, true, now_ns);
}

/* All commands of an unlinked batch again; then the batch is gone. Backwards, so that they keep
 * their order. */
static void all_again(struct router *router, struct batch *batch, int error, bool maybe_executed,
                      uint64_t now_ns)
{
    for (uint32_t i = batch->count; i > 0; i--) {
        struct command *command = batch->commands[i - 1];
        if (command != NULL) {
            if (maybe_executed) {
                command->maybe_executed = command->sequence != 0;
            }
            again(router, command, error, now_ns);
        }
    }
    free_batch(router, batch);
}

/* ---- connections ---- */

static void lose(struct router *router, struct endpoint *endpoint, uint64_t now_ns)
{
    endpoint->connection = router->next_connection++;
    endpoint->references++; /* it outlives its last batch in here */
    while (endpoint->batches != NULL) {
        struct batch *batch = endpoint->batches;
        struct group *group = batch->group;
        router__batch_unlink(router, batch);
        router__group_declined(router, group, batch->leader_epoch, "", now_ns);
        all_again(router, batch, ERR_UNAVAILABLE, true, now_ns);
    }
    router__endpoint_unref(router, endpoint);
}

static void give_up_connection(struct router *router, struct endpoint *endpoint, uint64_t now_ns)
{
    struct reset *reset = mem_calloc(1, sizeof *reset);
    reset->connection = endpoint->connection;
    reset->next = router->resets;
    router->resets = reset;
    lose(router, endpoint, now_ns);
}

void router_connection_lost(struct router *router, uint64_t connection, uint64_t now_ns)
{
    struct endpoint *endpoint = endpoint_of(router, connection);
    if (endpoint != NULL) {
        lose(router, endpoint, now_ns);
    }
}

void router__batch_timed_out(struct router *router, struct batch *batch, uint64_t now_ns)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->commands[i] != NULL) {
            batch->commands[i]->timeouts++;
        }
    }
    give_up_connection(router, batch->endpoint, now_ns);
}

void router_batch_not_sent(struct router *router, uint64_t batch_id, uint64_t now_ns)
{
    struct batch *batch = router__batch_find(router, batch_id);
    if (batch == NULL) {
        return; /* its connection was lost before it could be sent */
    }
    router__batch_unlink(router, batch);
    router__group_declined(router, batch->group, batch->leader_epoch, "", now_ns);
    all_again(router, batch, ERR_UNAVAILABLE, false, now_ns);
}

/* ---- answers for a whole batch ---- */

static void end_all(struct router *router, struct batch *batch, int error)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        struct command *command = batch->commands[i];
        if (command == NULL) {
            continue;
        }
        bool unknown = command->maybe_executed || err_outcome(error) == OUTCOME_UNKNOWN;
        router__end(router, command,
                    unknown && command->sequence != 0 ? OUTCOME_UNKNOWN : OUTCOME_NOT_DONE, error);
    }
    free_batch(router, batch);
}

static void place_refused(struct router *router, struct command *command, struct batch *batch,
                          int error, uint32_t jitter, uint64_t now_ns);

static void each_refused(struct router *router, struct batch *batch, int error, uint64_t now_ns)
{
    uint32_t jitter = router__jitter(router);
    for (uint32_t i = batch->count; i > 0; i--) {
        if (batch->commands[i - 1] != NULL) {
            place_refused(router, batch->commands[i - 1], batch, error, jitter, now_ns);
        }
    }
    free_batch(router, batch);
}

/* `batch` is unlinked; taken. */
static void batch_refused(struct router *router, struct batch *batch, int error, const char *hint,
                          uint64_t now_ns)
{
    struct group *group = batch->group;
    uint64_t epoch = batch->leader_epoch;
    switch (error) {
    case ERR_NOT_LEADER:
    case ERR_SHUTDOWN:
    case ERR_NO_QUORUM:
    case ERR_WRONG_CLUSTER:
    case ERR_WRONG_REPLICA:
        router->stats.reroutes++;
        router__group_declined(router, group, epoch, hint, now_ns);
        all_again(router, batch, error, false, now_ns);
        break;
    case ERR_LEADER_LOST:
    case ERR_TIMEOUT:
    case ERR_CANCELED:
    case ERR_UNAVAILABLE:
    case ERR_IO:
    case ERR_CORRUPT:
        router__group_declined(router, group, epoch, hint, now_ns);
        all_again(router, batch, error, true, now_ns);
        break;
    case ERR_BUSY:
    case ERR_NO_SPACE:
        if (group->leader_epoch == epoch && !group->resting) {
            router__group_rest(router, group, now_ns);
        }
        all_again(router, batch, error, false, now_ns);
        break;
    case ERR_WRONG_GROUP:
    case ERR_SHARD_MOVING:
    case ERR_CONFIG_BEHIND:
    case ERR_SESSIONS_FULL:
        each_refused(router, batch, error, now_ns);
        break;
    case ERR_SEQUENCE_STALE:
    case ERR_SEQUENCE_REUSED:
        end_all(router, batch, ERR_SESSION_EXPIRED);
        break;
    default:
        end_all(router, batch, error); /* the same everywhere, now and later */
        break;
    }
}

/* ---- answers for each command ---- */

/* A command this group refused for the shard's sake: elsewhere at once if we know where, else
 * later. */
static void place_refused(struct router *router, struct command *command, struct batch *batch,
                          int error, uint32_t jitter, uint64_t now_ns)
{
    command->batch = NULL;
    command->last_error = error;
    if (error == ERR_WRONG_GROUP) {
        struct group *owner = router->shards[command->shard].owner;
        if (owner != NULL && owner != batch->group && command->hops < ROUTER_HOPS_MAX) {
            command->hops++;
            router->stats.reroutes++;
            router__route(router, command, true, now_ns);
            return;
        }
        router__want_config(router);
    }
    router__hold(router, command, jitter, now_ns);
}

static void end_answered(struct router *router, struct command *command,
                         const struct op_result *result, struct blob *owner)
{
    command->version = result->version;
    if (command->kind == OP_GET && result->error == 0 && result->value.size > 0) {
        command->value = result->value;
        command->owner = blob_ref(owner);
    }
    bool done = result->error == 0 || (command->kind == OP_GET && result->error == ERR_NOT_FOUND);
    router__end(router, command, done ? OUTCOME_DONE : OUTCOME_NOT_DONE, result->error);
}

struct settlement {
    struct batch *batch;
    struct blob *owner;
    uint64_t now_ns;
    uint32_t jitter;
    bool progress;        /* some command of the batch was not told BUSY */
    bool declined;        /* some command says that this is not the leader */
    uint32_t again_count; /* in router->picked */
};

static void settle_one(struct router *router, struct settlement *settlement,
                       struct command *command, const struct op_result *result)
{
    command->batch = NULL;
    switch (result->error) {
    case ERR_OK:
    case ERR_NOT_FOUND:
    case ERR_VERSION_MISMATCH:
    case ERR_INVALID:
    case ERR_TOO_LARGE:
        end_answered(router, command, result, settlement->owner);
        break;
    case ERR_BUSY:
        if (!settlement->progress || command->kind != OP_GET) {
            place_refused(router, command, settlement->batch, ERR_BUSY, settlement->jitter,
                          settlement->now_ns);
            break;
        }
        /* The answer was full. Others fitted, so sending it again at once makes progress. */
        command->last_error = ERR_BUSY;
        router->picked[settlement->again_count++] = command;
        break;
    case ERR_WRONG_GROUP:
    case ERR_SHARD_MOVING:
    case ERR_CONFIG_BEHIND:
    case ERR_SESSIONS_FULL:
    case ERR_NO_SPACE:
        place_refused(router, command, settlement->batch, result->error, settlement->jitter,
                      settlement->now_ns);
        break;
    case ERR_LEADER_LOST:
    case ERR_TIMEOUT:
    case ERR_CANCELED:
    case ERR_UNAVAILABLE:
    case ERR_IO:
    case ERR_CORRUPT:
        command->maybe_executed = command->sequence != 0;
        __attribute__((fallthrough));
    case ERR_NOT_LEADER:
    case ERR_SHUTDOWN:
    case ERR_NO_QUORUM:
        settlement->declined = true;
        command->last_error = result->error;
        router->picked[settlement->again_count++] = command;
        break;
    case ERR_SESSION_EXPIRED:
    case ERR_SEQUENCE_STALE:
    case ERR_SEQUENCE_REUSED:
        router__end(router, command, OUTCOME_UNKNOWN, ERR_SESSION_EXPIRED);
        break;
    default:
        router__end(router, command, command->maybe_executed ? OUTCOME_UNKNOWN : OUTCOME_NOT_DONE,
                    result->error);
        break;
    }
}

/* Reads all results once: true when they are well formed and as many as the batch had commands. */
static bool results_check(const struct batch *batch, struct bytes results, enum op_kind kind,
                          uint32_t *busy_count)
{
    struct reader reader;
    uint32_t count = 0;
    *busy_count = 0;
    if (results_open(results, &reader, &count) != 0 || count != batch->count) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct op_result result;
        if (results_next(&reader, kind, &result) != 0) {
            return false;
        }
        *busy_count += result.error == ERR_BUSY;
    }
    return reader_done(&reader);
}

/* What fits into one answer is learned from answers. */
static void learn_reads_max(struct group *group, uint32_t count, uint32_t busy_count)
{
    if (busy_count > 0 && busy_count < count) {
        group->reads_max = count - busy_count;
    } else if (busy_count == 0 && count >= group->reads_max) {
        group->reads_max =
            count < BLOCK_OPERATIONS_MAX / 2 ? count * 2 : (uint32_t)BLOCK_OPERATIONS_MAX;
    }
}

static void settle(struct router *router, struct batch *batch, struct bytes results,
                   enum op_kind kind, uint32_t busy_count, const char *hint, struct blob *owner,
                   uint64_t now_ns)
{
    struct settlement settlement = {.batch = batch,
                                    .owner = owner,
                                    .now_ns = now_ns,
                                    .jitter = router__jitter(router),
                                    .progress = busy_count < batch->count};
    struct reader reader;
    uint32_t count = 0;
    ASSERT(results_open(results, &reader, &count) == 0);
    for (uint32_t i = 0; i < count; i++) {
        struct op_result result;
        ASSERT(results_next(&reader, kind, &result) == 0);
        if (batch->commands[i] != NULL) {
            settle_one(router, &settlement, batch->commands[i], &result);
        }
    }
    if (settlement.declined) {
        router__group_declined(router, batch->group, batch->leader_epoch, hint, now_ns);
    } else {
        router__group_answered(batch->group);
    }
    if (batch->kind == ROUTER_READS) {
        learn_reads_max(batch->group, count, busy_count);
    }
    for (uint32_t i = settlement.again_count; i > 0; i--) {
        router__route(router, router->picked[i - 1], true, now_ns);
    }
    free_batch(router, batch);
}

static void learn_routes(struct router *router, const struct msg_batch_response *response)
{
    for (uint32_t i = 0; i < response->route_count; i++) {
        router__learn_route(router, &response->routes[i]);
    }
    const struct msg_response_header *header = &response->header;
    /* With NOT_LEADER a route may be there for its leader's address alone. */
    if (header->has_route && (header->route.group_id != 0 || header->error == ERR_WRONG_GROUP)) {
        router__learn_route(router, &header->route);
    }
}

void router_reply(struct router *router, uint64_t connection, struct bytes message,
                  struct blob *owner, uint64_t now_ns)
{
    struct endpoint *endpoint = endpoint_of(router, connection);
    if (endpoint == NULL) {
        return;
    }
    struct msg_batch_response response = {0};
    if (msg_batch_response_decode(message, &response) != 0) {
        give_up_connection(router, endpoint, now_ns);
        return;
    }
    struct batch *batch = router__batch_find(router, response.batch_id);
    if (batch == NULL || batch->endpoint != endpoint) {
        msg_batch_response_deinit(&response); /* not one of ours any more */
        return;
    }
    enum op_kind kind =
        batch->kind == ROUTER_READS ? OP_GET : OP_PUT; /* only GET has another form */
    uint32_t busy_count = 0;
    int error = response.header.error;
    if (error == 0 && !results_check(batch, response.results, kind, &busy_count)) {
        msg_batch_response_deinit(&response);
        give_up_connection(router, endpoint, now_ns);
        return;
    }
    const char *hint = response.header.has_route ? response.header.route.leader_address : "";
    learn_routes(router, &response);
    router__group_heard(batch->group, now_ns - batch->sent_ns);
    router__batch_unlink(router, batch);
    if (error != 0) {
        batch_refused(router, batch, error, hint, now_ns);
    } else {
        settle(router, batch, response.results, kind, busy_count, hint, owner, now_ns);
    }
    router__rehome(router, now_ns);
    msg_batch_response_deinit(&response);
}
