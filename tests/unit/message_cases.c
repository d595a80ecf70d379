/* The table of message_cases.h: how each message is filled for a test.
 *
 * Numbers are drawn at many magnitudes, zero among them, so that fields are left out, short and
 * long. */
#include "unit/message_cases.h"

#include "proto/messages.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What keys and values point into. */
static const char sample_bytes[] =
    "The quick brown fox {tag} jumps over the lazy dog; packed my box with five dozen liquor jugs.";

static uint64_t number(struct rng *rng)
{
    unsigned shift = (unsigned)rng_below(rng, 64);
    return rng_chance(rng, 1, 6) ? 0 : rng_next(rng) >> shift;
}

static uint32_t number_u32(struct rng *rng)
{
    return (uint32_t)number(rng);
}

static bool flag(struct rng *rng)
{
    return rng_chance(rng, 1, 2);
}

static struct bytes some_bytes(struct rng *rng, size_t size_min)
{
    size_t size = (size_t)rng_between(rng, size_min, sizeof(sample_bytes) - 1);
    size_t start = (size_t)rng_below(rng, sizeof(sample_bytes) - size);
    return bytes_of(sample_bytes + start, size);
}

static void some_address(char out[ADDRESS_BYTES_MAX], struct rng *rng)
{
    (void)snprintf(out, ADDRESS_BYTES_MAX, "host-%u.example:%u", (unsigned)rng_below(rng, 1000),
                   (unsigned)rng_below(rng, 65536));
}

static void fill_request_header(void *message, struct rng *rng)
{
    struct msg_request_header *header = message;
    header->cluster_id = number(rng);
    header->client_id = number(rng);
    header->sequence = number(rng);
    header->acked_below = number(rng);
    header->age_ms = number(rng);
    header->config_number = number(rng);
}

static void fill_route(void *message, struct rng *rng)
{
    struct msg_route *route = message;
    route->config_number = number(rng);
    route->shard = number_u32(rng);
    route->group_id = number(rng);
    route->address_count = (uint32_t)rng_below(rng, 4);
    for (uint32_t i = 0; i < route->address_count; i++) {
        some_address(route->addresses[i], rng);
    }
    if (flag(rng)) {
        some_address(route->leader_address, rng);
    }
}

static int some_error(struct rng *rng)
{
    static const int errors[] = {ERR_OK, ERR_NOT_LEADER, ERR_WRONG_GROUP, ERR_BUSY, ERR_NO_QUORUM};
    return errors[rng_below(rng, sizeof(errors) / sizeof(errors[0]))];
}

static void fill_response_header(void *message, struct rng *rng)
{
    struct msg_response_header *header = message;
    msg_response_header_set(header, some_error(rng),
                            flag(rng) ? NULL : "na\xc3\xafve \xe2\x82\xac");
    header->has_route = flag(rng);
    if (header->has_route) {
        fill_route(&header->route, rng);
    }
}

/* ---- key-value ---- */

static void fill_get_request(void *message, struct rng *rng)
{
    struct msg_get_request *request = message;
    fill_request_header(&request->header, rng);
    request->key = some_bytes(rng, 1);
}

static void fill_get_response(void *message, struct rng *rng)
{
    struct msg_get_response *response = message;
    fill_response_header(&response->header, rng);
    response->value = some_bytes(rng, 0);
    response->version = number(rng);
}

static void fill_put_request(void *message, struct rng *rng)
{
    struct msg_put_request *request = message;
    fill_request_header(&request->header, rng);
    request->key = some_bytes(rng, 1);
    request->value = some_bytes(rng, 0);
}

static void fill_append_request(void *message, struct rng *rng)
{
    struct msg_append_request *request = message;
    fill_request_header(&request->header, rng);
    request->key = some_bytes(rng, 1);
    request->value = some_bytes(rng, 0);
}

static void fill_delete_request(void *message, struct rng *rng)
{
    struct msg_delete_request *request = message;
    fill_request_header(&request->header, rng);
    request->key = some_bytes(rng, 1);
}

