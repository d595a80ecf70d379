/* The messages of the Controller service: see messages.h.
 *
 * Thread: any; no state. */
#include "proto/messages_parts.h"

#include "base/assert.h"
#include <stdlib.h>
#include <string.h>

/* ---- changes ---- */

static bool join_put_group(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                           uint32_t index)
{
    const struct msg_join_request *message = context;
    return msg__put_group(stream, field, &message->groups[index]);
}

void msg_join_request_encode(const struct msg_join_request *message, struct buf *out)
{
    ASSERT_CMP(message->group_count, <=, GROUPS_MAX);
    shardkv_v1_JoinRequest pb = shardkv_v1_JoinRequest_init_zero;
    struct wire_parts groups;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    wire_put_parts(&pb.groups, &groups, message->group_count, join_put_group, message);
    wire_encode(shardkv_v1_JoinRequest_fields, &pb, out);
}

struct groups_in {
    uint32_t count;
    uint32_t capacity;
    void *items; /* struct config_group */
};

static int join_take_group(void *context, struct bytes element)
{
    struct groups_in *in = context;
    int error = wire_array_grow(&in->items, &in->capacity, in->count, GROUPS_MAX,
                                sizeof(struct config_group));
    if (error != ERR_OK) {
        return error;
    }
    struct config_group *groups = in->items;
    error = msg__group_decode(element, &groups[in->count]);
    if (error == ERR_OK) {
        in->count++;
    }
    return error;
}

