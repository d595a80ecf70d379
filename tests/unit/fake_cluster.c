/* See fake_cluster.h. */
#include "unit/fake_cluster.h"

#include "base/assert.h"
#include "proto/methods.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct config *make_config(const struct fake_cluster *cluster, uint64_t number)
{
    struct config *config = config_create(number, FAKE_SHARDS);
    uint32_t replicas = cluster->group_addresses[0][0] != '\0' ? 1 : 0;
    replicas += cluster->group_addresses[1][0] != '\0' ? 1 : 0;
    if (replicas == 0 || number == 0) {
        return config;
    }
    config->group_count = 1;
    config->groups = mem_calloc(1, sizeof(struct config_group));
    config->groups[0].id = 1;
    for (uint32_t i = 0; i < replicas; i++) {
        config->groups[0].replicas[i].id = i + 1;
        (void)snprintf(config->groups[0].replicas[i].address, ADDRESS_BYTES_MAX, "%s",
                       cluster->group_addresses[i]);
    }
    config->groups[0].replica_count = replicas;
    for (uint32_t i = 0; i < FAKE_SHARDS; i++) {
        config->owners[i] = 1;
    }
    return config;
}

/* Mutex held. What the server's mode makes of a request: 0, or an error for the header. -1000: no
 * answer. */
enum { NO_ANSWER = -1000 };

static int judge(struct fake_server *server, uint64_t cluster_id)
{
    if (cluster_id != 0 && cluster_id != server->cluster->cluster_id) {
        return ERR_WRONG_CLUSTER;
    }
    switch (server->mode) {
    case FAKE_LEADER:
        if (server->refuse_count > 0) {
            server->refuse_count--;
            return ERR_NOT_LEADER;
        }
        return 0;
    case FAKE_FOLLOWER:
        return ERR_NOT_LEADER;
    case FAKE_SILENT:
        return NO_ANSWER;
    case FAKE_REFUSING:
        return server->error;
    }
    return 0;
}

static void fill_header(const struct fake_server *server, int error,
                        struct msg_response_header *header)
{
    if (error != 0) {
        msg_response_header_set(header, error, NULL);
    }
    if (error == ERR_NOT_LEADER && server->hint[0] != '\0') {
        header->has_route = true;
        (void)snprintf(header->route.leader_address, ADDRESS_BYTES_MAX, "%s", server->hint);
    }
}

/* Mutex held; true when the call is to be answered now. */
static bool take_call(struct fake_server *server, struct rpc_call *call, uint64_t cluster_id,
                      int *error)
{
    server->calls++;
    *error = judge(server, cluster_id);
    if (*error == NO_ANSWER) {
        ASSERT_CMP(server->held_count, <, 64);
        server->held[server->held_count++] = call;
        return false;
    }
    return true;
}

static void handle_query(void *context, struct rpc_call *call, struct bytes request,
                         struct blob *owner)
{
    struct fake_server *server = context;
    struct fake_cluster *cluster = server->cluster;
    struct msg_query_request query;
    struct msg_query_response response = {0};
    struct buf bytes = {0};
    int error = 0;
    (void)owner;
    ASSERT(msg_query_request_decode(request, &query) == 0);
    pthread_mutex_lock(&cluster->mutex);
    bool now = take_call(server, call, query.header.cluster_id, &error);
    struct config *config = make_config(cluster, cluster->config_number);
    fill_header(server, error, &response.header);
    pthread_mutex_unlock(&cluster->mutex);
    if (now) {
        response.config = error == 0 ? config : NULL;
        msg_query_response_encode(&response, &bytes);
        rpc_call_reply(call, &bytes);
    }
    config_free(config);
    buf_deinit(&bytes);
}

