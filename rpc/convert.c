/* Conversions between the core's types and this house's: statuses and errors, byte buffers and
 * blobs, deadlines, addresses. Any thread; no state.
 *
 * A gRPC status is coarser than the error table, and the difference matters (a refusal at shutdown
 * was surely not executed, a lost connection may have been): so a failure carries the exact error
 * as trailing metadata too. A peer that does not send it is judged by its status alone, on the
 * careful side. */
#include "base/flags.h"
#include "rpc/rpc_internal.h"
#include <grpc/byte_buffer_reader.h>
#include <stdio.h>
#include <string.h>

static const char error_key[] = "skv-error";

grpc_status_code rpc__status_of_error(int error)
{
    switch (error) {
    case ERR_OK:
        return GRPC_STATUS_OK;
    case ERR_INVALID:
    case ERR_PROTOCOL:
        return GRPC_STATUS_INVALID_ARGUMENT;
    case ERR_TOO_LARGE:
        return GRPC_STATUS_OUT_OF_RANGE;
    case ERR_NOT_FOUND:
        return GRPC_STATUS_NOT_FOUND;
    case ERR_EXISTS:
        return GRPC_STATUS_ALREADY_EXISTS;
    case ERR_BUSY:
    case ERR_NO_SPACE:
        return GRPC_STATUS_RESOURCE_EXHAUSTED;
    case ERR_TIMEOUT:
        return GRPC_STATUS_DEADLINE_EXCEEDED;
    case ERR_CANCELED:
        return GRPC_STATUS_CANCELLED;
    case ERR_UNAVAILABLE:
    case ERR_SHUTDOWN:
        return GRPC_STATUS_UNAVAILABLE;
    case ERR_CORRUPT:
        return GRPC_STATUS_DATA_LOSS;
    case ERR_UNSUPPORTED:
        return GRPC_STATUS_UNIMPLEMENTED;
    case ERR_IO:
        return GRPC_STATUS_INTERNAL;
    default: /* the table's other rows are states of a group, shard, session or config */
        return GRPC_STATUS_FAILED_PRECONDITION;
    }
}

static int error_of_trailing(const grpc_metadata_array *trailing)
{
    for (size_t i = 0; i < trailing->count; i++) {
        const grpc_metadata *element = &trailing->metadata[i];
        if (grpc_slice_str_cmp(element->key, error_key) != 0) {
            continue;
        }
        size_t size = GRPC_SLICE_LENGTH(element->value);
        const uint8_t *digits = GRPC_SLICE_START_PTR(element->value);
        unsigned code = 0;
        if (size == 0 || size > 5) {
            return ERR_OK;
        }
        for (size_t at = 0; at < size; at++) {
            if (digits[at] < '0' || digits[at] > '9') {
                return ERR_OK;
            }
            code = code * 10 + (unsigned)(digits[at] - '0');
        }
        return err_from_wire(code);
    }
    return ERR_OK;
}

static bool slice_contains(grpc_slice slice, const char *word)
{
    return memmem(GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice), word, strlen(word)) !=
           NULL;
}

int rpc__error_of_status(grpc_status_code status, const grpc_metadata_array *trailing,
                         grpc_slice details, bool cancelled_here)
{
    int exact = error_of_trailing(trailing);
    if (exact != ERR_OK) {
        return exact;
    }
    switch (status) {
    case GRPC_STATUS_OK:
        return ERR_OK;
    case GRPC_STATUS_CANCELLED:
        /* Not asked for by this side: the peer or the connection gave the call up. */
        return cancelled_here ? ERR_CANCELED : ERR_UNAVAILABLE;
    case GRPC_STATUS_INVALID_ARGUMENT:
        return ERR_INVALID;
    case GRPC_STATUS_DEADLINE_EXCEEDED:
        return ERR_TIMEOUT;
    case GRPC_STATUS_NOT_FOUND:
        return ERR_NOT_FOUND;
    case GRPC_STATUS_ALREADY_EXISTS:
        return ERR_EXISTS;
    case GRPC_STATUS_RESOURCE_EXHAUSTED:
        /* The core's own complaint about a message's size uses the same status. Requests are
         * measured before they are sent, so it is about the answer: what was asked may well have
         * happened. */
        return slice_contains(details, "larger than max") ? ERR_IO : ERR_BUSY;
    case GRPC_STATUS_OUT_OF_RANGE:
        return ERR_TOO_LARGE;
    case GRPC_STATUS_UNIMPLEMENTED:
        return ERR_UNSUPPORTED;
    case GRPC_STATUS_DATA_LOSS:
        return ERR_CORRUPT;
    case GRPC_STATUS_PERMISSION_DENIED:
    case GRPC_STATUS_UNAUTHENTICATED:
    case GRPC_STATUS_FAILED_PRECONDITION:
        return ERR_INVALID;
    case GRPC_STATUS_UNAVAILABLE:
    case GRPC_STATUS_ABORTED:
    case GRPC_STATUS_INTERNAL: /* the core's words for a connection that broke in an odd way */
    case GRPC_STATUS_UNKNOWN:
        return ERR_UNAVAILABLE;
    case GRPC_STATUS__DO_NOT_USE:
        break;
    }
    return ERR_UNAVAILABLE; /* a number gRPC does not define: outcome unknown */
}