static void fill_compare_and_set_request(void *message, struct rng *rng)
{
    struct msg_compare_and_set_request *request = message;
    fill_request_header(&request->header, rng);
    request->key = some_bytes(rng, 1);
    request->expected_version = number(rng);
    request->value = some_bytes(rng, 0);
}

static void fill_write_response(void *message, struct rng *rng)
{
    struct msg_write_response *response = message;
    fill_response_header(&response->header, rng);
    response->version = number(rng);
}

static void fill_batch_request(void *message, struct rng *rng)
{
    struct msg_batch_request *request = message;
    request->batch_id = number(rng);
    request->cluster_id = number(rng);
    request->config_number = number(rng);
    request->reads = flag(rng);
    request->operations = some_bytes(rng, 0);
}

static void fill_batch_response(void *message, struct rng *rng)
{
    struct msg_batch_response *response = message;
    response->batch_id = number(rng);
    fill_response_header(&response->header, rng);
    response->results = some_bytes(rng, 0);
    response->route_count = (uint32_t)rng_below(rng, 6);
    response->routes = mem_calloc(6, sizeof(*response->routes));
    for (uint32_t i = 0; i < response->route_count; i++) {
        fill_route(&response->routes[i], rng);
    }
}

static void release_batch_response(void *message)
{
    free(((struct msg_batch_response *)message)->routes);
}

static void fill_scan_request(void *message, struct rng *rng)
{
    struct msg_scan_request *request = message;
    fill_request_header(&request->header, rng);
    request->shard = number_u32(rng);
    request->after_key = some_bytes(rng, 0);
    request->rows_max = number_u32(rng);
    request->bytes_max = number_u32(rng);
    request->keys_only = flag(rng);
}

static void fill_scan_response(void *message, struct rng *rng)
{
    struct msg_scan_response *response = message;
    fill_response_header(&response->header, rng);
    response->row_count = (uint32_t)rng_below(rng, 4);
    response->rows = mem_calloc(4, sizeof *response->rows);
    for (uint32_t i = 0; i < response->row_count; i++) {
        response->rows[i].key = some_bytes(rng, 1);
        response->rows[i].version = number(rng);
        response->rows[i].value = some_bytes(rng, 0);
    }
    response->end = flag(rng);
}

static void release_scan_response(void *message)
{
    free(((struct msg_scan_response *)message)->rows);
}

/* ---- controller ---- */

static void fill_group(struct config_group *group, uint64_t id, struct rng *rng)
{
    group->id = id;
    group->departed = false;
    group->members_index = number(rng);
    group->replica_count = (uint32_t)rng_between(rng, 1, 3);
    for (uint32_t i = 0; i < group->replica_count; i++) {
        group->replicas[i].id = 1 + i + rng_below(rng, 1000) * 10;
        some_address(group->replicas[i].address, rng);
    }
}

static struct config *some_config(struct rng *rng)
{
    struct config *config = config_create(number(rng), (uint32_t)rng_between(rng, 1, 32));
    config->group_count = (uint32_t)rng_below(rng, 4);
    config->groups = mem_calloc(4, sizeof(*config->groups));
    uint64_t id = 0;
    for (uint32_t i = 0; i < config->group_count; i++) {
        id += rng_between(rng, 1, 1000000);
        fill_group(&config->groups[i], id, rng);
    }
    for (uint32_t shard = 0; shard < config->shard_count && config->group_count > 0; shard++) {
        config->owners[shard] = config->groups[rng_below(rng, config->group_count)].id;
        config->sources[shard] =
            flag(rng) ? 0 : config->groups[rng_below(rng, config->group_count)].id;
    }
    return config;
}

static void fill_join_request(void *message, struct rng *rng)
{
    struct msg_join_request *request = message;
    fill_request_header(&request->header, rng);
    request->group_count = (uint32_t)rng_below(rng, 6);
    request->groups = mem_calloc(6, sizeof(*request->groups));
    for (uint32_t i = 0; i < request->group_count; i++) {
        fill_group(&request->groups[i], number(rng), rng);
    }
}

