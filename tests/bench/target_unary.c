/* One operation a gRPC call, through rpc/, to shardkv or to etcd: the same connections, deadlines
 * and retries for both, so that what is measured differs in the server alone. One connection to
 * each server, one completion thread.
 *
 * A shard has a list of replicas and the one that is believed to lead; answers that know better
 * change it. (etcd is one shard whose leader is asked for at the beginning: a follower would only
 * pass the call on.) A call that was refused is sent where its answer points, at once; otherwise to
 * the next replica after RETRY_NS. A call whose outcome is unknown is sent again when that can do
 * no harm: gets, and puts, which write the same value again.
 *
 * The mutex guards places, channels and the waiting list; no callback and no call of rpc/ runs
 * under it, except the making of a channel, which connects lazily. */
#include "bench/target.h"

#include "base/assert.h"
#include "base/clock.h"
#include "bench/etcd.h"
#include "bench/protocol.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "rpc/rpc.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHANNELS_MAX = 256, HOPS_MAX = 3 };
static const uint64_t RETRY_NS = 5 * NS_PER_MS;
/* So that one lost answer does not take the whole time of an operation. */
static const uint64_t TRY_NS = 3 * NS_PER_S;
static const uint64_t OPEN_NS = 10 * NS_PER_S;

struct place {
    uint32_t count;
    uint32_t channels[GROUP_REPLICAS_MAX]; /* indices */
    uint32_t current;                      /* a channel's index */
};

struct unary_call;

struct unary {
    struct target target;
    const struct protocol *protocol;
    uint64_t cluster_id;
    struct rpc *rpc;
    struct rpc_timer *timer;
    atomic_uint_fast64_t retry_count;
    pthread_mutex_t mutex;
    uint32_t place_count;
    struct place *places;
    uint32_t channel_count;
    struct rpc_channel *channels[CHANNELS_MAX];
    char addresses[CHANNELS_MAX][ADDRESS_BYTES_MAX];
    struct unary_call *waiting_first, *waiting_last; /* by due_ns: all wait equally long */
};

struct unary_call {
    struct unary *unary;
    struct unary_call *next;
    struct target_command command;
    target_done_fn done;
    void *context;
    uint64_t due_ns;
    uint32_t place, channel;
    uint32_t hops; /* since it last waited */
    bool maybe_executed;
};

/* ---- places, under the mutex ---- */

/* The channel's index; UINT32_MAX when the address is none or there are too many. */
static uint32_t channel_of(struct unary *unary, const char *address)
{
    for (uint32_t i = 0; i < unary->channel_count; i++) {
        if (strcmp(unary->addresses[i], address) == 0) {
            return i;
        }
    }
    uint32_t index = unary->channel_count;
    if (index == CHANNELS_MAX || strlen(address) >= ADDRESS_BYTES_MAX ||
        rpc_channel_create(unary->rpc, address, &unary->channels[index]) != ERR_OK) {
        return UINT32_MAX;
    }
    snprintf(unary->addresses[index], ADDRESS_BYTES_MAX, "%s", address);
    unary->channel_count++;
    return index;
}

static void place_add(struct unary *unary, struct place *place, const char *address)
{
    uint32_t channel = channel_of(unary, address);
    if (channel != UINT32_MAX && place->count < GROUP_REPLICAS_MAX) {
        place->channels[place->count++] = channel;
    }
}

static void place_set_route(struct unary *unary, struct place *place, const struct msg_route *route)
{
    if (route->address_count > 0) {
        place->count = 0;
        for (uint32_t i = 0; i < route->address_count; i++) {
            place_add(unary, place, route->addresses[i]);
        }
    }
}

/* The replica after the one that was tried, unless somebody has already turned to another. */
static void place_turn(struct place *place, uint32_t tried)
{
    if (place->current != tried || place->count == 0) {
        return;
    }
    uint32_t at = 0;
    while (at < place->count && place->channels[at] != tried) {
        at++;
    }
    place->current = place->channels[at < place->count ? (at + 1) % place->count : 0];
}

/* A leader that is known leads for every shard that was believed to be led by `tried`. */
static void places_follow(struct unary *unary, uint32_t place, uint32_t tried, uint32_t leader)
{
    unary->places[place].current = leader;
    for (uint32_t i = 0; i < unary->place_count; i++) {
        const struct place *other = &unary->places[i];
        for (uint32_t k = 0; k < other->count; k++) {
            if (other->current == tried && other->channels[k] == leader) {
                unary->places[i].current = leader;
            }
        }
    }
}

/* ---- calls ---- */

