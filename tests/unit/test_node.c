/* Real nodes in one process: real threads, real rpc on loopback, real directories. */
#include "base/log.h"
#include "base/rng.h"
#include "node/kv_machine.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "rpc/rpc.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { NODES = 4, MEMBERS = 3 };
#define LIMIT_NS (30 * NS_PER_S)

struct server {
    struct rpc *rpc;
    struct rpc_server *server;
    struct node *node; /* NULL: down */
    struct state_machine sm;
    char dir[256];
    char address[64];
};

struct fixture {
    char root[128];
    /* the real one; a lock lasts as long as the process, which here outlives its nodes */
    struct vfs vfs;
    struct server servers[NODES];
    struct node_member members[NODES];
};

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

static void nap(void)
{
    struct timespec pause = {0, 5 * NS_PER_MS};
    nanosleep(&pause, NULL); /* between looks at a condition that has a deadline */
}

static int lock_nothing(void *context, const char *path)
{
    (void)context;
    (void)path;
    return ERR_OK;
}

/* ---- servers --------------------------------------------------------------------------------- */

static struct node_options options_of(struct fixture *fixture, uint32_t i)
{
    struct node_options options = node_options_default();
    options.cluster_id = 77;
    options.group_id = 5;
    options.replica_id = i + 1;
    options.dir = fixture->servers[i].dir;
    options.members = fixture->members;
    options.member_count = i < MEMBERS ? MEMBERS : 0;
    options.segment_bytes = 256 * 1024;
    options.flush_log_bytes = 256 * 1024;
    options.cache_bytes_max = 128 * 1024;
    options.election_ticks = 30;
    options.heartbeat_ticks = 5;
    options.clock = clock_system();
    options.vfs = &fixture->vfs;
    options.seed = rng_seed_from_system();
    return options;
}

static void server_open(struct fixture *fixture, uint32_t i)
{
    struct server *server = &fixture->servers[i];
    struct rpc_options rpc_options = rpc_options_default();
    assert_int_equal(rpc_create(&rpc_options, &server->rpc), ERR_OK);
    struct rpc_server_options server_options = rpc_server_options_default(server->address);
    assert_int_equal(rpc_server_create(server->rpc, &server_options, &server->server), ERR_OK);
}

static void server_close(struct server *server)
{
    rpc_server_destroy(server->server);
    rpc_destroy(server->rpc);
    server->server = NULL;
    server->rpc = NULL;
}

/* Leaves nothing behind on an error. */
static int node_up(struct fixture *fixture, uint32_t i, const struct node_options *options,
                   char *why, size_t why_size)
{
    struct server *server = &fixture->servers[i];
    server_open(fixture, i);
    assert_int_equal(kv_machine_open(&fixture->vfs, server->dir, &server->sm), ERR_OK);
    int error = node_create(options, &server->sm, NULL, server->rpc, &server->node, why, why_size);
    if (error != ERR_OK) {
        server->node = NULL;
        kv_machine_close(&server->sm);
        server_close(server);
        return error;
    }
    assert_int_equal(node_add_methods(server->node, server->server), ERR_OK);
    error = rpc_server_start(server->server);
    /* the port of its former life lingers */
    for (int tries = 0; error == ERR_EXISTS && tries < 200; tries++) {
        nap();
        error = rpc_server_start(server->server);
    }
    assert_int_equal(error, ERR_OK);
    assert_int_equal(node_start(server->node), ERR_OK);
    return ERR_OK;
}

static void start(struct fixture *fixture, uint32_t i)
{
    char why[512] = "";
    struct node_options options = options_of(fixture, i);
    int error = node_up(fixture, i, &options, why, sizeof(why));
    if (error != ERR_OK) {
        fail_msg("node %u: %s: %s", i, err_text(error), why);
    }
}

static void stop(struct fixture *fixture, uint32_t i)
{
    struct server *server = &fixture->servers[i];
    if (server->node == NULL) {
        return;
    }
    node_stop(server->node);
    rpc_server_shutdown(server->server, 0);
    node_destroy(server->node);
    server->node = NULL;
    kv_machine_close(&server->sm);
    server_close(server);
}