static void release_join_request(void *message)
{
    free(((struct msg_join_request *)message)->groups);
}

static void fill_leave_request(void *message, struct rng *rng)
{
    struct msg_leave_request *request = message;
    fill_request_header(&request->header, rng);
    request->force = flag(rng);
    request->group_count = (uint32_t)rng_below(rng, 20);
    for (uint32_t i = 0; i < request->group_count; i++) {
        request->group_ids[i] = number(rng);
    }
}

static void fill_move_request(void *message, struct rng *rng)
{
    struct msg_move_request *request = message;
    fill_request_header(&request->header, rng);
    request->shard = number_u32(rng);
    request->group_id = number(rng);
}

static void fill_update_members_request(void *message, struct rng *rng)
{
    struct msg_update_members_request *request = message;
    fill_request_header(&request->header, rng);
    fill_group(&request->group, number(rng), rng);
}

static void fill_change_response(void *message, struct rng *rng)
{
    struct msg_change_response *response = message;
    fill_response_header(&response->header, rng);
    response->config_number = number(rng);
}

static void fill_query_request(void *message, struct rng *rng)
{
    struct msg_query_request *request = message;
    fill_request_header(&request->header, rng);
    request->number = number(rng);
    request->latest = flag(rng);
}

static void fill_query_response(void *message, struct rng *rng)
{
    struct msg_query_response *response = message;
    fill_response_header(&response->header, rng);
    response->config = flag(rng) ? some_config(rng) : NULL;
}

static void release_query_response(void *message)
{
    config_free((struct config *)((struct msg_query_response *)message)->config);
}

static void fill_watch_request(void *message, struct rng *rng)
{
    struct msg_watch_request *request = message;
    request->cluster_id = number(rng);
    request->from_number = number(rng);
    request->latest_only = flag(rng);
}

static void fill_watch_response(void *message, struct rng *rng)
{
    struct msg_watch_response *response = message;
    fill_response_header(&response->header, rng);
    response->config = some_config(rng);
}

static void release_watch_response(void *message)
{
    config_free((struct config *)((struct msg_watch_response *)message)->config);
}

/* ---- administration ---- */

static void fill_status_request(void *message, struct rng *rng)
{
    struct msg_status_request *request = message;
    request->cluster_id = number(rng);
    request->with_hash = flag(rng);
}

static void fill_shard_status(struct msg_shard_status *shard, struct rng *rng)
{
    shard->shard = (uint32_t)rng_below(rng, SHARD_COUNT_MAX);
    shard->state = (enum shard_state)rng_below(rng, SHARD_DROPPING + 1);
    shard->config_number = number(rng);
    shard->keys = number(rng);
    shard->bytes = number(rng);
    shard->moved_bytes = number(rng);
}

static void fill_status_response(void *message, struct rng *rng)
{
    struct msg_status_response *response = message;
    fill_response_header(&response->header, rng);
    response->cluster_id = number(rng);
    response->group_id = number(rng);
    response->replica_id = number(rng);
    memcpy(response->version, "0.1.0", 6);
    memcpy(response->role, "leader", 7);
    response->term = number(rng);
    response->leader_id = number(rng);
    some_address(response->leader_address, rng);
    response->commit = number(rng);
    response->applied = number(rng);
    response->log_first = number(rng);
    response->log_last = number(rng);
    response->log_bytes = number(rng);
    response->config_number = number(rng);
    response->member_count = (uint32_t)rng_below(rng, 4);
    for (uint32_t i = 0; i < response->member_count; i++) {
        struct msg_member *member = &response->members[i];
        member->id = number(rng);
        some_address(member->address, rng);
        member->learner = flag(rng);
        member->match = number(rng);
        member->active = flag(rng);
    }
    response->shard_count = (uint32_t)rng_below(rng, 9);
    response->shards = mem_calloc(9, sizeof(*response->shards));
    for (uint32_t i = 0; i < response->shard_count; i++) {
        fill_shard_status(&response->shards[i], rng);
    }
    response->state_hash = number(rng);
    response->state_hash_applied = number(rng);
}