static void on_reply(void *context, const struct rpc_result *result);

static int call_send(struct unary_call *call)
{
    struct unary *unary = call->unary;
    pthread_mutex_lock(&unary->mutex);
    call->channel = unary->places[call->place].current;
    struct rpc_channel *channel = unary->channels[call->channel];
    pthread_mutex_unlock(&unary->mutex);

    uint64_t try_end_ns = clock_now_ns(clock_system()) + TRY_NS;
    uint64_t deadline_ns =
        call->command.deadline_ns < try_end_ns ? call->command.deadline_ns : try_end_ns;
    struct buf request;
    buf_init(&request);
    const char *method = unary->protocol->encode(unary->cluster_id, &call->command, &request);
    int error = rpc_call_start(channel, method, &request, deadline_ns, on_reply, call, NULL);
    buf_deinit(&request);
    return error;
}

static void call_finish(struct unary_call *call, int error, uint64_t version)
{
    bool answered = error == ERR_OK || error == ERR_NOT_FOUND || error == ERR_VERSION_MISMATCH;
    struct target_answer answer = {
        .error = error,
        .version = version,
        .unknown = !answered && call->command.kind != BENCH_GET &&
                   (call->maybe_executed || err_outcome(error) == OUTCOME_UNKNOWN)};
    target_done_fn done = call->done;
    void *context = call->context;
    free(call);
    done(context, &answer);
}

static void call_again(struct unary_call *call, int error, bool at_once)
{
    struct unary *unary = call->unary;
    uint64_t now_ns = clock_now_ns(clock_system());
    if (now_ns + RETRY_NS >= call->command.deadline_ns) {
        call_finish(call, error, 0);
        return;
    }
    atomic_fetch_add_explicit(&unary->retry_count, 1, memory_order_relaxed);
    if (at_once && call->hops < HOPS_MAX) {
        call->hops++;
        int sent = call_send(call);
        if (sent != ERR_OK) {
            call_finish(call, sent, 0);
        }
        return;
    }
    call->hops = 0;
    call->next = NULL;
    pthread_mutex_lock(&unary->mutex);
    call->due_ns = clock_now_ns(clock_system()) + RETRY_NS;
    bool first = unary->waiting_first == NULL;
    if (first) {
        unary->waiting_first = call;
    } else {
        unary->waiting_last->next = call;
    }
    unary->waiting_last = call;
    uint64_t due_ns = call->due_ns;
    pthread_mutex_unlock(&unary->mutex);
    if (first) {
        rpc_timer_set(unary->timer, due_ns);
    }
}

static void on_timer(void *context)
{
    struct unary *unary = context;
    for (;;) {
        pthread_mutex_lock(&unary->mutex);
        struct unary_call *call = unary->waiting_first;
        uint64_t due_ns = call != NULL ? call->due_ns : UINT64_MAX;
        bool due = call != NULL && due_ns <= clock_now_ns(clock_system());
        if (due) {
            unary->waiting_first = call->next;
        }
        pthread_mutex_unlock(&unary->mutex);
        if (!due) {
            if (due_ns != UINT64_MAX) {
                rpc_timer_set(unary->timer, due_ns);
            }
            return;
        }
        int error = call_send(call);
        if (error != ERR_OK) {
            call_finish(call, error, 0);
        }
    }
}

/* True when the answer named another server to ask. */
static bool follow(struct unary_call *call, const struct protocol_answer *answer)
{
    struct unary *unary = call->unary;
    bool named = false;
    pthread_mutex_lock(&unary->mutex);
    struct place *place = &unary->places[call->place];
    if (answer->has_route && answer->error == ERR_WRONG_GROUP) {
        place_set_route(unary, place, &answer->route);
        if (place->count > 0) {
            place->current = place->channels[0];
            named = place->current != call->channel;
        }
    } else if (answer->has_route && answer->route.leader_address[0] != '\0') {
        uint32_t leader = channel_of(unary, answer->route.leader_address);
        if (leader != UINT32_MAX && leader != call->channel) {
            places_follow(unary, call->place, call->channel, leader);
            named = true;
        }
    }
    if (!named) {
        place_turn(place, call->channel);
    }
    pthread_mutex_unlock(&unary->mutex);
    return named;
}

static void turn(struct unary_call *call)
{
    pthread_mutex_lock(&call->unary->mutex);
    place_turn(&call->unary->places[call->place], call->channel);
    pthread_mutex_unlock(&call->unary->mutex);
}