int msg_join_request_decode(struct bytes bytes, struct msg_join_request *out)
{
    shardkv_v1_JoinRequest pb = shardkv_v1_JoinRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct groups_in groups_in = {0};
    struct wire_list groups;
    *out = (struct msg_join_request){0};
    wire_bind_list(&pb.groups, &groups, &decoder, join_take_group, &groups_in);
    int error = wire_decode(&decoder, shardkv_v1_JoinRequest_fields, &pb);
    if (error != ERR_OK) {
        free(groups_in.items);
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->group_count = groups_in.count;
    out->groups = groups_in.items;
    return ERR_OK;
}

void msg_join_request_deinit(struct msg_join_request *message)
{
    free(message->groups);
    message->groups = NULL;
    message->group_count = 0;
}

void msg_leave_request_encode(const struct msg_leave_request *message, struct buf *out)
{
    ASSERT_CMP(message->group_count, <=, GROUPS_MAX);
    shardkv_v1_LeaveRequest pb = shardkv_v1_LeaveRequest_init_zero;
    struct wire_numbers_out group_ids;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    wire_put_numbers(&pb.group_ids, &group_ids, message->group_count, message->group_ids);
    pb.force = message->force;
    wire_encode(shardkv_v1_LeaveRequest_fields, &pb, out);
}

int msg_leave_request_decode(struct bytes bytes, struct msg_leave_request *out)
{
    shardkv_v1_LeaveRequest pb = shardkv_v1_LeaveRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_numbers group_ids;
    wire_bind_numbers(&pb.group_ids, &group_ids, &decoder, GROUPS_MAX);
    int error = wire_decode(&decoder, shardkv_v1_LeaveRequest_fields, &pb);
    if (error == ERR_OK) {
        *out = (struct msg_leave_request){.force = pb.force, .group_count = group_ids.count};
        msg__load_request_header(&pb.header, &out->header);
        if (group_ids.count > 0) {
            memcpy(out->group_ids, group_ids.items, group_ids.count * sizeof(*group_ids.items));
        }
    }
    free(group_ids.items);
    return error;
}

void msg_move_request_encode(const struct msg_move_request *message, struct buf *out)
{
    shardkv_v1_MoveRequest pb = shardkv_v1_MoveRequest_init_zero;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    pb.shard = message->shard;
    pb.group_id = message->group_id;
    wire_encode(shardkv_v1_MoveRequest_fields, &pb, out);
}

int msg_move_request_decode(struct bytes bytes, struct msg_move_request *out)
{
    shardkv_v1_MoveRequest pb = shardkv_v1_MoveRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    int error = wire_decode(&decoder, shardkv_v1_MoveRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->shard = pb.shard;
    out->group_id = pb.group_id;
    return ERR_OK;
}

void msg_update_members_request_encode(const struct msg_update_members_request *message,
                                       struct buf *out)
{
    shardkv_v1_UpdateMembersRequest pb = shardkv_v1_UpdateMembersRequest_init_zero;
    struct wire_parts replicas;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    pb.has_group = true;
    msg__fill_group(&pb.group, &replicas, &message->group);
    wire_encode(shardkv_v1_UpdateMembersRequest_fields, &pb, out);
}

int msg_update_members_request_decode(struct bytes bytes, struct msg_update_members_request *out)
{
    shardkv_v1_UpdateMembersRequest pb = shardkv_v1_UpdateMembersRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_list replicas;
    msg__bind_group(&pb.group, &replicas, &decoder, &out->group);
    int error = wire_decode(&decoder, shardkv_v1_UpdateMembersRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    msg__load_group(&pb.group, &out->group);
    return ERR_OK;
}

void msg_change_response_encode(const struct msg_change_response *message, struct buf *out)
{
    shardkv_v1_ChangeResponse pb = shardkv_v1_ChangeResponse_init_zero;
    struct msg__response_out header;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    pb.config_number = message->config_number;
    wire_encode(shardkv_v1_ChangeResponse_fields, &pb, out);
}

int msg_change_response_decode(struct bytes bytes, struct msg_change_response *out)
{
    shardkv_v1_ChangeResponse pb = shardkv_v1_ChangeResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    int error = wire_decode(&decoder, shardkv_v1_ChangeResponse_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_response_header(&pb.header, &out->header);
    out->config_number = pb.config_number;
    return ERR_OK;
}

/* ---- a config inside a response ---- */

/* The config's own encoding, made once: nanopb asks for it twice, for its size and for its bytes.
 */
static void put_config(pb_callback_t *field, struct buf *encoded, struct bytes *view,
                       const struct config *config)
{
    buf_init(encoded);
    *view = BYTES_EMPTY;
    if (config != NULL) {
        config_encode(config, encoded);
        *view = buf_view(encoded);
    }
    wire_put_bytes(field, view);
}

/* No bytes are no config: a config always says its shard count. */
static int load_config(const struct wire_bytes *field, const struct config **out)
{
    if (field->view.size == 0) {
        return ERR_OK;
    }
    struct config *config;
    int error = config_decode(field->view, &config);
    if (error == ERR_OK) {
        *out = config;
    }
    return error;
}

void msg_query_request_encode(const struct msg_query_request *message, struct buf *out)
{
    shardkv_v1_QueryRequest pb = shardkv_v1_QueryRequest_init_zero;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    pb.number = message->number;
    pb.latest = message->latest;
    wire_encode(shardkv_v1_QueryRequest_fields, &pb, out);
}

int msg_query_request_decode(struct bytes bytes, struct msg_query_request *out)
{
    shardkv_v1_QueryRequest pb = shardkv_v1_QueryRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    int error = wire_decode(&decoder, shardkv_v1_QueryRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->number = pb.number;
    out->latest = pb.latest;
    return ERR_OK;
}

void msg_query_response_encode(const struct msg_query_response *message, struct buf *out)
{
    shardkv_v1_QueryResponse pb = shardkv_v1_QueryResponse_init_zero;
    struct msg__response_out header;
    struct buf config;
    struct bytes config_view;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    put_config(&pb.config, &config, &config_view, message->config);
    wire_encode(shardkv_v1_QueryResponse_fields, &pb, out);
    buf_deinit(&config);
}

int msg_query_response_decode(struct bytes bytes, struct msg_query_response *out)
{
    shardkv_v1_QueryResponse pb = shardkv_v1_QueryResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    struct wire_bytes config;
    out->config = NULL;
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    wire_bind_bytes(&pb.config, &config, &decoder, MESSAGE_BYTES_MAX);
    int error = wire_decode(&decoder, shardkv_v1_QueryResponse_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_response_header(&pb.header, &out->header);
    return load_config(&config, &out->config);
}

void msg_query_response_deinit(struct msg_query_response *message)
{
    config_free((struct config *)message->config);
    message->config = NULL;
}

/* ---- watch ---- */

void msg_watch_request_encode(const struct msg_watch_request *message, struct buf *out)
{
    shardkv_v1_WatchRequest pb = shardkv_v1_WatchRequest_init_zero;
    pb.cluster_id = message->cluster_id;
    pb.from_number = message->from_number;
    pb.latest_only = message->latest_only;
    wire_encode(shardkv_v1_WatchRequest_fields, &pb, out);
}

int msg_watch_request_decode(struct bytes bytes, struct msg_watch_request *out)
{
    shardkv_v1_WatchRequest pb = shardkv_v1_WatchRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    int error = wire_decode(&decoder, shardkv_v1_WatchRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    out->cluster_id = pb.cluster_id;
    out->from_number = pb.from_number;
    out->latest_only = pb.latest_only;
    return ERR_OK;
}

void msg_watch_response_encode(const struct msg_watch_response *message, struct buf *out)
{
    shardkv_v1_WatchResponse pb = shardkv_v1_WatchResponse_init_zero;
    struct msg__response_out header;
    struct buf config;
    struct bytes config_view;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    put_config(&pb.config, &config, &config_view, message->config);
    wire_encode(shardkv_v1_WatchResponse_fields, &pb, out);
    buf_deinit(&config);
}

int msg_watch_response_decode(struct bytes bytes, struct msg_watch_response *out)
{
    shardkv_v1_WatchResponse pb = shardkv_v1_WatchResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    struct wire_bytes config;
    out->config = NULL;
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    wire_bind_bytes(&pb.config, &config, &decoder, MESSAGE_BYTES_MAX);
    int error = wire_decode(&decoder, shardkv_v1_WatchResponse_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_response_header(&pb.header, &out->header);
    return load_config(&config, &out->config);
}

void msg_watch_response_deinit(struct msg_watch_response *message)
{
    config_free((struct config *)message->config);
    message->config = NULL;
}
