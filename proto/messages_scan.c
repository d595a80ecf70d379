/* Kv.Scan's messages: see messages.h.
 *
 * Thread: any; no state. Rows of a decoded response are views into its bytes, in one array that the
 * decoder gives. */
#include "proto/messages_parts.h"

#include "base/assert.h"
#include <stdlib.h>

void msg_scan_request_encode(const struct msg_scan_request *message, struct buf *out)
{
    shardkv_v1_ScanRequest pb = shardkv_v1_ScanRequest_init_zero;
    msg__put_request_header(&pb.has_header, &pb.header, &message->header);
    pb.shard = message->shard;
    pb.rows_max = message->rows_max;
    pb.bytes_max = message->bytes_max;
    pb.keys_only = message->keys_only;
    wire_put_bytes(&pb.after_key, &message->after_key);
    wire_encode(shardkv_v1_ScanRequest_fields, &pb, out);
}

int msg_scan_request_decode(struct bytes bytes, struct msg_scan_request *out)
{
    shardkv_v1_ScanRequest pb = shardkv_v1_ScanRequest_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_bytes after_key;
    wire_bind_bytes(&pb.after_key, &after_key, &decoder, KEY_BYTES_MAX);
    int error = wire_decode(&decoder, shardkv_v1_ScanRequest_fields, &pb);
    if (error != ERR_OK) {
        return error;
    }
    msg__load_request_header(&pb.header, &out->header);
    out->shard = pb.shard;
    out->after_key = after_key.view;
    out->rows_max = pb.rows_max;
    out->bytes_max = pb.bytes_max;
    out->keys_only = pb.keys_only;
    return ERR_OK;
}

static bool scan_put_row(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                         uint32_t index)
{
    const struct msg_scan_response *message = context;
    const struct msg_scan_row *row = &message->rows[index];
    shardkv_v1_ScanRow pb = shardkv_v1_ScanRow_init_zero;
    wire_put_bytes(&pb.key, &row->key);
    pb.version = row->version;
    wire_put_bytes(&pb.value, &row->value);
    return wire_put_message(stream, field, shardkv_v1_ScanRow_fields, &pb);
}

void msg_scan_response_encode(const struct msg_scan_response *message, struct buf *out)
{
    ASSERT_CMP(message->row_count, <=, SCAN_ROWS_MAX);
    shardkv_v1_ScanResponse pb = shardkv_v1_ScanResponse_init_zero;
    struct msg__response_out header;
    struct wire_parts rows;
    msg__put_response_header(&pb.has_header, &pb.header, &header, &message->header);
    wire_put_parts(&pb.rows, &rows, message->row_count, scan_put_row, message);
    pb.end = message->end;
    wire_encode(shardkv_v1_ScanResponse_fields, &pb, out);
}

struct rows_in {
    uint32_t count;
    uint32_t capacity;
    void *items; /* struct msg_scan_row */
};

static int scan_take_row(void *context, struct bytes element)
{
    struct rows_in *in = context;
    int error = wire_array_grow(&in->items, &in->capacity, in->count, SCAN_ROWS_MAX,
                                sizeof(struct msg_scan_row));
    if (error != ERR_OK) {
        return error;
    }
    shardkv_v1_ScanRow pb = shardkv_v1_ScanRow_init_zero;
    struct wire_decoder decoder = {.input = element};
    struct wire_bytes key;
    struct wire_bytes value;
    wire_bind_bytes(&pb.key, &key, &decoder, KEY_BYTES_MAX);
    wire_bind_bytes(&pb.value, &value, &decoder, VALUE_BYTES_MAX);
    error = wire_decode(&decoder, shardkv_v1_ScanRow_fields, &pb);
    if (error == ERR_OK && key.view.size == 0) {
        error = ERR_INVALID;
    }
    if (error != ERR_OK) {
        return error;
    }
    struct msg_scan_row *rows = in->items;
    rows[in->count++] =
        (struct msg_scan_row){.key = key.view, .version = pb.version, .value = value.view};
    return ERR_OK;
}

int msg_scan_response_decode(struct bytes bytes, struct msg_scan_response *out)
{
    shardkv_v1_ScanResponse pb = shardkv_v1_ScanResponse_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in header;
    struct rows_in rows_in = {0};
    struct wire_list rows;
    out->rows = NULL;
    out->row_count = 0;
    msg__bind_response_header(&pb.header, &header, &decoder, &out->header);
    wire_bind_list(&pb.rows, &rows, &decoder, scan_take_row, &rows_in);
    int error = wire_decode(&decoder, shardkv_v1_ScanResponse_fields, &pb);
    if (error != ERR_OK) {
        free(rows_in.items);
        return error;
    }
    msg__load_response_header(&pb.header, &out->header);
    out->row_count = rows_in.count;
    out->rows = rows_in.items;
    out->end = pb.end;
    return ERR_OK;
}

void msg_scan_response_deinit(struct msg_scan_response *message)
{
    free(message->rows);
    message->rows = NULL;
    message->row_count = 0;
}