static bool may_repeat(const struct unary_call *call)
{
    return call->command.kind == BENCH_GET || call->command.kind == BENCH_PUT;
}

static void on_answer(struct unary_call *call, const struct protocol_answer *answer)
{
    switch (answer->error) {
    case ERR_NOT_LEADER:
    case ERR_WRONG_GROUP: {
        bool at_once = follow(call, answer);
        call_again(call, answer->error, at_once);
        return;
    }
    case ERR_BUSY:
    case ERR_SHARD_MOVING:
    case ERR_CONFIG_BEHIND:
    case ERR_NO_QUORUM:
        call_again(call, answer->error, false);
        return;
    case ERR_SHUTDOWN:
        turn(call);
        call_again(call, answer->error, false);
        return;
    case ERR_LEADER_LOST:
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
        call->maybe_executed = true;
        if (may_repeat(call)) {
            (void)follow(call, answer);
            call_again(call, answer->error, false);
            return;
        }
        break;
    default:
        break;
    }
    call_finish(call, answer->error, answer->version);
}

static void on_reply(void *context, const struct rpc_result *result)
{
    struct unary_call *call = context;
    if (result->error == ERR_OK) {
        struct protocol_answer answer;
        int error = call->unary->protocol->decode(call->command.kind, result->reply, &answer);
        if (error == ERR_OK) {
            on_answer(call, &answer);
        } else { /* it was executed or not, but this reply does not say */
            call->maybe_executed = true;
            call_finish(call, error, 0);
        }
        return;
    }
    bool unknown = !result->not_sent && err_outcome(result->error) == OUTCOME_UNKNOWN;
    call->maybe_executed = call->maybe_executed || unknown;
    bool lasting = result->error != ERR_UNAVAILABLE && result->error != ERR_TIMEOUT &&
                   result->error != ERR_BUSY;
    if (lasting || (unknown && !may_repeat(call))) {
        call_finish(call, result->error, 0);
        return;
    }
    if (result->error != ERR_BUSY) {
        turn(call);
    }
    call_again(call, result->error, false);
}

static int unary_start(struct target *target, const struct target_command *command,
                       target_done_fn done, void *context)
{
    struct unary *unary = (struct unary *)target;
    struct unary_call *call = mem_alloc(sizeof *call);
    *call = (struct unary_call){.unary = unary,
                                .command = *command,
                                .done = done,
                                .context = context,
                                .place = shard_of_key(command->key, unary->place_count)};
    int error = call_send(call);
    if (error != ERR_OK) {
        free(call);
    }
    return error;
}

static uint64_t unary_retries(struct target *target)
{
    return atomic_load(&((struct unary *)target)->retry_count);
}

static void unary_destroy(struct target *target)
{
    struct unary *unary = (struct unary *)target;
    ASSERT(unary->waiting_first == NULL);
    if (unary->timer != NULL) {
        rpc_timer_destroy(unary->timer);
    }
    for (uint32_t i = 0; i < unary->channel_count; i++) {
        rpc_channel_destroy(unary->channels[i]);
    }
    rpc_destroy(unary->rpc);
    pthread_mutex_destroy(&unary->mutex);
    free(unary->places);
    free(unary);
}

/* ---- opening ---- */

static int split(struct unary *unary, const char *list, struct place *out)
{
    char *copy = mem_strdup(list);
    char *at = NULL;
    *out = (struct place){0};
    for (char *address = strtok_r(copy, ",", &at); address != NULL;
         address = strtok_r(NULL, ",", &at)) {
        place_add(unary, out, address);
    }
    free(copy);
    return out->count > 0 ? ERR_OK : ERR_INVALID;
}

static void pause_before_retry(void)
{
    struct timespec pause = {.tv_nsec = 50 * (long)NS_PER_MS};
    nanosleep(&pause, NULL);
}

static void use_config(struct unary *unary, const struct config *config)
{
    unary->place_count = config->shard_count;
    unary->places = mem_calloc(config->shard_count, sizeof *unary->places);
    for (uint32_t shard = 0; shard < config->shard_count; shard++) {
        const struct config_group *group = config_find_group(config, config->owners[shard]);
        struct place *place = &unary->places[shard];
        for (uint32_t i = 0; group != NULL && i < group->replica_count; i++) {
            place_add(unary, place, group->replicas[i].address);
        }
        place->current = place->count > 0 ? place->channels[0] : 0;
    }
}