/* A port that nobody has: bound and let go. */
static void choose_address(char *out, size_t size)
{
    struct rpc *rpc;
    struct rpc_server *server;
    struct rpc_options rpc_options = rpc_options_default();
    struct rpc_server_options options = rpc_server_options_default("127.0.0.1:0");
    assert_int_equal(rpc_create(&rpc_options, &rpc), ERR_OK);
    assert_int_equal(rpc_server_create(rpc, &options, &server), ERR_OK);
    assert_int_equal(rpc_server_start(server), ERR_OK);
    snprintf(out, size, "127.0.0.1:%u", rpc_server_port(server));
    rpc_server_shutdown(server, 0);
    rpc_server_destroy(server);
    rpc_destroy(rpc);
}

static int setup(void **state)
{
    struct fixture *fixture = mem_calloc(1, sizeof(*fixture));
    const char *base = getenv("TMPDIR");
    snprintf(fixture->root, sizeof(fixture->root), "%s/shardkv-node-XXXXXX",
             base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(fixture->root));
    fixture->vfs = *vfs_system();
    fixture->vfs.lock = lock_nothing;
    for (uint32_t i = 0; i < NODES; i++) {
        struct server *server = &fixture->servers[i];
        snprintf(server->dir, sizeof(server->dir), "%s/n%u", fixture->root, i + 1);
        choose_address(server->address, sizeof(server->address));
        fixture->members[i] = (struct node_member){.id = i + 1, .address = server->address};
    }
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 0; i < NODES; i++) {
        stop(fixture, i);
    }
    (void)vfs_system()->remove_tree(vfs_system()->context, fixture->root);
    free(fixture);
    return 0;
}

static int find_leader(struct fixture *fixture)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (fixture->servers[i].node != NULL && node_is_leader(fixture->servers[i].node)) {
            return (int)i;
        }
    }
    return -1;
}

static uint32_t wait_leader(struct fixture *fixture)
{
    uint64_t end_ns = now_ns() + LIMIT_NS;
    int leader = find_leader(fixture);
    while (leader < 0 && now_ns() < end_ns) {
        nap();
        leader = find_leader(fixture);
    }
    assert_true(leader >= 0);
    return (uint32_t)leader;
}

/* ---- waiting for one answer
 * -------------------------------------------------------------------------------------- */

struct call {
    pthread_mutex_t lock;
    pthread_cond_t answered_cond;
    bool answered;
    int error;
    int code;
    struct raft_position position; /* of a command that was done */
    struct state_machine *sm;
    const char *key;
    struct buf value;
};

static void call_init(struct call *call)
{
    memset(call, 0, sizeof(*call));
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->answered_cond, NULL);
}

static void call_deinit(struct call *call)
{
    pthread_cond_destroy(&call->answered_cond);
    pthread_mutex_destroy(&call->lock);
    buf_deinit(&call->value);
}

static void call_answer(struct call *call, int error)
{
    pthread_mutex_lock(&call->lock);
    if (call->answered) {
        abort(); /* answered twice */
    }
    call->answered = true;
    call->error = error;
    pthread_cond_signal(&call->answered_cond);
    pthread_mutex_unlock(&call->lock);
}

static void call_wait(struct call *call)
{
    pthread_mutex_lock(&call->lock);
    while (!call->answered) {
        pthread_cond_wait(&call->answered_cond, &call->lock);
    }
    pthread_mutex_unlock(&call->lock);
}

static void propose_done(void *context, int error, struct raft_position position,
                         struct bytes result)
{
    struct call *call = context;
    call->position = position;
    if (error == ERR_OK) {
        struct bytes value;
        if (kv_answer_decode(result, &call->code, &value) != ERR_OK) {
            abort();
        }
    }
    call_answer(call, error);
}

static void change_done(void *context, int error)
{
    call_answer(context, error);
}

static void read_done(void *context, int error)
{
    struct call *call = context;
    if (error == ERR_OK) {
        (void)kv_machine_get(call->sm, bytes_of_string(call->key), &call->value);
    }
    call_answer(call, error);
}

