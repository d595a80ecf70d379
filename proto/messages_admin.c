/* The messages of the Admin service: see messages.h.
 *
 * Thread: any; no state. */
#include "proto/messages_parts.h"

#include "base/assert.h"
#include <stdlib.h>

/* ---- status: request ---- */

void msg_status_request_encode(const struct msg_status_request *message, struct buf *out)
{
    shardkv_v1_StatusRequest pb = shardkv_v1_StatusRequest_init_zero;
    pb.cluster_id = message->cluster_id;
    pb.with_hash = message->with_hash;
    wire_encode(shardkv_v1_StatusRequest_fields, &pb, out);
}

int msg_status_request_decode(struct bytes bytes, struct msg_status_request *out)
{
    shardkv_v1_StatusRequest pb = shardkv_v1_StatusRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    int error = wire_decode(&decoder, shardkv_v1_StatusRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    out->cluster_id = pb.cluster_id;
    out->with_hash = pb.with_hash;
    return ERR_OK;
}

/* ---- status: response, out ---- */

static bool status_put_member(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                              uint32_t index)
{
    const struct msg_status_response *message = context;
    const struct msg_member *member = &message->members[index];
    shardkv_v1_Member pb = shardkv_v1_Member_init_zero;
    struct bytes address = wire_text_view(member->address, sizeof(member->address));
    pb.id = member->id;
    wire_put_bytes(&pb.address, &address);
    pb.learner = member->learner;
    pb.match = member->match;
    pb.active = member->active;
    return wire_put_message(stream, field, shardkv_v1_Member_fields, &pb);
}

static bool status_put_shard(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                             uint32_t index)
{
    const struct msg_status_response *message = context;
    const struct msg_shard_status *shard = &message->shards[index];
    shardkv_v1_ShardStatus pb = shardkv_v1_ShardStatus_init_zero;
    pb.shard = shard->shard;
    pb.state = (uint32_t)shard->state;
    pb.config_number = shard->config_number;
    pb.keys = shard->keys;
    pb.bytes = shard->bytes;
    pb.moved_bytes = shard->moved_bytes;
    return wire_put_message(stream, field, shardkv_v1_ShardStatus_fields, &pb);
}

static void status_put_numbers(shardkv_v1_StatusResponse *pb,
                               const struct msg_status_response *message)
{
    pb->cluster_id = message->cluster_id;
    pb->group_id = message->group_id;
    pb->replica_id = message->replica_id;
    pb->term = message->term;
    pb->leader_id = message->leader_id;
    pb->commit = message->commit;
    pb->applied = message->applied;
    pb->log_first = message->log_first;
    pb->log_last = message->log_last;
    pb->log_bytes = message->log_bytes;
    pb->config_number = message->config_number;
    pb->state_hash = message->state_hash;
    pb->state_hash_applied = message->state_hash_applied;
}

void msg_status_response_encode(const struct msg_status_response *message, struct buf *out)
{
    ASSERT_CMP(message->member_count, <=, GROUP_REPLICAS_MAX);
    ASSERT_CMP(message->shard_count, <=, SHARD_COUNT_MAX);
    shardkv_v1_StatusResponse pb = shardkv_v1_StatusResponse_init_zero;
    struct msg__response_out header;
    struct msg__text_out version;
    struct msg__text_out role;
    struct bytes leader_address =
        wire_text_view(message->leader_address, sizeof(message->leader_address));
    struct wire_parts members;
    struct wire_parts shards;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    status_put_numbers(&pb, message);
    msg__put_text(&pb.version, &version, message->version, sizeof(message->version));
    msg__put_text(&pb.role, &role, message->role, sizeof(message->role));
    wire_put_bytes(&pb.leader_address, &leader_address);
    wire_put_parts(&pb.members, &members, message->member_count, status_put_member, message);
    wire_put_parts(&pb.shards, &shards, message->shard_count, status_put_shard, message);
    wire_encode(shardkv_v1_StatusResponse_fields, &pb, out);
}

/* ---- status: response, in ---- */

static int member_decode(struct bytes bytes, struct msg_member *out)
{
    shardkv_v1_Member pb = shardkv_v1_Member_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_text address;
    wire_bind_text(&pb.address, &address, &decoder, WIRE_ADDRESS, out->address,
                   sizeof(out->address));
    int error = wire_decode(&decoder, shardkv_v1_Member_fields, &pb);
    out->id = pb.id;
    out->learner = pb.learner;
    out->match = pb.match;
    out->active = pb.active;
    return error;
}

static int status_take_member(void *context, struct bytes element)
{
    struct msg_status_response *message = context;
    if (message->member_count == GROUP_REPLICAS_MAX) {
        return ERR_TOO_LARGE;
    }
    int error = member_decode(element, &message->members[message->member_count]);
    if (error == ERR_OK) {
        message->member_count++;
    }
    return error;
}

static int shard_status_decode(struct bytes bytes, struct msg_shard_status *out)
{
    shardkv_v1_ShardStatus pb = shardkv_v1_ShardStatus_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    int error = wire_decode(&decoder, shardkv_v1_ShardStatus_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    if (pb.shard >= SHARD_COUNT_MAX || pb.state > SHARD_DROPPING) {
        return ERR_PROTOCOL;
    }
    out->shard = pb.shard;
    out->state = (enum shard_state)pb.state;
    out->config_number = pb.config_number;
    out->keys = pb.keys;
    out->bytes = pb.bytes;
    out->moved_bytes = pb.moved_bytes;
    return ERR_OK;
}

struct shards_in {
    uint32_t count;
    uint32_t capacity;
    void *items; /* struct msg_shard_status */
};

static int status_take_shard(void *context, struct bytes element)
{
    struct shards_in *in = context;
    int error = wire_array_grow(&in->items, &in->capacity, in->count, SHARD_COUNT_MAX,
                                sizeof(struct msg_shard_status));
    if (error != ERR_OK) {
        return error;
    }
    struct msg_shard_status *shards = in->items;
    error = shard_status_decode(element, &shards[in->count]);
    if (error == ERR_OK) {
        in->count++;
    }
    return error;
}

static void status_load_numbers(const shardkv_v1_StatusResponse *pb,
                                struct msg_status_response *out)
{
    out->cluster_id = pb->cluster_id;
    out->group_id = pb->group_id;
    out->replica_id = pb->replica_id;
    out->term = pb->term;
    out->leader_id = pb->leader_id;
    out->commit = pb->commit;
    out->applied = pb->applied;
    out->log_first = pb->log_first;
    out->log_last = pb->log_last;
    out->log_bytes = pb->log_bytes;
    out->config_number = pb->config_number;
    out->state_hash = pb->state_hash;
    out->state_hash_applied = pb->state_hash_applied;
}

int msg_status_response_decode(struct bytes bytes, struct msg_status_response *out)
{
    shardkv_v1_StatusResponse pb = shardkv_v1_StatusResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    struct wire_text version;
    struct wire_text role;
    struct wire_text leader_address;
    struct wire_list members;
    struct shards_in shards_in = {0};
    struct wire_list shards;
    *out = (struct msg_status_response){0};
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    wire_bind_text(&pb.version, &version, &decoder, WIRE_TEXT, out->version, sizeof(out->version));
    wire_bind_text(&pb.role, &role, &decoder, WIRE_TEXT, out->role, sizeof(out->role));
    wire_bind_text(&pb.leader_address, &leader_address, &decoder, WIRE_ADDRESS, out->leader_address,
                   sizeof(out->leader_address));
    wire_bind_list(&pb.members, &members, &decoder, status_take_member, out);
    wire_bind_list(&pb.shards, &shards, &decoder, status_take_shard, &shards_in);
    int error = wire_decode(&decoder, shardkv_v1_StatusResponse_fields, &pb);
    if (error != ERR_OK) {
        free(shards_in.items);
        return error;
    }
    msg__load_response_header(&pb.header, &out->header);
    status_load_numbers(&pb, out);
    out->shard_count = shards_in.count;
    out->shards = shards_in.items;
    return ERR_OK;
}

void msg_status_response_deinit(struct msg_status_response *message)
{
    free(message->shards);
    message->shards = NULL;
    message->shard_count = 0;
}

/* ---- transfer, membership ---- */

void msg_transfer_request_encode(const struct msg_transfer_request *message, struct buf *out)
{
    shardkv_v1_TransferRequest pb = shardkv_v1_TransferRequest_init_zero;
    pb.cluster_id = message->cluster_id;
    pb.target_id = message->target_id;
    wire_encode(shardkv_v1_TransferRequest_fields, &pb, out);
}

int msg_transfer_request_decode(struct bytes bytes, struct msg_transfer_request *out)
{
    shardkv_v1_TransferRequest pb = shardkv_v1_TransferRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    int error = wire_decode(&decoder, shardkv_v1_TransferRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    out->cluster_id = pb.cluster_id;
    out->target_id = pb.target_id;
    return ERR_OK;
}

static_assert((int)MSG_MEMBER_ADD_LEARNER == (int)shardkv_v1_ChangeMemberRequest_Kind_ADD_LEARNER &&
                  (int)MSG_MEMBER_PROMOTE == (int)shardkv_v1_ChangeMemberRequest_Kind_PROMOTE &&
                  (int)MSG_MEMBER_ADD_VOTER == (int)shardkv_v1_ChangeMemberRequest_Kind_ADD_VOTER &&
                  (int)MSG_MEMBER_REMOVE == (int)shardkv_v1_ChangeMemberRequest_Kind_REMOVE,
              "the numbers are those of the .proto");

void msg_change_member_request_encode(const struct msg_change_member_request *message,
                                      struct buf *out)
{
    shardkv_v1_ChangeMemberRequest pb = shardkv_v1_ChangeMemberRequest_init_zero;
    struct bytes address = wire_text_view(message->address, sizeof(message->address));
    pb.cluster_id = message->cluster_id;
    pb.kind = (shardkv_v1_ChangeMemberRequest_Kind)message->kind;
    pb.id = message->id;
    wire_put_bytes(&pb.address, &address);
    wire_encode(shardkv_v1_ChangeMemberRequest_fields, &pb, out);
}

int msg_change_member_request_decode(struct bytes bytes, struct msg_change_member_request *out)
{
    shardkv_v1_ChangeMemberRequest pb = shardkv_v1_ChangeMemberRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_text address;
    wire_bind_text(&pb.address, &address, &decoder, WIRE_ADDRESS, out->address,
                   sizeof(out->address));
    int error = wire_decode(&decoder, shardkv_v1_ChangeMemberRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    /* As a number: what came need not be one of the enum's. */
    unsigned kind = (unsigned)pb.kind;
    if (kind < MSG_MEMBER_ADD_LEARNER || kind > MSG_MEMBER_REMOVE) {
        return ERR_PROTOCOL;
    }
    out->cluster_id = pb.cluster_id;
    out->kind = (enum msg_member_change)kind;
    out->id = pb.id;
    return ERR_OK;
}

void msg_admin_response_encode(const struct msg_admin_response *message, struct buf *out)
{
    shardkv_v1_AdminResponse pb = shardkv_v1_AdminResponse_init_zero;
    struct msg__response_out header;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    wire_encode(shardkv_v1_AdminResponse_fields, &pb, out);
}

int msg_admin_response_decode(struct bytes bytes, struct msg_admin_response *out)
{
    shardkv_v1_AdminResponse pb = shardkv_v1_AdminResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    int error = wire_decode(&decoder, shardkv_v1_AdminResponse_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_response_header(&pb.header, &out->header);
    return ERR_OK;
}