/* Asks one controller for the newest config. */
static int ask_config(struct unary *unary, uint32_t channel)
{
    struct buf request, reply;
    buf_init(&request);
    buf_init(&reply);
    msg_query_request_encode(
        &(struct msg_query_request){.header = {.cluster_id = unary->cluster_id}, .latest = true},
        &request);
    int error = rpc_call_wait(unary->channels[channel], METHOD_CONTROLLER_QUERY, &request,
                              clock_now_ns(clock_system()) + NS_PER_S, &reply, NULL, 0);
    struct msg_query_response response = {0};
    if (error == ERR_OK) {
        error = msg_query_response_decode(buf_view(&reply), &response);
        if (error == ERR_OK) {
            error = response.header.error;
            if (error == ERR_OK && response.config != NULL && response.config->shard_count > 0) {
                use_config(unary, response.config);
            } else if (error == ERR_OK) {
                error = ERR_CONFIG_UNKNOWN;
            }
            msg_query_response_deinit(&response);
        }
    }
    buf_deinit(&request);
    buf_deinit(&reply);
    return error;
}

static int open_shardkv(struct unary *unary, const char *controllers, char *why, size_t why_size)
{
    struct place place;
    if (split(unary, controllers, &place) != ERR_OK) {
        snprintf(why, why_size, "'%s' is no list of addresses", controllers);
        return ERR_INVALID;
    }
    uint64_t end_ns = clock_now_ns(clock_system()) + OPEN_NS;
    for (uint32_t turn_index = 0;; turn_index++) {
        int error = ask_config(unary, place.channels[turn_index % place.count]);
        if (error == ERR_OK || clock_now_ns(clock_system()) > end_ns) {
            snprintf(why, why_size, "no controller gave the config: %s", err_text(error));
            return error;
        }
        if (turn_index % place.count == place.count - 1) {
            pause_before_retry();
        }
    }
}

/* The node at `channel` leads. */
static bool leads(struct unary *unary, uint32_t channel)
{
    struct buf request, reply;
    buf_init(&request);
    buf_init(&reply);
    struct etcd_status_response response;
    bool yes = rpc_call_wait(unary->channels[channel], ETCD_METHOD_STATUS, &request,
                             clock_now_ns(clock_system()) + NS_PER_S, &reply, NULL, 0) == ERR_OK &&
               etcd_status_response_decode(buf_view(&reply), &response) == ERR_OK &&
               response.leader != 0 && response.leader == response.header.member_id;
    buf_deinit(&request);
    buf_deinit(&reply);
    return yes;
}

static int open_etcd(struct unary *unary, const char *endpoints, char *why, size_t why_size)
{
    unary->place_count = 1;
    unary->places = mem_calloc(1, sizeof *unary->places);
    if (split(unary, endpoints, unary->places) != ERR_OK) {
        snprintf(why, why_size, "'%s' is no list of addresses", endpoints);
        return ERR_INVALID;
    }
    uint64_t end_ns = clock_now_ns(clock_system()) + OPEN_NS;
    while (clock_now_ns(clock_system()) < end_ns) {
        for (uint32_t i = 0; i < unary->places->count; i++) {
            if (leads(unary, unary->places->channels[i])) {
                unary->places->current = unary->places->channels[i];
                return ERR_OK;
            }
        }
        pause_before_retry();
    }
    snprintf(why, why_size, "no node of %s says that it leads", endpoints);
    return ERR_UNAVAILABLE;
}

static const struct target_table unary_table = {unary_start, unary_retries, unary_destroy};

int target_unary_create(const struct bench_options *options, struct target **out, char *why,
                        size_t why_size)
{
    struct unary *unary = mem_calloc(1, sizeof *unary);
    struct rpc_options rpc_options = rpc_options_default();
    int error = rpc_create(&rpc_options, &unary->rpc);
    if (error != ERR_OK) {
        snprintf(why, why_size, "gRPC cannot be started: %s", err_text(error));
        free(unary);
        return error;
    }
    unary->target.table = &unary_table;
    pthread_mutex_init(&unary->mutex, NULL);
    atomic_init(&unary->retry_count, 0);
    unary->cluster_id = options->cluster != NULL ? cluster_id_of_name(options->cluster) : 0;
    unary->timer = rpc_timer_create(unary->rpc, on_timer, unary);
    if (options->target == BENCH_ETCD) {
        unary->protocol = &protocol_etcd;
        error = open_etcd(unary, options->endpoints, why, why_size);
    } else {
        unary->protocol = &protocol_shardkv;
        error = open_shardkv(unary, options->controllers, why, why_size);
    }
    if (error != ERR_OK) {
        unary_destroy(&unary->target);
        return error;
    }
    *out = &unary->target;
    return ERR_OK;
}
