/* What the harness asks the processes themselves: who leads, which config was reached, which shards
 * are on their way. */
#include "base/clock.h"
#include "cluster/harness.h"
#include "lib/suite.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "rpc/rpc.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_SECONDS 1.0

int process_call(struct cluster *cluster, const struct process *process, const char *method,
                 struct buf *request, double seconds, struct buf *reply)
{
    if (cluster->rpc == NULL) {
        struct rpc_options options = rpc_options_default();
        CHECK_EQ(rpc_create(&options, &cluster->rpc), 0);
    }
    char address[PROCESS_ADDRESS_BYTES];
    process_own_address(process, address);
    struct rpc_channel *channel = NULL;
    int error = rpc_channel_create(cluster->rpc, address, &channel);
    if (error == 0) {
        uint64_t deadline_ns =
            clock_now_ns(clock_system()) + (uint64_t)(seconds * (double)NS_PER_S);
        error = rpc_call_wait(channel, method, request, deadline_ns, reply, NULL, 0);
        rpc_channel_destroy(channel);
    }
    return error;
}

bool process_status(struct cluster *cluster, const struct process *process, bool with_hash,
                    struct msg_status_response *out)
{
    if (process->pid == 0) {
        return false;
    }
    struct msg_status_request message = {.with_hash = with_hash};
    struct buf request, reply;
    buf_init(&request);
    buf_init(&reply);
    msg_status_request_encode(&message, &request);
    bool good =
        process_call(cluster, process, METHOD_ADMIN_STATUS, &request, ASK_SECONDS, &reply) == 0 &&
        msg_status_response_decode(buf_view(&reply), out) == 0;
    buf_deinit(&request);
    buf_deinit(&reply);
    if (good && out->header.error != 0) {
        msg_status_response_deinit(out);
        good = false;
    }
    return good;
}

/* The leader of the group and its status (deinit it), or NULL. Of two that think they lead, the one
 * of the newer term. */
static struct process *find_leader(struct cluster *cluster, uint64_t group,
                                   struct msg_status_response *out)
{
    struct process *leader = NULL;
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        struct process *process = &cluster->processes[i];
        if (process->group != group || !process_status(cluster, process, false, status)) {
            continue;
        }
        if (strcmp(status->role, "leader") == 0 && (leader == NULL || status->term > out->term)) {
            if (leader != NULL) {
                msg_status_response_deinit(out);
            }
            *out = *status;
            leader = process;
        } else {
            msg_status_response_deinit(status);
        }
    }
    free(status);
    return leader;
}

struct wanted_leader {
    struct cluster *cluster;
    uint64_t group;
    struct process *found;
};

static bool has_leader(void *context)
{
    struct wanted_leader *wanted = context;
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    wanted->found = find_leader(wanted->cluster, wanted->group, status);
    if (wanted->found != NULL) {
        msg_status_response_deinit(status);
    }
    free(status);
    return wanted->found != NULL;
}

struct process *cluster_leader(struct cluster *cluster, uint64_t group, double seconds)
{
    struct wanted_leader wanted = {cluster, group, NULL};
    return wait_until(has_leader, &wanted, seconds) ? wanted.found : NULL;
}

/* The controllers' newest config (free it), or NULL. */
static struct config *newest_config(struct cluster *cluster)
{
    struct process *leader = cluster_leader(cluster, 0, 5);
    if (leader == NULL) {
        return NULL;
    }
    struct msg_query_request message = {.latest = true};
    struct msg_query_response *response = mem_calloc(1, sizeof *response);
    struct buf request, reply;
    buf_init(&request);
    buf_init(&reply);
    msg_query_request_encode(&message, &request);
    struct config *config = NULL;
    if (process_call(cluster, leader, METHOD_CONTROLLER_QUERY, &request, ASK_SECONDS, &reply) ==
            0 &&
        msg_query_response_decode(buf_view(&reply), response) == 0) {
        config = response->config != NULL ? config_clone(response->config) : NULL;
        msg_query_response_deinit(response);
    }
    free(response);
    buf_deinit(&request);
    buf_deinit(&reply);
    return config;
}

/* A group has settled when its leader has reached the config and none of its shards is on its way.
 * A frozen shard without an owner stays where it is until there is one. */
static bool group_has_settled(struct cluster *cluster, uint64_t group, const struct config *config)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    bool settled = false;
    if (find_leader(cluster, group, status) != NULL) {
        settled = status->config_number == config->number;
        for (uint32_t i = 0; settled && i < status->shard_count; i++) {
            const struct msg_shard_status *shard = &status->shards[i];
            bool unowned = shard->shard < config->shard_count && config->owners[shard->shard] == 0;
            settled = shard->state == SHARD_SERVING || shard->state == SHARD_ABSENT ||
                      (shard->state == SHARD_FROZEN && unowned);
        }
        msg_status_response_deinit(status);
    }
    free(status);
    return settled;
}

static bool all_have_settled(void *context)
{
    struct cluster *cluster = context;
    struct config *config = newest_config(cluster);
    bool settled = config != NULL;
    for (uint32_t i = 0; settled && i < cluster->process_count; i++) {
        const struct process *process = &cluster->processes[i];
        bool first = i == 0 || process[-1].group != process->group;
        if (process->group != 0 && first) {
            settled = group_has_settled(cluster, process->group, config);
        }
    }
    if (config != NULL) {
        config_free(config);
    }
    return settled;
}

bool cluster_wait_settled(struct cluster *cluster, double seconds)
{
    return wait_until(all_have_settled, cluster, seconds);
}

static bool replicas_are_equal(void *context)
{
    const struct wanted_leader *wanted = context;
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    uint64_t hash = 0, applied = 0;
    uint32_t count = 0;
    bool equal = true;
    for (uint32_t i = 0; i < wanted->cluster->process_count && equal; i++) {
        const struct process *process = &wanted->cluster->processes[i];
        if (process->group != wanted->group || process->pid == 0) {
            continue;
        }
        equal = process_status(wanted->cluster, process, true, status);
        if (!equal) {
            break;
        }
        equal = count == 0 || (status->state_hash == hash && status->state_hash_applied == applied);
        hash = status->state_hash;
        applied = status->state_hash_applied;
        count++;
        msg_status_response_deinit(status);
    }
    free(status);
    return equal && count > 1;
}

bool cluster_wait_equal(struct cluster *cluster, uint64_t group, double seconds)
{
    struct wanted_leader wanted = {cluster, group, NULL};
    return wait_until(replicas_are_equal, &wanted, seconds);
}