/* `index`, if not NULL: where the command stands in the log once it was done. */
static int propose(struct node *node, const struct kv_command *command, uint64_t *index)
{
    struct call call;
    struct buf bytes;
    call_init(&call);
    buf_init(&bytes);
    kv_command_encode(command, &bytes);
    struct blob *blob = blob_take_buf(&bytes);
    int error = node_propose(node, blob_view(blob), blob, propose_done, &call);
    blob_unref(blob);
    if (error == ERR_OK) {
        call_wait(&call);
        error = call.error != ERR_OK ? call.error : call.code;
        if (index != NULL) {
            *index = call.position.index;
        }
    }
    call_deinit(&call);
    return error;
}

static int read_key(struct server *server, const char *key, struct buf *out)
{
    struct call call;
    call_init(&call);
    call.sm = &server->sm;
    call.key = key;
    int error = node_read(server->node, read_done, &call);
    if (error == ERR_OK) {
        call_wait(&call);
        error = call.error;
        buf_append_bytes(out, buf_view(&call.value));
    }
    call_deinit(&call);
    return error;
}

/* Asks whoever leads until it worked. */
/* Gives the command's index: what whoever is to have seen it must have applied. A leader's status
 * may still be that of a moment before its answer. */
static uint64_t put(struct fixture *fixture, const char *key, const char *value)
{
    struct kv_command command = {
        .kind = KV_PUT, .key = bytes_of_string(key), .value = bytes_of_string(value)};
    uint64_t end_ns = now_ns() + LIMIT_NS;
    int error = ERR_TIMEOUT;
    uint64_t index = 0;
    while (error != ERR_OK && now_ns() < end_ns) {
        error = propose(fixture->servers[wait_leader(fixture)].node, &command, &index);
        if (error != ERR_OK) {
            nap();
        }
    }
    assert_int_equal(error, ERR_OK);
    return index;
}

static void assert_value(struct fixture *fixture, const char *key, const char *value)
{
    struct buf held;
    uint64_t end_ns = now_ns() + LIMIT_NS;
    int error = ERR_TIMEOUT;
    buf_init(&held);
    while (error != ERR_OK && now_ns() < end_ns) {
        error = read_key(&fixture->servers[wait_leader(fixture)], key, &held);
        if (error != ERR_OK) {
            nap();
        }
    }
    assert_int_equal(error, ERR_OK);
    buf_append(&held, "", 1);
    assert_string_equal((const char *)held.data, value);
    buf_deinit(&held);
}