static void handle_change(void *context, struct rpc_call *call, struct bytes request,
                          struct blob *owner)
{
    struct fake_server *server = context;
    struct fake_cluster *cluster = server->cluster;
    struct msg_move_request move;
    struct msg_change_response response = {0};
    struct buf bytes = {0};
    int error = 0;
    (void)owner;
    ASSERT(msg_move_request_decode(request, &move) == 0);
    pthread_mutex_lock(&cluster->mutex);
    if (cluster->first_request.size == 0) {
        buf_append_bytes(&cluster->first_request, request);
    } else if (!bytes_equal(request, buf_view(&cluster->first_request))) {
        cluster->other_requests++;
    }
    bool now = take_call(server, call, move.header.cluster_id, &error);
    fill_header(server, error, &response.header);
    response.config_number = error == 0 ? 77 : 0;
    pthread_mutex_unlock(&cluster->mutex);
    if (now) {
        msg_change_response_encode(&response, &bytes);
        rpc_call_reply(call, &bytes);
    }
    buf_deinit(&bytes);
}

/* ---- watches ---- */

/* Mutex held. */
static void tell(struct fake_watch *watch)
{
    struct fake_cluster *cluster = watch->server->cluster;
    if (!watch->asked || watch->server->watch_is_stuck || watch->server->mode != FAKE_LEADER) {
        return;
    }
    if (watch->latest && watch->next <= cluster->config_number) {
        watch->next = cluster->config_number;
    }
    for (; watch->next <= cluster->config_number; watch->next++) {
        struct config *config = make_config(cluster, watch->next);
        struct msg_watch_response response = {.config = config};
        struct buf bytes = {0};
        msg_watch_response_encode(&response, &bytes);
        int unused = rpc_stream_send(watch->stream, &bytes);
        (void)unused;
        buf_deinit(&bytes);
        config_free(config);
    }
}

static int watch_opened(void *context, struct rpc_stream *stream)
{
    struct fake_server *server = context;
    pthread_mutex_lock(&server->cluster->mutex);
    for (uint32_t i = 0; i < FAKE_STREAMS_MAX; i++) {
        if (server->cluster->watches[i].stream == NULL) {
            server->cluster->watches[i] =
                (struct fake_watch){.stream = rpc_stream_ref(stream), .server = server};
            rpc_stream_set_user(stream, &server->cluster->watches[i]);
            break;
        }
    }
    pthread_mutex_unlock(&server->cluster->mutex);
    return rpc_stream_user(stream) != NULL ? 0 : ERR_BUSY;
}

static bool watch_message(void *context, struct rpc_stream *stream, struct bytes message,
                          struct blob *owner)
{
    struct fake_server *server = context;
    struct fake_watch *watch = rpc_stream_user(stream);
    struct msg_watch_request request;
    (void)owner;
    ASSERT(msg_watch_request_decode(message, &request) == 0);
    pthread_mutex_lock(&server->cluster->mutex);
    watch->asked = true;
    watch->next = request.from_number;
    watch->latest = request.latest_only;
    if (server->mode == FAKE_FOLLOWER) {
        struct msg_watch_response response = {0};
        struct buf bytes = {0};
        fill_header(server, ERR_NOT_LEADER, &response.header);
        msg_watch_response_encode(&response, &bytes);
        int unused = rpc_stream_send(stream, &bytes);
        (void)unused;
        buf_deinit(&bytes);
    } else {
        tell(watch);
    }
    pthread_mutex_unlock(&server->cluster->mutex);
    return true;
}

static void watch_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    struct fake_server *server = context;
    struct fake_watch *watch = rpc_stream_user(stream);
    (void)error;
    (void)text;
    pthread_mutex_lock(&server->cluster->mutex);
    watch->stream = NULL;
    pthread_mutex_unlock(&server->cluster->mutex);
    rpc_stream_unref(stream);
}

static const struct rpc_stream_events watch_events = {
    .opened = watch_opened, .message = watch_message, .closed = watch_closed};

void fake_config_push(struct fake_cluster *cluster, const struct fake_server *first,
                      const struct fake_server *second)
{
    pthread_mutex_lock(&cluster->mutex);
    cluster->config_number++;
    (void)snprintf(cluster->group_addresses[0], ADDRESS_BYTES_MAX, "%s",
                   first != NULL ? first->address : "");
    (void)snprintf(cluster->group_addresses[1], ADDRESS_BYTES_MAX, "%s",
                   second != NULL ? second->address : "");
    for (uint32_t i = 0; i < FAKE_STREAMS_MAX; i++) {
        if (cluster->watches[i].stream != NULL) {
            tell(&cluster->watches[i]);
        }
    }
    pthread_mutex_unlock(&cluster->mutex);
}

