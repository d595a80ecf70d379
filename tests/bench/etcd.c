/* See etcd.h. */
#include "bench/etcd.h"

#include "base/assert.h"
#include "base/codec.h"
#include "bench/protocol.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_SIZED = 2, WIRE_FIXED32 = 5 };

struct field {
    uint64_t number;
    uint64_t varint;    /* WIRE_VARINT */
    struct bytes sized; /* WIRE_SIZED */
};

static void put_bytes_field(struct buf *out, uint32_t number, struct bytes bytes)
{
    put_varint(out, (uint64_t)number << 3 | WIRE_SIZED);
    put_sized(out, bytes);
}

/* False at the end and when the bytes are no message (then reader->failed). */
static bool next_field(struct reader *reader, struct field *out)
{
    if (reader_left(reader) == 0) {
        return false;
    }
    uint64_t tag = get_varint(reader);
    *out = (struct field){.number = tag >> 3};
    switch (tag & 7) {
    case WIRE_VARINT:
        out->varint = get_varint(reader);
        break;
    case WIRE_FIXED64:
        (void)get_u64(reader);
        break;
    case WIRE_SIZED:
        out->sized = get_sized(reader, reader_left(reader));
        break;
    case WIRE_FIXED32:
        (void)get_u32(reader);
        break;
    default:
        reader->failed = true;
        break;
    }
    if (out->number == 0) {
        reader->failed = true;
    }
    return !reader->failed;
}

static int end_of(const struct reader *reader)
{
    return reader->failed ? ERR_PROTOCOL : ERR_OK;
}

static int decode_header(struct bytes bytes, struct etcd_header *out)
{
    *out = (struct etcd_header){0};
    struct reader reader = reader_of(bytes);
    struct field field;
    while (next_field(&reader, &field)) {
        if (field.number == 2) {
            out->member_id = field.varint;
        } else if (field.number == 3) {
            out->revision = field.varint;
        }
    }
    return end_of(&reader);
}

static int decode_key_value(struct bytes bytes, struct etcd_range_response *out)
{
    struct reader reader = reader_of(bytes);
    struct field field;
    while (next_field(&reader, &field)) {
        if (field.number == 3) {
            out->mod_revision = field.varint;
        } else if (field.number == 5) {
            out->value = field.sized;
        }
    }
    return end_of(&reader);
}

void etcd_range_request_encode(struct bytes key, struct buf *out)
{
    put_bytes_field(out, 1, key);
}

void etcd_put_request_encode(struct bytes key, struct bytes value, struct buf *out)
{
    put_bytes_field(out, 1, key);
    put_bytes_field(out, 2, value);
}

int etcd_range_response_decode(struct bytes reply, struct etcd_range_response *out)
{
    *out = (struct etcd_range_response){0};
    struct reader reader = reader_of(reply);
    struct field field;
    bool seen = false;
    int error = ERR_OK;
    while (error == ERR_OK && next_field(&reader, &field)) {
        if (field.number == 1) {
            error = decode_header(field.sized, &out->header);
        } else if (field.number == 2 && !seen) {
            seen = true;
            error = decode_key_value(field.sized, out);
        } else if (field.number == 4) {
            out->count = field.varint;
        }
    }
    if (error == ERR_OK) {
        error = end_of(&reader);
    }
    return error == ERR_OK && (out->count > 0) != seen ? ERR_PROTOCOL : error;
}

int etcd_put_response_decode(struct bytes reply, struct etcd_header *out)
{
    *out = (struct etcd_header){0};
    struct reader reader = reader_of(reply);
    struct field field;
    int error = ERR_OK;
    while (error == ERR_OK && next_field(&reader, &field)) {
        if (field.number == 1) {
            error = decode_header(field.sized, out);
        }
    }
    return error == ERR_OK ? end_of(&reader) : error;
}

int etcd_status_response_decode(struct bytes reply, struct etcd_status_response *out)
{
    *out = (struct etcd_status_response){0};
    struct reader reader = reader_of(reply);
    struct field field;
    int error = ERR_OK;
    while (error == ERR_OK && next_field(&reader, &field)) {
        if (field.number == 1) {
            error = decode_header(field.sized, &out->header);
        } else if (field.number == 4) {
            out->leader = field.varint;
        }
    }
    return error == ERR_OK ? end_of(&reader) : error;
}

/* ---- as a protocol of the benchmark ---- */

static const char *etcd_encode(uint64_t cluster_id, const struct target_command *command,
                               struct buf *out)
{
    (void)cluster_id;
    if (command->kind == BENCH_GET) {
        etcd_range_request_encode(command->key, out);
        return ETCD_METHOD_RANGE;
    }
    ASSERT(command->kind == BENCH_PUT);
    etcd_put_request_encode(command->key, command->value, out);
    return ETCD_METHOD_PUT;
}

static int etcd_decode(enum bench_kind kind, struct bytes reply, struct protocol_answer *out)
{
    out->has_route = false;
    if (kind == BENCH_GET) {
        struct etcd_range_response response;
        int error = etcd_range_response_decode(reply, &response);
        out->error = response.count > 0 ? ERR_OK : ERR_NOT_FOUND;
        out->version = response.mod_revision;
        return error;
    }
    struct etcd_header header;
    int error = etcd_put_response_decode(reply, &header);
    out->error = ERR_OK;
    out->version = header.revision;
    return error;
}

const struct protocol protocol_etcd = {etcd_encode, etcd_decode};