static void wait_applied(struct fixture *fixture, uint32_t i, uint64_t index)
{
    uint64_t end_ns = now_ns() + LIMIT_NS;
    struct node_status status;
    do {
        node_status(fixture->servers[i].node, &status);
        if (status.raft.applied >= index) {
            return;
        }
        nap();
    } while (now_ns() < end_ns);
    assert_true(status.raft.applied >= index);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void start_members(struct fixture *fixture)
{
    for (uint32_t i = 0; i < MEMBERS; i++) {
        start(fixture, i);
    }
}

static void test_node_three_propose_and_read(void **state)
{
    struct fixture *fixture = *state;
    start_members(fixture);
    uint64_t applied = put(fixture, "a", "1");
    assert_value(fixture, "a", "1");
    uint32_t leader = wait_leader(fixture);
    for (uint32_t i = 0; i < MEMBERS; i++) {
        wait_applied(fixture, i, applied);
        struct buf value;
        buf_init(&value);
        assert_true(kv_machine_get(&fixture->servers[i].sm, bytes_of_string("a"), &value));
        buf_deinit(&value);
    }
    struct kv_command command = {
        .kind = KV_PUT, .key = bytes_of_string("b"), .value = bytes_of_string("2")};
    struct server *follower = &fixture->servers[(leader + 1) % MEMBERS];
    assert_int_equal(propose(follower->node, &command, NULL), ERR_NOT_LEADER);
}

struct writer {
    struct fixture *fixture;
    uint32_t number;
    atomic_uint *left;
};

enum { WRITERS = 4, WRITES = 250 };

static void *writer_main(void *context)
{
    struct writer *writer = context;
    for (uint32_t i = 1; i <= WRITES; i++) {
        char text[32];
        snprintf(text, sizeof(text), "%u.%u;", writer->number, i);
        struct kv_command command = {.kind = KV_APPEND,
                                     .client_id = writer->number,
                                     .sequence = i,
                                     .acked_below = i,
                                     .key = bytes_of_string("log"),
                                     .value = bytes_of_string(text)};
        int error = ERR_NOT_LEADER;
        uint64_t end_ns = now_ns() + LIMIT_NS;
        while (error != ERR_OK && now_ns() < end_ns) {
            int leader = find_leader(writer->fixture);
            error = leader < 0 ? ERR_NOT_LEADER
                               : propose(writer->fixture->servers[leader].node, &command, NULL);
            if (error != ERR_OK) {
                nap();
            }
        }
        if (error != ERR_OK) {
            abort();
        }
    }
    atomic_fetch_sub(writer->left, 1);
    return NULL;
}

static void transfer_once(struct fixture *fixture)
{
    struct call call;
    int leader = find_leader(fixture);
    if (leader < 0) {
        return;
    }
    call_init(&call);
    if (node_transfer(fixture->servers[leader].node, 0, change_done, &call) == ERR_OK) {
        call_wait(&call);
    }
    call_deinit(&call);
}

/* Every writer's appends are there once each, in its order, while leadership moves about. */
static void test_node_many_writers_through_transfers_once_each_in_order(void **state)
{
    struct fixture *fixture = *state;
    pthread_t threads[WRITERS];
    struct writer writers[WRITERS];
    atomic_uint left = WRITERS;
    start_members(fixture);
    (void)wait_leader(fixture);
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){fixture, i + 1, &left};
        assert_int_equal(pthread_create(&threads[i], NULL, writer_main, &writers[i]), 0);
    }
    for (int i = 0; i < 3 && atomic_load(&left) > 0; i++) {
        for (int n = 0; n < 40 && atomic_load(&left) > 0; n++) {
            nap();
        }
        transfer_once(fixture);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    struct buf held;
    buf_init(&held);
    assert_int_equal(read_key(&fixture->servers[wait_leader(fixture)], "log", &held), ERR_OK);
    buf_append(&held, "", 1);
    uint32_t next[WRITERS];
    for (uint32_t i = 0; i < WRITERS; i++) {
        next[i] = 1;
    }
    size_t count = 0;
    for (char *at = (char *)held.data; *at != '\0'; count++) {
        unsigned writer;
        unsigned number;
        int length;
        assert_int_equal(sscanf(at, "%u.%u;%n", &writer, &number, &length), 2);
        assert_in_range(writer, 1, WRITERS);
        assert_int_equal(number, next[writer - 1]);
        next[writer - 1]++;
        at += length;
    }
    assert_int_equal(count, WRITERS * WRITES);
    buf_deinit(&held);
}

static void test_node_leader_stops_another_takes_over_and_it_returns(void **state)
{
    struct fixture *fixture = *state;
    char key[32];
    start_members(fixture);
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put(fixture, key, "before");
    }
    uint32_t first = wait_leader(fixture);
    stop(fixture, first);
    uint64_t written = 0;
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        written = put(fixture, key, "after");
    }
    assert_int_not_equal(first, wait_leader(fixture));
    start(fixture, first);
    wait_applied(fixture, first, written);
    assert_value(fixture, "k49", "after");
    assert_int_equal(kv_machine_count(&fixture->servers[first].sm), 50);
}

static void test_node_all_stop_and_start_again_with_everything(void **state)
{
    struct fixture *fixture = *state;
    char key[32];
    start_members(fixture);
    for (int i = 0; i < 30; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put(fixture, key, "v");
    }
    for (uint32_t i = 0; i < MEMBERS; i++) {
        stop(fixture, i);
    }
    start_members(fixture);
    for (int i = 0; i < 30; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_value(fixture, key, "v");
    }
}

static void test_node_follower_behind_compaction_gets_a_snapshot(void **state)
{
    struct fixture *fixture = *state;
    char value[8193];
    char key[32];
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    start_members(fixture);
    put(fixture, "a", "1");
    uint32_t away = (wait_leader(fixture) + 1) % MEMBERS;
    stop(fixture, away);
    for (int i = 0; i < 150; i++) {
        snprintf(key, sizeof(key), "k%d", i % 40);
        put(fixture, key, value);
    }
    uint32_t leader = wait_leader(fixture);
    struct node_status status;
    uint64_t end_ns = now_ns() + LIMIT_NS;
    do {
        node_status(fixture->servers[leader].node, &status);
        nap();
    } while (status.raft.log_start.index < 10 && now_ns() < end_ns);
    assert_true(status.raft.log_start.index >= 10);
    start(fixture, away);
    wait_applied(fixture, away, status.raft.applied);
    assert_int_equal(kv_machine_count(&fixture->servers[away].sm), 41);
    node_status(fixture->servers[away].node, &status);
    assert_true(status.raft.log_start.index > 10); /* its log begins where the snapshot ended */
}

