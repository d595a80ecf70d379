/* The messages of peer.proto: see messages.h.
 *
 * Thread: any; no state. Raft messages and rows stay packed: they are views into the bytes. */
#include "proto/messages_parts.h"
#include "proto/peer.pb.h"

#include "base/assert.h"

/* ---- frame ---- */

static bool frame_put_message(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                              uint32_t index)
{
    const struct msg_frame *frame = context;
    return wire_put_element(stream, field, frame->messages[index]);
}

void msg_frame_encode(const struct msg_frame *message, struct buf *out)
{
    ASSERT_CMP(message->message_count, <=, FRAME_MESSAGES_MAX);
    shardkv_peer_v1_Frame pb = shardkv_peer_v1_Frame_init_zero;
    struct wire_parts messages;
    pb.version = message->version;
    pb.cluster_id = message->cluster_id;
    pb.group_id = message->group_id;
    pb.from = message->from;
    pb.from_incarnation = message->from_incarnation;
    pb.to = message->to;
    wire_put_parts(&pb.messages, &messages, message->message_count, frame_put_message, message);
    wire_encode(shardkv_peer_v1_Frame_fields, &pb, out);
}

static int frame_take_message(void *context, struct bytes element)
{
    struct msg_frame *frame = context;
    if (frame->message_count == FRAME_MESSAGES_MAX) {
        return ERR_TOO_LARGE;
    }
    frame->messages[frame->message_count++] = element;
    return ERR_OK;
}

