/* The course's shard controller suite, against three real processes. A clerk is one controller
 * client with its own id. */
#include "client/controller_client.h"
#include "cluster/harness.h"
#include "lib/suite.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "rpc/rpc.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 10, CLERKS = 10 };
#define CALL_SECONDS 20

struct clerk {
    struct rpc *rpc;
    struct controller_client *client;
    uint64_t cluster_id;
};

static struct cluster cluster;

static void clerk_open(struct clerk *clerk, uint64_t seed)
{
    char why[256] = "";
    struct rpc_options options = rpc_options_default();
    CHECK_EQ(rpc_create(&options, &clerk->rpc), 0);
    clerk->cluster_id = cluster_id_of_name(cluster.name);
    if (controller_client_create(clerk->rpc, clock_system(), cluster.controllers, clerk->cluster_id,
                                 seed, &clerk->client, why, sizeof why) != 0) {
        FAIL("clerk: %s", why);
    }
}

static void clerk_close(struct clerk *clerk)
{
    controller_client_destroy(clerk->client);
    rpc_destroy(clerk->rpc);
}

static void begin(void)
{
    cluster_create(&cluster, "ctrler", SHARDS);
}

static void end(void)
{
    cluster_destroy(&cluster);
}

static struct msg_request_header new_header(struct clerk *clerk)
{
    struct msg_request_header header = {.cluster_id = clerk->cluster_id};
    controller_client_next_ids(clerk->client, &header.client_id, &header.sequence);
    header.acked_below = header.sequence;
    return header;
}

static void call(struct clerk *clerk, const char *method, struct buf *request, struct buf *reply)
{
    char text[256] = "";
    uint64_t deadline = clock_now_ns(clock_system()) + CALL_SECONDS * NS_PER_S;
    int error = controller_client_call_wait(clerk->client, method, request, deadline, reply, text,
                                            sizeof text);
    if (error != 0) {
        FAIL("%s: %s: %s", method, err_text(error), text);
    }
}

/* Sends a change and gives the number of the config it made. */
static uint64_t call_change(struct clerk *clerk, const char *method, struct buf *request)
{
    struct buf reply;
    buf_init(&reply);
    call(clerk, method, request, &reply);
    struct msg_change_response response;
    CHECK_EQ(msg_change_response_decode(buf_view(&reply), &response), 0);
    CHECK_EQ(response.header.error, 0);
    buf_deinit(&reply);
    return response.config_number;
}

static void fill_group(struct config_group *group, uint64_t id)
{
    *group = (struct config_group){.id = id, .replica_count = 3};
    for (uint32_t i = 0; i < 3; i++) {
        group->replicas[i].id = i + 1;
        snprintf(group->replicas[i].address, sizeof group->replicas[i].address, "127.0.0.1:%u",
                 (unsigned)(id % 10000) * 3 + 1024 + i);
    }
}

static uint64_t clerk_join(struct clerk *clerk, const uint64_t *ids, size_t count)
{
    struct config_group *groups = mem_calloc(count, sizeof *groups);
    for (size_t i = 0; i < count; i++) {
        fill_group(&groups[i], ids[i]);
    }
    struct msg_join_request request = {
        .header = new_header(clerk), .group_count = (uint32_t)count, .groups = groups};
    struct buf bytes;
    buf_init(&bytes);
    msg_join_request_encode(&request, &bytes);
    uint64_t number = call_change(clerk, METHOD_CONTROLLER_JOIN, &bytes);
    buf_deinit(&bytes);
    free(groups);
    return number;
}

static uint64_t clerk_leave(struct clerk *clerk, const uint64_t *ids, size_t count)
{
    struct msg_leave_request *request = mem_calloc(1, sizeof *request);
    request->header = new_header(clerk);
    request->force = true;
    request->group_count = (uint32_t)count;
    memcpy(request->group_ids, ids, count * sizeof *ids);
    struct buf bytes;
    buf_init(&bytes);
    msg_leave_request_encode(request, &bytes);
    uint64_t number = call_change(clerk, METHOD_CONTROLLER_LEAVE, &bytes);
    buf_deinit(&bytes);
    free(request);
    return number;
}

static void clerk_move(struct clerk *clerk, uint32_t shard, uint64_t group)
{
    struct msg_move_request request = {
        .header = new_header(clerk), .shard = shard, .group_id = group};
    struct buf bytes;
    buf_init(&bytes);
    msg_move_request_encode(&request, &bytes);
    call_change(clerk, METHOD_CONTROLLER_MOVE, &bytes);
    buf_deinit(&bytes);
}