static void test_node_new_member_waits_is_added_and_follows(void **state)
{
    struct fixture *fixture = *state;
    start_members(fixture);
    put(fixture, "a", "1");
    start(fixture, 3);
    struct raft_change change = {
        .kind = RAFT_ADD_VOTER, .id = 4, .address = fixture->servers[3].address};
    struct call call;
    int error = ERR_BUSY;
    for (int tries = 0; error != ERR_OK && tries < 100; tries++) {
        call_init(&call);
        assert_int_equal(node_change_member(fixture->servers[wait_leader(fixture)].node, &change,
                                            change_done, &call),
                         ERR_OK);
        call_wait(&call);
        error = call.error;
        call_deinit(&call);
    }
    assert_int_equal(error, ERR_OK);
    wait_applied(fixture, 3, put(fixture, "b", "2"));
    struct buf value;
    buf_init(&value);
    assert_true(kv_machine_get(&fixture->servers[3].sm, bytes_of_string("b"), &value));
    buf_deinit(&value);
    struct msg_status_response *response = mem_calloc(1, sizeof(*response));
    node_fill_status(fixture->servers[3].node, response);
    assert_int_equal(response->member_count, 4);
    assert_int_equal(response->replica_id, 4);
    assert_string_equal(response->role, "follower");
    free(response);
}

static void test_node_wrong_identity_is_refused(void **state)
{
    struct fixture *fixture = *state;
    char why[512] = "";
    start(fixture, 0);
    stop(fixture, 0);
    struct node_options options = options_of(fixture, 0);
    options.cluster_id = 78;
    assert_int_equal(node_up(fixture, 0, &options, why, sizeof(why)), ERR_WRONG_CLUSTER);
    assert_non_null(strstr(why, "belongs to cluster"));
    options = options_of(fixture, 0);
    options.replica_id = 2;
    assert_int_equal(node_up(fixture, 0, &options, why, sizeof(why)), ERR_WRONG_REPLICA);
    assert_non_null(strstr(why, "belongs to replica 1"));
    start(fixture, 0);
}

static void test_node_directory_in_use_is_busy(void **state)
{
    struct fixture *fixture = *state;
    char why[512] = "";
    start(fixture, 0);
    struct node_options options = options_of(fixture, 0);
    options.vfs = vfs_system(); /* with real locks */
    struct state_machine sm;
    struct rpc *rpc;
    struct node *first;
    struct node *second;
    struct rpc_options rpc_options = rpc_options_default();
    stop(fixture, 0);
    assert_int_equal(rpc_create(&rpc_options, &rpc), ERR_OK);
    assert_int_equal(kv_machine_open(vfs_system(), options.dir, &sm), ERR_OK);
    assert_int_equal(node_create(&options, &sm, NULL, rpc, &first, why, sizeof(why)), ERR_OK);
    assert_int_equal(node_create(&options, &sm, NULL, rpc, &second, why, sizeof(why)), ERR_BUSY);
    assert_non_null(strstr(why, "in use by another process"));
    node_destroy(first);
    kv_machine_close(&sm);
    rpc_destroy(rpc);
}

/* Another cluster's replica, started by mistake under a member's address, is not listened to. */
static void test_node_of_another_cluster_is_not_counted(void **state)
{
    struct fixture *fixture = *state;
    char why[512] = "";
    start(fixture, 0);
    struct node_options options = options_of(fixture, 1);
    options.cluster_id = 78;
    assert_int_equal(node_up(fixture, 1, &options, why, sizeof(why)), ERR_OK);
    uint64_t end_ns = now_ns() + 2 * NS_PER_S;
    while (now_ns() < end_ns) {
        assert_int_equal(find_leader(fixture), -1);
        nap();
    }
    start(fixture, 2);
    put(fixture, "a", "1");
}

