/* The messages of the Kv service: see messages.h.
 *
 * Thread: any; no state. Keys and values of a decoded message are views into its bytes. */
#include "proto/messages_parts.h"

#include "base/assert.h"
#include <stdlib.h>

/* ---- requests: put, append, get, delete, compare and set ---- */

void msg_get_request_encode(const struct msg_get_request *message, struct buf *out)
{
    shardkv_v1_GetRequest pb = shardkv_v1_GetRequest_init_zero;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    wire_put_bytes(&pb.key, &message->key);
    wire_encode(shardkv_v1_GetRequest_fields, &pb, out);
}

/* The outcome of a request's decoding, once its wire format was read: a key is never empty. */
static int check_key(int error, const struct wire_bytes *key)
{
    if (error == ERR_OK && key->view.size == 0) {
        return ERR_INVALID;
    }
    return error;
}

int msg_get_request_decode(struct bytes bytes, struct msg_get_request *out)
{
    shardkv_v1_GetRequest pb = shardkv_v1_GetRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_bytes key;
    wire_bind_bytes(&pb.key, &key, &decoder, KEY_BYTES_MAX);
    int error = check_key(wire_decode(&decoder, shardkv_v1_GetRequest_fields, &pb), &key);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->key = key.view;
    return ERR_OK;
}

void msg_put_request_encode(const struct msg_put_request *message, struct buf *out)
{
    shardkv_v1_PutRequest pb = shardkv_v1_PutRequest_init_zero;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    wire_put_bytes(&pb.key, &message->key);
    wire_put_bytes(&pb.value, &message->value);
    wire_encode(shardkv_v1_PutRequest_fields, &pb, out);
}

int msg_put_request_decode(struct bytes bytes, struct msg_put_request *out)
{
    shardkv_v1_PutRequest pb = shardkv_v1_PutRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_bytes key;
    struct wire_bytes value;
    wire_bind_bytes(&pb.key, &key, &decoder, KEY_BYTES_MAX);
    wire_bind_bytes(&pb.value, &value, &decoder, VALUE_BYTES_MAX);
    int error = check_key(wire_decode(&decoder, shardkv_v1_PutRequest_fields, &pb), &key);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->key = key.view;
    out->value = value.view;
    return ERR_OK;
}

void msg_append_request_encode(const struct msg_append_request *message, struct buf *out)
{
    shardkv_v1_AppendRequest pb = shardkv_v1_AppendRequest_init_zero;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    wire_put_bytes(&pb.key, &message->key);
    wire_put_bytes(&pb.value, &message->value);
    wire_encode(shardkv_v1_AppendRequest_fields, &pb, out);
}

int msg_append_request_decode(struct bytes bytes, struct msg_append_request *out)
{
    shardkv_v1_AppendRequest pb = shardkv_v1_AppendRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_bytes key;
    struct wire_bytes value;
    wire_bind_bytes(&pb.key, &key, &decoder, KEY_BYTES_MAX);
    wire_bind_bytes(&pb.value, &value, &decoder, VALUE_BYTES_MAX);
    int error = check_key(wire_decode(&decoder, shardkv_v1_AppendRequest_fields, &pb), &key);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->key = key.view;
    out->value = value.view;
    return ERR_OK;
}

void msg_delete_request_encode(const struct msg_delete_request *message, struct buf *out)
{
    shardkv_v1_DeleteRequest pb = shardkv_v1_DeleteRequest_init_zero;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    wire_put_bytes(&pb.key, &message->key);
    wire_encode(shardkv_v1_DeleteRequest_fields, &pb, out);
}

int msg_delete_request_decode(struct bytes bytes, struct msg_delete_request *out)
{
    shardkv_v1_DeleteRequest pb = shardkv_v1_DeleteRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_bytes key;
    wire_bind_bytes(&pb.key, &key, &decoder, KEY_BYTES_MAX);
    int error = check_key(wire_decode(&decoder, shardkv_v1_DeleteRequest_fields, &pb), &key);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->key = key.view;
    return ERR_OK;
}

void msg_compare_and_set_request_encode(const struct msg_compare_and_set_request *message,
                                        struct buf *out)
{
    shardkv_v1_CompareAndSetRequest pb = shardkv_v1_CompareAndSetRequest_init_zero;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    pb.expected_version = message->expected_version;
    wire_put_bytes(&pb.key, &message->key);
    wire_put_bytes(&pb.value, &message->value);
    wire_encode(shardkv_v1_CompareAndSetRequest_fields, &pb, out);
}

int msg_compare_and_set_request_decode(struct bytes bytes, struct msg_compare_and_set_request *out)
{
    shardkv_v1_CompareAndSetRequest pb = shardkv_v1_CompareAndSetRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_bytes key;
    struct wire_bytes value;
    wire_bind_bytes(&pb.key, &key, &decoder, KEY_BYTES_MAX);
    wire_bind_bytes(&pb.value, &value, &decoder, VALUE_BYTES_MAX);
    int error = check_key(wire_decode(&decoder, shardkv_v1_CompareAndSetRequest_fields, &pb), &key);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->key = key.view;
    out->expected_version = pb.expected_version;
    out->value = value.view;
    return ERR_OK;
}

/* ---- responses ---- */

