/* shardkv's unary methods, without exactly-once sessions (client id 0), as the simplest client
 * calls them. */
#include "bench/protocol.h"

#include "base/assert.h"
#include "proto/methods.h"

static const char *shardkv_encode(uint64_t cluster_id, const struct target_command *command,
                                  struct buf *out)
{
    struct msg_request_header header = {.cluster_id = cluster_id};
    switch (command->kind) {
    case BENCH_GET:
        msg_get_request_encode(&(struct msg_get_request){header, command->key}, out);
        return METHOD_KV_GET;
    case BENCH_PUT:
        msg_put_request_encode(&(struct msg_put_request){header, command->key, command->value},
                               out);
        return METHOD_KV_PUT;
    case BENCH_APPEND:
        msg_append_request_encode(
            &(struct msg_append_request){header, command->key, command->value}, out);
        return METHOD_KV_APPEND;
    case BENCH_CAS:
        msg_compare_and_set_request_encode(
            &(struct msg_compare_and_set_request){header, command->key, command->expected,
                                                  command->value},
            out);
        return METHOD_KV_COMPARE_AND_SET;
    case BENCH_KINDS:
        break;
    }
    UNREACHABLE();
}

static int shardkv_decode(enum bench_kind kind, struct bytes reply, struct protocol_answer *out)
{
    struct msg_response_header header;
    int error;
    if (kind == BENCH_GET) {
        struct msg_get_response response;
        error = msg_get_response_decode(reply, &response);
        if (error != ERR_OK) {
            return error;
        }
        header = response.header;
        out->version = response.version;
    } else {
        struct msg_write_response response;
        error = msg_write_response_decode(reply, &response);
        if (error != ERR_OK) {
            return error;
        }
        header = response.header;
        out->version = response.version;
    }
    out->error = header.error;
    out->has_route = header.has_route;
    if (header.has_route) {
        out->route = header.route;
    }
    return ERR_OK;
}

const struct protocol protocol_shardkv = {shardkv_encode, shardkv_decode};