void rpc__failure_init(struct rpc__failure *failure, int error, const char *text)
{
    char code[16];
    int size = snprintf(code, sizeof(code), "%u", err_to_wire(error));
    ASSERT_CMP(size, <, sizeof(code));
    memset(failure, 0, sizeof(*failure));
    failure->metadata.key = grpc_slice_from_static_string(error_key);
    failure->metadata.value = grpc_slice_from_copied_buffer(code, (size_t)size);
    const char *details = text != NULL && text[0] != '\0' ? text : err_text(error);
    failure->details =
        grpc_slice_from_copied_buffer(details, strnlen(details, RPC_ERROR_TEXT_BYTES_MAX - 1));
}

void rpc__failure_deinit(struct rpc__failure *failure)
{
    grpc_slice_unref(failure->metadata.value);
    grpc_slice_unref(failure->details);
}

void rpc__status_op(grpc_op *op, grpc_status_code status, struct rpc__failure *failure)
{
    op->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    op->data.send_status_from_server.status = status;
    if (failure != NULL) {
        op->data.send_status_from_server.trailing_metadata_count = 1;
        op->data.send_status_from_server.trailing_metadata = &failure->metadata;
        op->data.send_status_from_server.status_details = &failure->details;
    }
}

bool rpc__buffer_is_plain(const grpc_byte_buffer *buffer)
{
    return buffer->type == GRPC_BB_RAW && buffer->data.raw.compression == GRPC_COMPRESS_NONE;
}

static void buffer_release(void *owner)
{
    grpc_byte_buffer_destroy((grpc_byte_buffer *)owner);
}

struct blob *rpc__blob_of_buffer(grpc_byte_buffer *buffer)
{
    grpc_byte_buffer_reader reader;
    size_t size = grpc_byte_buffer_length(buffer);
    int readable = grpc_byte_buffer_reader_init(&reader, buffer);
    ASSERT(readable != 0);
    grpc_slice *slice = NULL;
    int some = grpc_byte_buffer_reader_peek(&reader, &slice);
    struct blob *blob = NULL;
    if (some != 0 && size > RPC_COPY_BYTES_MAX && GRPC_SLICE_LENGTH(*slice) == size) {
        blob = blob_wrap(bytes_of(GRPC_SLICE_START_PTR(*slice), size), buffer_release, buffer);
        grpc_byte_buffer_reader_destroy(&reader);
        return blob;
    }
    uint8_t *data = NULL;
    size_t at = 0;
    blob = blob_alloc(size, &data);
    while (some != 0) {
        size_t part = GRPC_SLICE_LENGTH(*slice);
        ASSERT_CMP(part, <=, size - at);
        if (part > 0) {
            memcpy(data + at, GRPC_SLICE_START_PTR(*slice), part);
        }
        at += part;
        some = grpc_byte_buffer_reader_peek(&reader, &slice);
    }
    ASSERT_CMP(at, ==, size);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(buffer);
    return blob;
}

grpc_byte_buffer *rpc__buffer_of_buf(struct buf *buf)
{
    grpc_slice slice = grpc_empty_slice();
    if (buf->size > 0) {
        slice = grpc_slice_new(buf->data, buf->size, free);
        memset(buf, 0, sizeof(*buf));
    } else {
        buf_deinit(buf);
    }
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice); /* the buffer has its own reference */
    return buffer;
}

gpr_timespec rpc__deadline_to_core(uint64_t deadline_ns)
{
    if (deadline_ns >= (uint64_t)INT64_MAX) {
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    }
    gpr_timespec time;
    time.tv_sec = (int64_t)(deadline_ns / NS_PER_S);
    time.tv_nsec = (int32_t)(deadline_ns % NS_PER_S);
    time.clock_type = GPR_CLOCK_MONOTONIC;
    return time;
}

uint64_t rpc__deadline_of_core(gpr_timespec deadline)
{
    gpr_timespec time = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
    if (gpr_time_cmp(time, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0 ||
        time.tv_sec > INT64_MAX / (int64_t)NS_PER_S - 1) {
        return UINT64_MAX;
    }
    if (time.tv_sec < 0) {
        return 0;
    }
    uint64_t seconds_ns = (uint64_t)time.tv_sec * (uint64_t)NS_PER_S;
    return seconds_ns + (uint64_t)(uint32_t)time.tv_nsec;
}

void rpc__text_of_slice(grpc_slice slice, char text[RPC_ERROR_TEXT_BYTES_MAX])
{
    size_t size = GRPC_SLICE_LENGTH(slice);
    if (size > RPC_ERROR_TEXT_BYTES_MAX - 1) {
        size = RPC_ERROR_TEXT_BYTES_MAX - 1;
    }
    if (size > 0) {
        memcpy(text, GRPC_SLICE_START_PTR(slice), size);
    }
    text[size] = '\0';
}

bool rpc__address_split(const char *address, char host[256], char port[6])
{
    if (parse_listen_address(address) != ERR_OK) {
        return false;
    }
    const char *colon = strrchr(address, ':');
    const char *begin = address;
    const char *end = colon;
    if (begin[0] == '[') {
        begin++;
        end--;
    }
    size_t host_size = (size_t)(end - begin);
    size_t port_size = strlen(colon + 1);
    if (host_size == 0 || host_size > 255 || port_size == 0 || port_size > 5) {
        return false;
    }
    memcpy(host, begin, host_size);
    host[host_size] = '\0';
    memcpy(port, colon + 1, port_size + 1);
    return true;
}
