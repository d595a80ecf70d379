/* See node_fixture.h. */
#include "unit/node_fixture.h"

#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

void nap(void)
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

/* ---- servers ---- */

struct node_options options_of(struct fixture *fixture, uint32_t i)
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

int node_up(struct fixture *fixture, uint32_t i, const struct node_options *options, char *why,
            size_t why_size)
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

void server_start(struct fixture *fixture, uint32_t i)
{
    char why[512] = "";
    struct node_options options = options_of(fixture, i);
    int error = node_up(fixture, i, &options, why, sizeof(why));
    if (error != ERR_OK) {
        fail_msg("node %u: %s: %s", i, err_text(error), why);
    }
}

void start_members(struct fixture *fixture)
{
    for (uint32_t i = 0; i < MEMBERS; i++) {
        server_start(fixture, i);
    }
}

void server_stop(struct fixture *fixture, uint32_t i)
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

int node_set_up(void **state)
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

int node_tear_down(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 0; i < NODES; i++) {
        server_stop(fixture, i);
    }
    (void)vfs_system()->remove_tree(vfs_system()->context, fixture->root);
    free(fixture);
    return 0;
}

int find_leader(struct fixture *fixture)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (fixture->servers[i].node != NULL && node_is_leader(fixture->servers[i].node)) {
            return (int)i;
        }
    }
    return -1;
}

uint32_t wait_leader(struct fixture *fixture)
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

void wait_applied(struct fixture *fixture, uint32_t i, uint64_t index)
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

/* ---- one answer ---- */

void call_init(struct call *call)
{
    memset(call, 0, sizeof(*call));
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->answered_cond, NULL);
}

void call_deinit(struct call *call)
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

void call_wait(struct call *call)
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

void change_done(void *context, int error)
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

/* ---- commands and reads ---- */

int propose(struct node *node, const struct kv_command *command, uint64_t *index)
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

int read_key(struct server *server, const char *key, struct buf *out)
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

uint64_t put(struct fixture *fixture, const char *key, const char *value)
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

void assert_value(struct fixture *fixture, const char *key, const char *value)
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