/* gives. number UINT64_MAX: the newest. */
static struct config *clerk_query(struct clerk *clerk, uint64_t number)
{
    struct msg_query_request request = {.header = {.cluster_id = clerk->cluster_id},
                                        .number = number == UINT64_MAX ? 0 : number,
                                        .latest = number == UINT64_MAX};
    struct buf bytes, reply;
    buf_init(&bytes);
    buf_init(&reply);
    msg_query_request_encode(&request, &bytes);
    call(clerk, METHOD_CONTROLLER_QUERY, &bytes, &reply);
    struct msg_query_response response;
    CHECK_EQ(msg_query_response_decode(buf_view(&reply), &response), 0);
    CHECK_EQ(response.header.error, 0);
    CHECK(response.config != NULL);
    struct config *config = config_clone(response.config);
    msg_query_response_deinit(&response);
    buf_deinit(&bytes);
    buf_deinit(&reply);
    return config;
}

static uint32_t owned_by(const struct config *config, uint64_t group)
{
    uint32_t count = 0;
    for (uint32_t shard = 0; shard < config->shard_count; shard++) {
        count += config->owners[shard] == group;
    }
    return count;
}

/* Exactly these groups, no orphan shard, max - min <= 1: what the course demands of every config.
 */
static void check_config(const struct config *config, const uint64_t *ids, size_t count)
{
    size_t active = 0;
    for (uint32_t i = 0; i < config->group_count; i++) {
        active += !config->groups[i].departed;
    }
    CHECK_EQ(active, count);
    uint32_t least = UINT32_MAX, most = 0, owned = 0;
    for (size_t i = 0; i < count; i++) {
        const struct config_group *group = config_find_group(config, ids[i]);
        CHECK(group != NULL);
        CHECK(!group->departed);
        struct config_group wanted;
        fill_group(&wanted, ids[i]);
        CHECK_EQ(group->replica_count, wanted.replica_count);
        for (uint32_t j = 0; j < wanted.replica_count; j++) {
            CHECK_EQ(strcmp(group->replicas[j].address, wanted.replicas[j].address), 0);
        }
        uint32_t mine = owned_by(config, ids[i]);
        least = mine < least ? mine : least;
        most = mine > most ? mine : most;
        owned += mine;
    }
    if (count > 0) {
        CHECK_EQ(owned, config->shard_count);
        CHECK_CMP(most - least, <=, 1);
    } else {
        CHECK_EQ(owned_by(config, 0), config->shard_count);
    }
}

static void check_newest(struct clerk *clerk, const uint64_t *ids, size_t count)
{
    struct config *config = clerk_query(clerk, UINT64_MAX);
    check_config(config, ids, count);
    config_free(config);
}

static void check_equal(const struct config *a, const struct config *b)
{
    struct buf x, y;
    buf_init(&x);
    buf_init(&y);
    config_encode(a, &x);
    config_encode(b, &y);
    CHECK(bytes_equal(buf_view(&x), buf_view(&y)));
    buf_deinit(&x);
    buf_deinit(&y);
}

/* ---- one at a time
 * --------------------------------------------------------------------------------------------- */

static void leave_join(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    const uint64_t one = 1, two = 2, both[] = {1, 2};
    check_newest(&clerk, NULL, 0);
    clerk_join(&clerk, &one, 1);
    check_newest(&clerk, &one, 1);
    clerk_join(&clerk, &two, 1);
    check_newest(&clerk, both, 2);
    clerk_leave(&clerk, &one, 1);
    check_newest(&clerk, &two, 1);
    clerk_leave(&clerk, &two, 1);
    check_newest(&clerk, NULL, 0);
    clerk_close(&clerk);
    end();
}

static void historical_queries(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    enum { STEPS = 6 };
    const uint64_t ids[3] = {1, 2, 3};
    struct config *configs[STEPS + 1];
    configs[0] = clerk_query(&clerk, UINT64_MAX);
    for (size_t i = 0; i < STEPS; i++) {
        if (i < 3) {
            clerk_join(&clerk, &ids[i], 1);
        } else {
            clerk_leave(&clerk, &ids[i - 3], 1);
        }
        configs[i + 1] = clerk_query(&clerk, UINT64_MAX);
    }
    /* Also after every controller was killed and came back. */
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        process_kill(cluster_find(&cluster, 0, id));
    }
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        process_start(&cluster, cluster_find(&cluster, 0, id));
    }
    for (size_t i = 0; i <= STEPS; i++) {
        struct config *config = clerk_query(&clerk, i);
        CHECK_EQ(config->number, i);
        check_equal(config, configs[i]);
        config_free(config);
        config_free(configs[i]);
    }
    clerk_close(&clerk);
    end();
}

