/* Private to this room: what lies between nanopb's callbacks and the structs of messages.h.
 *
 * Every text, run of bytes and repeated part is a nanopb callback bound to one of the small structs
 * below, which lives on the stack of the decoder or encoder. On the way in a part is first of all a
 * view into the input.
 *
 * nanopb hands a field's callback a stream over its own stack when the field came with a scalar
 * wire type, so a view is accepted only when it lies inside the input. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include "base/bytes.h"
#include "base/error.h"
#include "proto/limits.h"
#include <pb_decode.h>
#include <pb_encode.h>

/* ---- in ---- */

/* One decoding; shared by its fields. */
struct wire_decoder {
    struct bytes input;
    int error; /* the first a callback gave */
};

/* Decodes `input` into `message`, whose callbacks are bound already. ERR_PROTOCOL, or what a
 * callback gave. */
int wire_decode(struct wire_decoder *decoder, const pb_msgdesc_t *fields, void *message) MUST_USE;

struct wire_bytes {
    struct wire_decoder *decoder;
    size_t bytes_max;
    struct bytes view; /* out */
};
void wire_bind_bytes(pb_callback_t *field, struct wire_bytes *bytes, struct wire_decoder *decoder,
                     size_t bytes_max);

enum wire_text_kind {
    WIRE_TEXT,    /* UTF-8 */
    WIRE_ADDRESS, /* printable ASCII without spaces */
};
/* `out` gets the text and its NUL. ERR_TOO_LARGE, ERR_PROTOCOL. */
int wire_text_copy(struct bytes text, enum wire_text_kind kind, char *out,
                   size_t capacity) MUST_USE;

struct wire_text {
    struct wire_decoder *decoder;
    enum wire_text_kind kind;
    char *out;
    size_t capacity;
};
void wire_bind_text(pb_callback_t *field, struct wire_text *text, struct wire_decoder *decoder,
                    enum wire_text_kind kind, char *out, size_t capacity);

/* Repeated bytes, texts or messages: `take` gets each as a view. */
typedef int (*wire_take_fn)(void *context, struct bytes element);
struct wire_list {
    struct wire_decoder *decoder;
    wire_take_fn take;
    void *context;
};
void wire_bind_list(pb_callback_t *field, struct wire_list *list, struct wire_decoder *decoder,
                    wire_take_fn take, void *context);

/* Repeated uint64, packed or not. The owner frees items, whatever the decoding gave. */
struct wire_numbers {
    struct wire_decoder *decoder;
    uint32_t count_max;
    uint32_t count;
    uint32_t capacity;
    uint64_t *items;
};
void wire_bind_numbers(pb_callback_t *field, struct wire_numbers *numbers,
                       struct wire_decoder *decoder, uint32_t count_max);

/* A heap array being filled: room for one more element, ERR_TOO_LARGE when there are count_max. */
int wire_array_grow(void **items, uint32_t *capacity, uint32_t count, uint32_t count_max,
                    size_t element_bytes) MUST_USE;

/* ---- out ---- */

/* Appends `message`. It cannot fail: a message that does not encode is a bug of this room. */
void wire_encode(const pb_msgdesc_t *fields, const void *message, struct buf *out);

/* A text in a fixed array, which must end in it. */
struct bytes wire_text_view(const char *text, size_t capacity);
/* True when the bytes are well-formed UTF-8 and none is NUL. */
bool wire_text_is_clean(struct bytes text);

/* All of these encode nothing for an empty one, as proto3 says. `bytes` and what it points at must
 * outlive the encoding. */
void wire_put_bytes(pb_callback_t *field, const struct bytes *bytes);

/* `count` parts, each written by `put` with wire_put_element or wire_put_message. */
typedef bool (*wire_put_fn)(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                            uint32_t index);
struct wire_parts {
    uint32_t count;
    wire_put_fn put;
    const void *context;
};
void wire_put_parts(pb_callback_t *field, struct wire_parts *parts, uint32_t count, wire_put_fn put,
                    const void *context);
bool wire_put_element(pb_ostream_t *stream, const pb_field_t *field, struct bytes element);
bool wire_put_message(pb_ostream_t *stream, const pb_field_t *field, const pb_msgdesc_t *fields,
                      const void *message);

struct wire_numbers_out {
    uint32_t count;
    const uint64_t *items;
};
void wire_put_numbers(pb_callback_t *field, struct wire_numbers_out *numbers, uint32_t count,
                      const uint64_t *items);

#endif