static void test_node_wiped_member_is_not_counted(void **state)
{
    struct fixture *fixture = *state;
    start_members(fixture);
    uint64_t applied = put(fixture, "a", "1");
    uint32_t leader = wait_leader(fixture);
    uint32_t wiped = (leader + 1) % MEMBERS;
    uint32_t other = (leader + 2) % MEMBERS;
    wait_applied(fixture, wiped, applied);
    wait_applied(fixture, other, applied);
    stop(fixture, wiped);
    assert_int_equal(vfs_system()->remove_tree(vfs_system()->context, fixture->servers[wiped].dir),
                     ERR_OK);
    start(fixture, wiped);
    stop(fixture, other);
    /* What the leader still had as a majority ends within two election timeouts, and no other
     * comes. */
    uint64_t end_ns = now_ns() + LIMIT_NS;
    while (find_leader(fixture) >= 0 && now_ns() < end_ns) {
        nap();
    }
    end_ns = now_ns() + 2 * NS_PER_S;
    while (now_ns() < end_ns) {
        assert_int_equal(find_leader(fixture), -1);
        nap();
    }
    start(fixture, other);
    put(fixture, "b", "2");
}

static void test_node_admin_calls_transfer_and_change(void **state)
{
    struct fixture *fixture = *state;
    start_members(fixture);
    put(fixture, "a", "1");
    uint32_t leader = wait_leader(fixture);
    uint32_t follower = (leader + 1) % MEMBERS;
    struct rpc_channel *channels[2];
    assert_int_equal(rpc_channel_create(fixture->servers[3 % MEMBERS].rpc,
                                        fixture->servers[follower].address, &channels[0]),
                     ERR_OK);
    assert_int_equal(rpc_channel_create(fixture->servers[3 % MEMBERS].rpc,
                                        fixture->servers[leader].address, &channels[1]),
                     ERR_OK);
    struct msg_admin_response *response = mem_calloc(1, sizeof(*response));
    int expected[2] = {ERR_NOT_LEADER, ERR_OK};
    for (int i = 0; i < 2; i++) {
        struct msg_transfer_request request = {.cluster_id = 77, .target_id = follower + 1};
        struct buf bytes;
        struct buf reply;
        buf_init(&bytes);
        buf_init(&reply);
        msg_transfer_request_encode(&request, &bytes);
        assert_int_equal(rpc_call_wait(channels[i], METHOD_ADMIN_TRANSFER, &bytes,
                                       now_ns() + LIMIT_NS, &reply, NULL, 0),
                         ERR_OK);
        assert_int_equal(msg_admin_response_decode(buf_view(&reply), response), ERR_OK);
        assert_int_equal(response->header.error, expected[i]);
        if (i == 0) {
            assert_true(response->header.has_route);
            assert_string_equal(response->header.route.leader_address,
                                fixture->servers[leader].address);
        }
        buf_deinit(&bytes);
        buf_deinit(&reply);
    }
    struct msg_change_member_request change = {
        .cluster_id = 999, .kind = MSG_MEMBER_REMOVE, .id = leader + 1};
    struct buf bytes;
    struct buf reply;
    buf_init(&bytes);
    buf_init(&reply);
    msg_change_member_request_encode(&change, &bytes);
    assert_int_equal(rpc_call_wait(channels[0], METHOD_ADMIN_CHANGE_MEMBER, &bytes,
                                   now_ns() + LIMIT_NS, &reply, NULL, 0),
                     ERR_OK);
    assert_int_equal(msg_admin_response_decode(buf_view(&reply), response), ERR_OK);
    assert_int_equal(response->header.error, ERR_WRONG_CLUSTER);
    buf_deinit(&bytes);
    buf_deinit(&reply);
    free(response);
    rpc_channel_destroy(channels[0]);
    rpc_channel_destroy(channels[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_node_three_propose_and_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_node_many_writers_through_transfers_once_each_in_order,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_node_leader_stops_another_takes_over_and_it_returns,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_node_all_stop_and_start_again_with_everything, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_node_follower_behind_compaction_gets_a_snapshot, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_node_new_member_waits_is_added_and_follows, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_node_wrong_identity_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_node_directory_in_use_is_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_node_of_another_cluster_is_not_counted, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_node_wiped_member_is_not_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_node_admin_calls_transfer_and_change, setup, teardown),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? LOG_ERROR : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