static void release_status_response(void *message)
{
    free(((struct msg_status_response *)message)->shards);
}

static void fill_transfer_request(void *message, struct rng *rng)
{
    struct msg_transfer_request *request = message;
    request->cluster_id = number(rng);
    request->target_id = number(rng);
}

static void fill_change_member_request(void *message, struct rng *rng)
{
    struct msg_change_member_request *request = message;
    request->cluster_id = number(rng);
    request->kind =
        (enum msg_member_change)rng_between(rng, MSG_MEMBER_ADD_LEARNER, MSG_MEMBER_REMOVE);
    request->id = number(rng);
    if (flag(rng)) {
        some_address(request->address, rng);
    }
}

static void fill_admin_response(void *message, struct rng *rng)
{
    fill_response_header(&((struct msg_admin_response *)message)->header, rng);
}

/* ---- peers ---- */

static void fill_frame(void *message, struct rng *rng)
{
    struct msg_frame *frame = message;
    frame->version = PEER_VERSION;
    frame->cluster_id = number(rng);
    frame->group_id = number(rng);
    frame->from = number(rng);
    frame->from_incarnation = number(rng);
    frame->to = number(rng);
    frame->message_count = (uint32_t)rng_below(rng, 10);
    for (uint32_t i = 0; i < frame->message_count; i++) {
        frame->messages[i] = some_bytes(rng, 0);
    }
}

static void fill_peer_move_request(void *message, struct rng *rng)
{
    struct msg_peer_move_request *request = message;
    request->cluster_id = number(rng);
    request->shard = (uint32_t)rng_below(rng, SHARD_COUNT_MAX);
    request->config_number = number(rng);
    request->from_group = number(rng);
    request->to_group = number(rng);
}

static void fill_peer_move_response(void *message, struct rng *rng)
{
    struct msg_peer_move_response *response = message;
    response->error = some_error(rng);
    memcpy(response->message, "frozen", 7);
    some_address(response->leader_address, rng);
    response->rows = number(rng);
    response->bytes = number(rng);
    response->checksum = number(rng);
}

static void fill_peer_read_request(void *message, struct rng *rng)
{
    struct msg_peer_read_request *request = message;
    fill_peer_move_request(&request->move, rng);
    request->after_row = some_bytes(rng, 0);
    request->bytes_max = number_u32(rng);
}

static void fill_peer_read_response(void *message, struct rng *rng)
{
    struct msg_peer_read_response *response = message;
    response->error = some_error(rng);
    some_address(response->leader_address, rng);
    response->rows = some_bytes(rng, 0);
    response->rows_crc32c = number_u32(rng);
    response->last_row = some_bytes(rng, 0);
    response->end = flag(rng);
}

/* ---- the table ---- */

#define CASE_FUNCTIONS(name_)                                                                      \
    static void encode_##name_(const void *message, struct buf *out)                               \
    {                                                                                              \
        msg_##name_##_encode(message, out);                                                        \
    }                                                                                              \
    static int decode_##name_(struct bytes bytes, void *out)                                       \
    {                                                                                              \
        return msg_##name_##_decode(bytes, out);                                                   \
    }
#define CASE_DEINIT(name_)                                                                         \
    static void deinit_##name_(void *message)                                                      \
    {                                                                                              \
        msg_##name_##_deinit(message);                                                             \
    }

