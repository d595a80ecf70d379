/* One bidi stream of Kv/Batch per leader in use, over a channel of its own.
 *
 * Thread: rpc callbacks and whoever sends; client->mutex guards the list. A connection is listed
 * from client__connection_stream until its stream's `closed`, which is its only end: it tells the
 * router, frees the connection and its channel. */
#include "client/client_internal.h"

#include "proto/methods.h"
#include <stdlib.h>

/* All that the router can have in flight to one leader, so that a send is never refused for room.
 */
#define SEND_BYTES_MAX (10ull * RPC_MESSAGE_BYTES_MAX)

static bool batch_answered(void *context, struct rpc_stream *stream, struct bytes message,
                           struct blob *owner)
{
    struct connection *connection = context;
    struct skv_client *client = connection->client;
    (void)stream;
    pthread_mutex_lock(&client->mutex);
    router_reply(client->router, connection->id, message, owner, clock_now_ns(client->clock));
    pthread_mutex_unlock(&client->mutex);
    client__pump(client);
    return true;
}

static void stream_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    struct connection *connection = context;
    struct skv_client *client = connection->client;
    (void)error;
    (void)text;
    /* While it is still listed: once it is not, skv_close goes on to rpc_destroy. */
    rpc_channel_destroy(connection->channel);
    pthread_mutex_lock(&client->mutex);
    struct connection **link = &client->connections;
    while (*link != connection) {
        link = &(*link)->next;
    }
    *link = connection->next;
    router_connection_lost(client->router, connection->id, clock_now_ns(client->clock));
    pthread_mutex_unlock(&client->mutex);
    rpc_stream_unref(stream);
    free(connection);
    client__pump(client);
    /* Last, since skv_close frees the client once it sees no connection and rpc_destroy has joined
     * this thread. */
    pthread_mutex_lock(&client->mutex);
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->mutex);
}

static const struct rpc_stream_events stream_events = {
    .message = batch_answered,
    .closed = stream_closed,
};

static struct connection *find(struct skv_client *client, uint64_t id)
{
    struct connection *connection = client->connections;
    while (connection != NULL && connection->id != id) {
        connection = connection->next;
    }
    return connection;
}

struct rpc_stream *client__connection_stream(struct skv_client *client,
                                             const struct router_batch *batch, uint64_t now_ns)
{
    struct connection *connection = find(client, batch->connection);
    if (connection == NULL) {
        connection = mem_calloc(1, sizeof *connection);
        connection->client = client;
        connection->id = batch->connection;
        if (rpc_channel_create(client->rpc, batch->address, &connection->channel) != 0) {
            free(connection);
            return NULL;
        }
        if (rpc_stream_open(connection->channel, METHOD_KV_BATCH, &stream_events, connection,
                            SEND_BYTES_MAX, &connection->stream) != 0) {
            rpc_channel_destroy(connection->channel);
            free(connection);
            return NULL;
        }
        connection->next = client->connections;
        client->connections = connection;
    }
    connection->used_ns = now_ns;
    return rpc_stream_ref(connection->stream);
}

void client__connection_cancel(struct skv_client *client, uint64_t id)
{
    struct connection *connection = find(client, id);
    if (connection != NULL) {
        rpc_stream_cancel(connection->stream);
    }
}

void client__connections_cancel_all(struct skv_client *client)
{
    for (struct connection *at = client->connections; at != NULL; at = at->next) {
        rpc_stream_cancel(at->stream);
    }
}

void client__connections_close_idle(struct skv_client *client, uint64_t now_ns)
{
    for (struct connection *at = client->connections; at != NULL; at = at->next) {
        if (now_ns - at->used_ns >= CLIENT_IDLE_NS) {
            /* The router is told first, so that it takes a new connection number for the next
             * batch. */
            router_connection_lost(client->router, at->id, now_ns);
            rpc_stream_cancel(at->stream);
        }
    }
}