void msg_get_response_encode(const struct msg_get_response *message, struct buf *out)
{
    shardkv_v1_GetResponse pb = shardkv_v1_GetResponse_init_zero;
    struct msg__response_out header;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    wire_put_bytes(&pb.value, &message->value);
    pb.version = message->version;
    wire_encode(shardkv_v1_GetResponse_fields, &pb, out);
}

int msg_get_response_decode(struct bytes bytes, struct msg_get_response *out)
{
    shardkv_v1_GetResponse pb = shardkv_v1_GetResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    struct wire_bytes value;
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    wire_bind_bytes(&pb.value, &value, &decoder, VALUE_BYTES_MAX);
    int error = wire_decode(&decoder, shardkv_v1_GetResponse_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_response_header(&pb.header, &out->header);
    out->value = value.view;
    out->version = pb.version;
    return ERR_OK;
}

void msg_write_response_encode(const struct msg_write_response *message, struct buf *out)
{
    shardkv_v1_WriteResponse pb = shardkv_v1_WriteResponse_init_zero;
    struct msg__response_out header;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    pb.version = message->version;
    wire_encode(shardkv_v1_WriteResponse_fields, &pb, out);
}

int msg_write_response_decode(struct bytes bytes, struct msg_write_response *out)
{
    shardkv_v1_WriteResponse pb = shardkv_v1_WriteResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    int error = wire_decode(&decoder, shardkv_v1_WriteResponse_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_response_header(&pb.header, &out->header);
    out->version = pb.version;
    return ERR_OK;
}

/* ---- batches ---- */

void msg_batch_request_encode(const struct msg_batch_request *message, struct buf *out)
{
    shardkv_v1_BatchRequest pb = shardkv_v1_BatchRequest_init_zero;
    pb.batch_id = message->batch_id;
    pb.cluster_id = message->cluster_id;
    pb.config_number = message->config_number;
    pb.reads = message->reads;
    wire_put_bytes(&pb.operations, &message->operations);
    wire_encode(shardkv_v1_BatchRequest_fields, &pb, out);
}

int msg_batch_request_decode(struct bytes bytes, struct msg_batch_request *out)
{
    shardkv_v1_BatchRequest pb = shardkv_v1_BatchRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_bytes operations;
    wire_bind_bytes(&pb.operations, &operations, &decoder, BLOCK_BYTES_MAX);
    int error = wire_decode(&decoder, shardkv_v1_BatchRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    out->batch_id = pb.batch_id;
    out->cluster_id = pb.cluster_id;
    out->config_number = pb.config_number;
    out->reads = pb.reads;
    out->operations = operations.view;
    return ERR_OK;
}

static bool batch_put_route(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                            uint32_t index)
{
    const struct msg_batch_response *message = context;
    shardkv_v1_Route pb = shardkv_v1_Route_init_zero;
    struct msg__route_out parts;
    msg__put_route(&pb, &parts, &message->routes[index]);
    return wire_put_message(stream, field, shardkv_v1_Route_fields, &pb);
}

void msg_batch_response_encode(const struct msg_batch_response *message, struct buf *out)
{
    ASSERT_CMP(message->route_count, <=, BATCH_ROUTES_MAX);
    ASSERT_CMP(message->results.size, <=, RESULTS_BYTES_MAX);
    shardkv_v1_BatchResponse pb = shardkv_v1_BatchResponse_init_zero;
    struct msg__response_out header;
    struct wire_parts routes;
    pb.batch_id = message->batch_id;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    wire_put_bytes(&pb.results, &message->results);
    wire_put_parts(&pb.routes, &routes, message->route_count, batch_put_route, message);
    wire_encode(shardkv_v1_BatchResponse_fields, &pb, out);
}

struct routes_in {
    uint32_t count;
    uint32_t capacity;
    void *items; /* struct msg_route */
};

static int batch_take_route(void *context, struct bytes element)
{
    struct routes_in *in = context;
    int error = wire_array_grow(&in->items, &in->capacity, in->count, BATCH_ROUTES_MAX,
                                sizeof(struct msg_route));
    if (error != ERR_OK) {
        return error;
    }
    struct msg_route *routes = in->items;
    error = msg_route_decode(element, &routes[in->count]);
    if (error == ERR_OK) {
        in->count++;
    }
    return error;
}

int msg_batch_response_decode(struct bytes bytes, struct msg_batch_response *out)
{
    shardkv_v1_BatchResponse pb = shardkv_v1_BatchResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    struct wire_bytes results;
    struct routes_in routes_in = {0};
    struct wire_list routes;
    out->routes = NULL;
    out->route_count = 0;
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    wire_bind_bytes(&pb.results, &results, &decoder, RESULTS_BYTES_MAX);
    wire_bind_list(&pb.routes, &routes, &decoder, batch_take_route, &routes_in);
    int error = wire_decode(&decoder, shardkv_v1_BatchResponse_fields, &pb);
    if (error != ERR_OK) {
        free(routes_in.items);
        return error;
    }
    out->batch_id = pb.batch_id;
    msg__load_response_header(&pb.header, &out->header);
    out->results = results.view;
    out->route_count = routes_in.count;
    out->routes = routes_in.items;
    return ERR_OK;
}

void msg_batch_response_deinit(struct msg_batch_response *message)
{
    free(message->routes);
    message->routes = NULL;
    message->route_count = 0;
}