/* ---- the group ---- */

static struct fake_row *find_row(struct fake_cluster *cluster, struct bytes key, bool make)
{
    for (uint32_t i = 0; i < cluster->row_count; i++) {
        if (bytes_equal(buf_view(&cluster->rows[i].key), key)) {
            return &cluster->rows[i];
        }
    }
    if (!make) {
        return NULL;
    }
    ASSERT_CMP(cluster->row_count, <, FAKE_ROWS_MAX);
    struct fake_row *row = &cluster->rows[cluster->row_count++];
    *row = (struct fake_row){0};
    buf_append_bytes(&row->key, key);
    return row;
}

static void run_write(struct fake_cluster *cluster, const struct op *op, struct op_result *result)
{
    struct fake_row *row = find_row(cluster, op->key, true);
    cluster->executions++;
    if (op->kind == OP_CAS && row->version != op->expected_version) {
        result->error = ERR_VERSION_MISMATCH;
        result->version = row->version;
        return;
    }
    if (op->kind == OP_DELETE) {
        buf_clear(&row->value);
        row->version = 0;
        return;
    }
    if (op->kind != OP_APPEND) {
        buf_clear(&row->value);
    }
    buf_append_bytes(&row->value, op->value);
    result->version = ++row->version;
}

static void run(struct fake_cluster *cluster, const struct op *op, struct op_result *result)
{
    if (op->kind == OP_GET) {
        struct fake_row *row = find_row(cluster, op->key, false);
        if (row == NULL || row->version == 0) {
            result->error = ERR_NOT_FOUND;
        } else {
            result->version = row->version;
            result->value = buf_view(&row->value);
        }
        return;
    }
    ASSERT_CMP(op->sequence, <, 65536);
    if (!cluster->sessions[op->sequence].executed) {
        run_write(cluster, op, result);
        cluster->sessions[op->sequence].executed = true;
        cluster->sessions[op->sequence].error = result->error;
        cluster->sessions[op->sequence].version = result->version;
    }
    result->error = cluster->sessions[op->sequence].error;
    result->version = cluster->sessions[op->sequence].version;
}

static int batch_opened(void *context, struct rpc_stream *stream)
{
    (void)context;
    (void)stream;
    return 0;
}

static bool batch_message(void *context, struct rpc_stream *stream, struct bytes message,
                          struct blob *owner)
{
    struct fake_server *server = context;
    struct fake_cluster *cluster = server->cluster;
    struct msg_batch_request request;
    struct msg_batch_response response = {0};
    struct block_header header;
    struct block_reader block;
    struct op op;
    struct buf results = {0};
    struct buf bytes = {0};
    (void)owner;
    ASSERT(msg_batch_request_decode(message, &request) == 0);
    ASSERT(block_check(request.operations, request.reads, FAKE_SHARDS, &header) == 0);
    pthread_mutex_lock(&cluster->mutex);
    server->batches++;
    int error = judge(server, request.cluster_id);
    fill_header(server, error, &response.header);
    if (error == 0) {
        ASSERT(block_open(request.operations, &block) == 0);
        results_put_count(&results, header.count);
        while (block_next(&block, &op) == 0) {
            struct op_result result = {0};
            run(cluster, &op, &result);
            results_put(&results, op.kind, &result);
        }
    }
    pthread_mutex_unlock(&cluster->mutex);
    if (error != NO_ANSWER) {
        response.batch_id = request.batch_id;
        response.results = buf_view(&results);
        msg_batch_response_encode(&response, &bytes);
        int unused = rpc_stream_send(stream, &bytes);
        (void)unused;
    }
    buf_deinit(&bytes);
    buf_deinit(&results);
    return true;
}

static void batch_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)context;
    (void)stream;
    (void)error;
    (void)text;
}

static const struct rpc_stream_events batch_events = {
    .opened = batch_opened, .message = batch_message, .closed = batch_closed};

/* ---- life ---- */