/*       name                     its type in the .proto           the .proto */
#define PLAIN_MESSAGES(X)                                                                          \
    X(request_header, "shardkv.v1.RequestHeader", "shardkv.proto")                                 \
    X(route, "shardkv.v1.Route", "shardkv.proto")                                                  \
    X(response_header, "shardkv.v1.ResponseHeader", "shardkv.proto")                               \
    X(get_request, "shardkv.v1.GetRequest", "shardkv.proto")                                       \
    X(get_response, "shardkv.v1.GetResponse", "shardkv.proto")                                     \
    X(put_request, "shardkv.v1.PutRequest", "shardkv.proto")                                       \
    X(append_request, "shardkv.v1.AppendRequest", "shardkv.proto")                                 \
    X(delete_request, "shardkv.v1.DeleteRequest", "shardkv.proto")                                 \
    X(compare_and_set_request, "shardkv.v1.CompareAndSetRequest", "shardkv.proto")                 \
    X(write_response, "shardkv.v1.WriteResponse", "shardkv.proto")                                 \
    X(batch_request, "shardkv.v1.BatchRequest", "shardkv.proto")                                   \
    X(scan_request, "shardkv.v1.ScanRequest", "shardkv.proto")                                     \
    X(leave_request, "shardkv.v1.LeaveRequest", "shardkv.proto")                                   \
    X(move_request, "shardkv.v1.MoveRequest", "shardkv.proto")                                     \
    X(update_members_request, "shardkv.v1.UpdateMembersRequest", "shardkv.proto")                  \
    X(change_response, "shardkv.v1.ChangeResponse", "shardkv.proto")                               \
    X(query_request, "shardkv.v1.QueryRequest", "shardkv.proto")                                   \
    X(watch_request, "shardkv.v1.WatchRequest", "shardkv.proto")                                   \
    X(status_request, "shardkv.v1.StatusRequest", "shardkv.proto")                                 \
    X(transfer_request, "shardkv.v1.TransferRequest", "shardkv.proto")                             \
    X(change_member_request, "shardkv.v1.ChangeMemberRequest", "shardkv.proto")                    \
    X(admin_response, "shardkv.v1.AdminResponse", "shardkv.proto")                                 \
    X(frame, "shardkv.peer.v1.Frame", "peer.proto")                                                \
    X(peer_move_request, "shardkv.peer.v1.MoveRequest", "peer.proto")                              \
    X(peer_move_response, "shardkv.peer.v1.MoveResponse", "peer.proto")                            \
    X(peer_read_request, "shardkv.peer.v1.MoveReadRequest", "peer.proto")                          \
    X(peer_read_response, "shardkv.peer.v1.MoveReadResponse", "peer.proto")

/* Those whose decoder allocates. */
#define OWNING_MESSAGES(X)                                                                         \
    X(batch_response, "shardkv.v1.BatchResponse", "shardkv.proto")                                 \
    X(scan_response, "shardkv.v1.ScanResponse", "shardkv.proto")                                   \
    X(join_request, "shardkv.v1.JoinRequest", "shardkv.proto")                                     \
    X(query_response, "shardkv.v1.QueryResponse", "shardkv.proto")                                 \
    X(watch_response, "shardkv.v1.WatchResponse", "shardkv.proto")                                 \
    X(status_response, "shardkv.v1.StatusResponse", "shardkv.proto")

#define X(name_, type_, proto_) CASE_FUNCTIONS(name_)
PLAIN_MESSAGES(X)
OWNING_MESSAGES(X)
#undef X
#define X(name_, type_, proto_) CASE_DEINIT(name_)
OWNING_MESSAGES(X)
#undef X

const struct message_case message_cases[] = {
#define X(name_, type_, proto_)                                                                    \
    {#name_,         type_,          proto_, sizeof(struct msg_##name_), fill_##name_, NULL,       \
     encode_##name_, decode_##name_, NULL},
    PLAIN_MESSAGES(X)
#undef X
#define X(name_, type_, proto_)                                                                    \
    {#name_,        type_,           proto_,         sizeof(struct msg_##name_),                   \
     fill_##name_,  release_##name_, encode_##name_, decode_##name_,                               \
     deinit_##name_},
        OWNING_MESSAGES(X)
#undef X
};
const size_t message_case_count = sizeof(message_cases) / sizeof(message_cases[0]);