static void move(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    const uint64_t ids[] = {503, 504};
    clerk_join(&clerk, ids, 2);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        uint64_t target = shard < SHARDS / 2 ? ids[0] : ids[1];
        struct config *before = clerk_query(&clerk, UINT64_MAX);
        clerk_move(&clerk, shard, target);
        struct config *after = clerk_query(&clerk, UINT64_MAX);
        CHECK_EQ(after->number, before->number + 1);
        config_free(before);
        config_free(after);
    }
    struct config *config = clerk_query(&clerk, UINT64_MAX);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        CHECK_EQ(config->owners[shard], shard < SHARDS / 2 ? ids[0] : ids[1]);
    }
    config_free(config);
    clerk_leave(&clerk, ids, 2);
    clerk_close(&clerk);
    end();
}

/* Every shard that a group has before and after a join or leave stays where it is. */
static void check_minimal(const struct config *before, const struct config *after)
{
    for (uint32_t i = 0; i < after->group_count; i++) {
        uint64_t id = after->groups[i].id;
        const struct config_group *was = config_find_group(before, id);
        if (after->groups[i].departed || was == NULL || was->departed) {
            continue;
        }
        /* A group that was there gives or takes, never both. */
        uint32_t gave = 0, took = 0;
        for (uint32_t shard = 0; shard < after->shard_count; shard++) {
            gave += before->owners[shard] == id && after->owners[shard] != id;
            took += before->owners[shard] != id && after->owners[shard] == id;
        }
        CHECK(gave == 0 || took == 0);
    }
}

static void minimal_transfer(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    const uint64_t first[] = {1, 2, 3, 4, 5};
    clerk_join(&clerk, first, 5);
    for (uint64_t id = 6; id <= 10; id++) {
        struct config *before = clerk_query(&clerk, UINT64_MAX);
        clerk_join(&clerk, &id, 1);
        struct config *after = clerk_query(&clerk, UINT64_MAX);
        check_minimal(before, after);
        for (uint32_t shard = 0; shard < SHARDS; shard++) {
            /* Only the new group takes anything. */
            CHECK(after->owners[shard] == before->owners[shard] || after->owners[shard] == id);
        }
        config_free(before);
        config_free(after);
    }
    clerk_close(&clerk);
    end();
}