struct fake_cluster *fake_cluster_create(uint64_t cluster_id)
{
    struct fake_cluster *cluster = mem_calloc(1, sizeof *cluster);
    struct rpc_options options = rpc_options_default();
    cluster->cluster_id = cluster_id;
    ASSERT(pthread_mutex_init(&cluster->mutex, NULL) == 0);
    ASSERT(rpc_create(&options, &cluster->rpc) == 0);
    return cluster;
}

static void listen_on(struct fake_server *server, const char *address)
{
    struct rpc_server_options options = rpc_server_options_default(address);
    ASSERT(rpc_server_create(server->cluster->rpc, &options, &server->server) == 0);
    ASSERT(rpc_server_add_unary(server->server, METHOD_CONTROLLER_QUERY, handle_query, server) ==
           0);
    ASSERT(rpc_server_add_unary(server->server, METHOD_CONTROLLER_MOVE, handle_change, server) ==
           0);
    ASSERT(rpc_server_add_stream(server->server, METHOD_CONTROLLER_WATCH, &watch_events, server) ==
           0);
    ASSERT(rpc_server_add_stream(server->server, METHOD_KV_BATCH, &batch_events, server) == 0);
    ASSERT(rpc_server_start(server->server) == 0);
    (void)snprintf(server->address, sizeof server->address, "127.0.0.1:%u",
                   rpc_server_port(server->server));
}

struct fake_server *fake_server_start(struct fake_cluster *cluster, enum fake_mode mode)
{
    ASSERT_CMP(cluster->server_count, <, FAKE_SERVERS_MAX);
    struct fake_server *server = &cluster->servers[cluster->server_count++];
    server->cluster = cluster;
    server->mode = mode;
    listen_on(server, "127.0.0.1:0");
    return server;
}

void fake_server_stop(struct fake_server *server)
{
    struct rpc_call *held[64];
    if (server->server == NULL) {
        return;
    }
    pthread_mutex_lock(&server->cluster->mutex);
    uint32_t held_count = server->held_count;
    memcpy(held, server->held, sizeof held);
    server->held_count = 0;
    pthread_mutex_unlock(&server->cluster->mutex);
    for (uint32_t i = 0; i < held_count; i++) {
        rpc_call_fail(held[i], ERR_SHUTDOWN, "test ends");
    }
    rpc_server_shutdown(server->server, 0);
    rpc_server_destroy(server->server);
    server->server = NULL;
}

void fake_server_restart(struct fake_server *server)
{
    char address[ADDRESS_BYTES_MAX];
    memcpy(address, server->address, sizeof address);
    listen_on(server, address);
}

void fake_server_mode(struct fake_server *server, enum fake_mode mode, const char *hint)
{
    pthread_mutex_lock(&server->cluster->mutex);
    server->mode = mode;
    (void)snprintf(server->hint, sizeof server->hint, "%s", hint);
    pthread_mutex_unlock(&server->cluster->mutex);
}

uint32_t fake_calls(struct fake_server *server)
{
    pthread_mutex_lock(&server->cluster->mutex);
    uint32_t calls = server->calls;
    pthread_mutex_unlock(&server->cluster->mutex);
    return calls;
}

uint32_t fake_batches(struct fake_server *server)
{
    pthread_mutex_lock(&server->cluster->mutex);
    uint32_t batches = server->batches;
    pthread_mutex_unlock(&server->cluster->mutex);
    return batches;
}

uint64_t fake_executions(struct fake_cluster *cluster)
{
    pthread_mutex_lock(&cluster->mutex);
    uint64_t executions = cluster->executions;
    pthread_mutex_unlock(&cluster->mutex);
    return executions;
}

void fake_cluster_destroy(struct fake_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->server_count; i++) {
        fake_server_stop(&cluster->servers[i]);
    }
    rpc_destroy(cluster->rpc);
    for (uint32_t i = 0; i < cluster->row_count; i++) {
        buf_deinit(&cluster->rows[i].key);
        buf_deinit(&cluster->rows[i].value);
    }
    buf_deinit(&cluster->first_request);
    pthread_mutex_destroy(&cluster->mutex);
    free(cluster);
}