int msg_frame_decode(struct bytes bytes, struct msg_frame *out)
{
    shardkv_peer_v1_Frame pb = shardkv_peer_v1_Frame_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_list messages;
    out->message_count = 0;
    wire_bind_list(&pb.messages, &messages, &decoder, frame_take_message, out);
    int error = wire_decode(&decoder, shardkv_peer_v1_Frame_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    out->version = pb.version;
    out->cluster_id = pb.cluster_id;
    out->group_id = pb.group_id;
    out->from = pb.from;
    out->from_incarnation = pb.from_incarnation;
    out->to = pb.to;
    return ERR_OK;
}

/* ---- moves ---- */

static void put_move(shardkv_peer_v1_MoveRequest *pb, const struct msg_peer_move_request *message)
{
    pb->cluster_id = message->cluster_id;
    pb->shard = message->shard;
    pb->config_number = message->config_number;
    pb->from_group = message->from_group;
    pb->to_group = message->to_group;
}

static int load_move(const shardkv_peer_v1_MoveRequest *pb, struct msg_peer_move_request *out)
{
    if (pb->shard >= SHARD_COUNT_MAX) {
        return ERR_PROTOCOL;
    }
    out->cluster_id = pb->cluster_id;
    out->shard = pb->shard;
    out->config_number = pb->config_number;
    out->from_group = pb->from_group;
    out->to_group = pb->to_group;
    return ERR_OK;
}

void msg_peer_move_request_encode(const struct msg_peer_move_request *message, struct buf *out)
{
    shardkv_peer_v1_MoveRequest pb = shardkv_peer_v1_MoveRequest_init_zero;
    put_move(&pb, message);
    wire_encode(shardkv_peer_v1_MoveRequest_fields, &pb, out);
}

int msg_peer_move_request_decode(struct bytes bytes, struct msg_peer_move_request *out)
{
    shardkv_peer_v1_MoveRequest pb = shardkv_peer_v1_MoveRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    int error = wire_decode(&decoder, shardkv_peer_v1_MoveRequest_fields, &pb);
    return error == ERR_OK ? load_move(&pb, out) : error;
}

void msg_peer_move_response_encode(const struct msg_peer_move_response *message, struct buf *out)
{
    shardkv_peer_v1_MoveResponse pb = shardkv_peer_v1_MoveResponse_init_zero;
    struct msg__text_out text;
    struct bytes leader_address =
        wire_text_view(message->leader_address, sizeof(message->leader_address));
    pb.code = err_to_wire(message->error);
    msg__put_text(&pb.message, &text, message->message, sizeof(message->message));
    wire_put_bytes(&pb.leader_address, &leader_address);
    pb.rows = message->rows;
    pb.bytes = message->bytes;
    pb.checksum = message->checksum;
    wire_encode(shardkv_peer_v1_MoveResponse_fields, &pb, out);
}

int msg_peer_move_response_decode(struct bytes bytes, struct msg_peer_move_response *out)
{
    shardkv_peer_v1_MoveResponse pb = shardkv_peer_v1_MoveResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_text text;
    struct wire_text leader_address;
    wire_bind_text(&pb.message, &text, &decoder, WIRE_TEXT, out->message, sizeof(out->message));
    wire_bind_text(&pb.leader_address, &leader_address, &decoder, WIRE_ADDRESS, out->leader_address,
                   sizeof(out->leader_address));
    int error = wire_decode(&decoder, shardkv_peer_v1_MoveResponse_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    out->error = err_from_wire(pb.code);
    out->rows = pb.rows;
    out->bytes = pb.bytes;
    out->checksum = pb.checksum;
    return ERR_OK;
}

void msg_peer_read_request_encode(const struct msg_peer_read_request *message, struct buf *out)
{
    shardkv_peer_v1_MoveReadRequest pb = shardkv_peer_v1_MoveReadRequest_init_zero;
    pb.has_move = true;
    put_move(&pb.move, &message->move);
    wire_put_bytes(&pb.after_row, &message->after_row);
    pb.bytes_max = message->bytes_max;
    wire_encode(shardkv_peer_v1_MoveReadRequest_fields, &pb, out);
}

int msg_peer_read_request_decode(struct bytes bytes, struct msg_peer_read_request *out)
{
    shardkv_peer_v1_MoveReadRequest pb = shardkv_peer_v1_MoveReadRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_bytes after_row;
    wire_bind_bytes(&pb.after_row, &after_row, &decoder, MOVE_ROW_KEY_BYTES_MAX);
    int error = wire_decode(&decoder, shardkv_peer_v1_MoveReadRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    out->after_row = after_row.view;
    out->bytes_max = pb.bytes_max;
    return load_move(&pb.move, &out->move);
}

void msg_peer_read_response_encode(const struct msg_peer_read_response *message, struct buf *out)
{
    ASSERT_CMP(message->rows.size, <=, MOVE_ROWS_BYTES_MAX);
    ASSERT_CMP(message->last_row.size, <=, MOVE_ROW_KEY_BYTES_MAX);
    shardkv_peer_v1_MoveReadResponse pb = shardkv_peer_v1_MoveReadResponse_init_zero;
    struct msg__text_out text;
    struct bytes leader_address =
        wire_text_view(message->leader_address, sizeof(message->leader_address));
    pb.code = err_to_wire(message->error);
    msg__put_text(&pb.message, &text, message->message, sizeof(message->message));
    wire_put_bytes(&pb.leader_address, &leader_address);
    wire_put_bytes(&pb.rows, &message->rows);
    pb.rows_crc32c = message->rows_crc32c;
    wire_put_bytes(&pb.last_row, &message->last_row);
    pb.end = message->end;
    wire_encode(shardkv_peer_v1_MoveReadResponse_fields, &pb, out);
}

int msg_peer_read_response_decode(struct bytes bytes, struct msg_peer_read_response *out)
{
    shardkv_peer_v1_MoveReadResponse pb = shardkv_peer_v1_MoveReadResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_text text;
    struct wire_text leader_address;
    struct wire_bytes rows;
    struct wire_bytes last_row;
    wire_bind_text(&pb.message, &text, &decoder, WIRE_TEXT, out->message, sizeof(out->message));
    wire_bind_text(&pb.leader_address, &leader_address, &decoder, WIRE_ADDRESS, out->leader_address,
                   sizeof(out->leader_address));
    wire_bind_bytes(&pb.rows, &rows, &decoder, MOVE_ROWS_BYTES_MAX);
    wire_bind_bytes(&pb.last_row, &last_row, &decoder, MOVE_ROW_KEY_BYTES_MAX);
    int error = wire_decode(&decoder, shardkv_peer_v1_MoveReadResponse_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    out->error = err_from_wire(pb.code);
    out->rows = rows.view;
    out->rows_crc32c = pb.rows_crc32c;
    out->last_row = last_row.view;
    out->end = pb.end;
    return ERR_OK;
}