static void minimal_transfer_after_leave(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    const uint64_t all[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    clerk_join(&clerk, all, 10);
    for (uint64_t id = 6; id <= 10; id++) {
        struct config *before = clerk_query(&clerk, UINT64_MAX);
        clerk_leave(&clerk, &id, 1);
        struct config *after = clerk_query(&clerk, UINT64_MAX);
        check_minimal(before, after);
        for (uint32_t shard = 0; shard < SHARDS; shard++) {
            /* Only the leaving group loses anything. */
            CHECK(after->owners[shard] == before->owners[shard] || before->owners[shard] == id);
        }
        config_free(before);
        config_free(after);
    }
    clerk_close(&clerk);
    end();
}

/* One join or leave moves at most N/groups + 1 shards, and those it does not concern stay. */
static void minimal_again(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    const uint64_t first[] = {1, 2, 3};
    clerk_join(&clerk, first, 3);
    uint64_t groups = 3;
    for (int round = 0; round < 12; round++) {
        bool joining = round % 3 != 2;
        uint64_t id = joining ? 4 + (uint64_t)round : 4 + (uint64_t)round - 1;
        struct config *before = clerk_query(&clerk, UINT64_MAX);
        if (joining) {
            clerk_join(&clerk, &id, 1);
            groups++;
        } else {
            clerk_leave(&clerk, &id, 1);
        }
        struct config *after = clerk_query(&clerk, UINT64_MAX);
        uint32_t moved = 0;
        for (uint32_t shard = 0; shard < SHARDS; shard++) {
            moved += before->owners[shard] != after->owners[shard];
        }
        CHECK_CMP(moved, <=, SHARDS / groups + 1);
        check_minimal(before, after);
        groups -= joining ? 0 : 1;
        config_free(before);
        config_free(after);
    }
    clerk_close(&clerk);
    end();
}

/* ---- many at once
 * -----------------------------------------------------------------------------------------------
 */

struct worker {
    pthread_t thread;
    uint64_t id;
    size_t group_count; /* joins this many at once, leaves all but the first */
};

static void *join_and_leave(void *context)
{
    struct worker *worker = context;
    struct clerk clerk;
    clerk_open(&clerk, worker->id);
    uint64_t ids[3] = {worker->id, worker->id + 1000, worker->id + 2000};
    clerk_join(&clerk, &(uint64_t){worker->id + 3000}, 1);
    clerk_join(&clerk, ids, worker->group_count);
    clerk_leave(&clerk, &(uint64_t){worker->id + 3000}, 1);
    if (worker->group_count > 1) {
        clerk_leave(&clerk, ids + 1, worker->group_count - 1);
    }
    clerk_close(&clerk);
    return NULL;
}

static void concurrent(size_t group_count)
{
    begin();
    struct worker workers[CLERKS];
    uint64_t ids[CLERKS];
    for (size_t i = 0; i < CLERKS; i++) {
        ids[i] = 100 + i * 10;
        workers[i] = (struct worker){.id = ids[i], .group_count = group_count};
        CHECK_EQ(pthread_create(&workers[i].thread, NULL, join_and_leave, &workers[i]), 0);
    }
    for (size_t i = 0; i < CLERKS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    struct clerk clerk;
    clerk_open(&clerk, 1);
    check_newest(&clerk, ids, CLERKS);
    clerk_close(&clerk);
    end();
}

static void concurrent_leave_join(void)
{
    concurrent(1);
}

static void multi_concurrent_leave_join(void)
{
    concurrent(3);
}

static void multi_leave_join(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    const uint64_t two[] = {1, 2}, one = 3, three[] = {1, 2, 3}, leaving[] = {1, 3}, left = 2;
    clerk_join(&clerk, two, 2);
    check_newest(&clerk, two, 2);
    clerk_join(&clerk, &one, 1);
    check_newest(&clerk, three, 3);
    clerk_leave(&clerk, leaving, 2);
    check_newest(&clerk, &left, 1);
    clerk_leave(&clerk, &left, 1);
    check_newest(&clerk, NULL, 0);
    clerk_close(&clerk);
    end();
}

static void multi_minimal_transfer(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    const uint64_t first[] = {1, 2, 3}, more[] = {4, 5, 6}, leaving[] = {2, 4};
    clerk_join(&clerk, first, 3);
    struct config *a = clerk_query(&clerk, UINT64_MAX);
    clerk_join(&clerk, more, 3);
    struct config *b = clerk_query(&clerk, UINT64_MAX);
    clerk_leave(&clerk, leaving, 2);
    struct config *c = clerk_query(&clerk, UINT64_MAX);
    check_minimal(a, b);
    check_minimal(b, c);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        CHECK(b->owners[shard] == a->owners[shard] || b->owners[shard] >= 4);
        CHECK(c->owners[shard] == b->owners[shard] || b->owners[shard] == 2 ||
              b->owners[shard] == 4);
    }
    config_free(a);
    config_free(b);
    config_free(c);
    clerk_close(&clerk);
    end();
}

/* A retry, a killed leader, and each controller asked in turn as the leader: all tell the same
 * configs. */
static void agree_config(void)
{
    begin();
    struct clerk clerk;
    clerk_open(&clerk, 1);
    const uint64_t ids[] = {1, 2, 3, 4};
    for (size_t i = 0; i < 4; i++) {
        clerk_join(&clerk, &ids[i], 1);
        struct config *before = clerk_query(&clerk, UINT64_MAX);
        struct process *leader = cluster_leader(&cluster, 0, 20);
        CHECK(leader != NULL);
        process_kill(leader);
        struct config *after = clerk_query(&clerk, UINT64_MAX);
        check_equal(before, after);
        process_start(&cluster, leader);
        config_free(before);
        config_free(after);
    }
    check_newest(&clerk, ids, 4);
    clerk_close(&clerk);
    end();
}

int main(int argc, char **argv)
{
    const struct suite_test tests[] = {
        {"LeaveJoin", leave_join},
        {"HistoricalQueries", historical_queries},
        {"Move", move},
        {"ConcurrentLeaveJoin", concurrent_leave_join},
        {"MinimalTransfer", minimal_transfer},
        {"MinimalTransferAfterLeave", minimal_transfer_after_leave},
        {"MinimalAgain", minimal_again},
        {"MultiLeaveJoin", multi_leave_join},
        {"MultiConcurrentLeaveJoin", multi_concurrent_leave_join},
        {"MultiMinimalTransfer", multi_minimal_transfer},
        {"AgreeConfig", agree_config},
    };
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
