/* nanopb's callbacks, bound to views, texts and lists: see wire.h.
 *
 * Thread: any; all state is in the caller's structs. */
#include "proto/wire.h"

#include "base/assert.h"
#include <string.h>

/* ---- in ---- */

static bool fail(struct wire_decoder *decoder, int error)
{
    if (decoder->error == ERR_OK) {
        decoder->error = error;
    }
    return false;
}

int wire_decode(struct wire_decoder *decoder, const pb_msgdesc_t *fields, void *message)
{
    decoder->error = ERR_OK;
    pb_istream_t stream = pb_istream_from_buffer(decoder->input.data, decoder->input.size);
    if (pb_decode(&stream, fields, message)) {
        ASSERT_CMP(stream.bytes_left, ==, 0);
        return ERR_OK;
    }
    return decoder->error == ERR_OK ? ERR_PROTOCOL : decoder->error;
}

/* True when the stream reads the input, false when it reads a scalar nanopb copied aside. */
static bool stream_is_view(const pb_istream_t *stream, const struct wire_decoder *decoder)
{
    uintptr_t at = (uintptr_t)stream->state;
    uintptr_t start = (uintptr_t)decoder->input.data;
    if (at < start || at - start > decoder->input.size) {
        return false;
    }
    return stream->bytes_left <= decoder->input.size - (at - start);
}

/* Takes all of the field's bytes as a view into the input. */
static bool take_view(pb_istream_t *stream, struct wire_decoder *decoder, struct bytes *out)
{
    if (!stream_is_view(stream, decoder)) {
        return fail(decoder, ERR_PROTOCOL);
    }
    *out = bytes_of(stream->state, stream->bytes_left);
    return pb_read(stream, NULL, stream->bytes_left);
}

static bool take_bytes(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct wire_bytes *bytes = *arg;
    struct bytes view;
    if (!take_view(stream, bytes->decoder, &view)) {
        return false;
    }
    if (view.size > bytes->bytes_max) {
        return fail(bytes->decoder, ERR_TOO_LARGE);
    }
    bytes->view = view;
    return true;
}

void wire_bind_bytes(pb_callback_t *field, struct wire_bytes *bytes, struct wire_decoder *decoder,
                     size_t bytes_max)
{
    *bytes = (struct wire_bytes){.decoder = decoder, .bytes_max = bytes_max};
    field->funcs.decode = take_bytes;
    field->arg = bytes;
}

/* How many bytes the well-formed UTF-8 character at the start of `text` has (RFC 3629: no overlong
 * forms, no surrogates, nothing over U+10FFFF); 0 when there is none. */
static size_t utf8_character_bytes(struct bytes text)
{
    const uint8_t *at = text.data;
    uint8_t first = at[0];
    size_t size;
    uint8_t second_min = 0x80;
    uint8_t second_max = 0xbf;
    if (first < 0x80) {
        return 1;
    } else if (first >= 0xc2 && first <= 0xdf) {
        size = 2;
    } else if (first >= 0xe0 && first <= 0xef) {
        size = 3;
        second_min = first == 0xe0 ? 0xa0 : 0x80;
        second_max = first == 0xed ? 0x9f : 0xbf;
    } else if (first >= 0xf0 && first <= 0xf4) {
        size = 4;
        second_min = first == 0xf0 ? 0x90 : 0x80;
        second_max = first == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (text.size < size || at[1] < second_min || at[1] > second_max) {
        return 0;
    }
    for (size_t i = 2; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return size;
}

bool wire_text_is_clean(struct bytes text)
{
    size_t at = 0;
    while (at < text.size) {
        if (text.data[at] == 0) {
            return false;
        }
        size_t size = utf8_character_bytes(bytes_of(text.data + at, text.size - at));
        if (size == 0) {
            return false;
        }
        at += size;
    }
    return true;
}

static bool address_is_clean(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] <= ' ' || text.data[i] > '~') {
            return false;
        }
    }
    return true;
}

int wire_text_copy(struct bytes text, enum wire_text_kind kind, char *out, size_t capacity)
{
    ASSERT_CMP(capacity, >, 0);
    if (text.size >= capacity) {
        return ERR_TOO_LARGE;
    }
    bool clean = kind == WIRE_ADDRESS ? address_is_clean(text) : wire_text_is_clean(text);
    if (!clean) {
        return ERR_PROTOCOL;
    }
    if (text.size > 0) {
        memcpy(out, text.data, text.size);
    }
    out[text.size] = '\0';
    return ERR_OK;
}

static bool take_text(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct wire_text *text = *arg;
    struct bytes view;
    if (!take_view(stream, text->decoder, &view)) {
        return false;
    }
    int error = wire_text_copy(view, text->kind, text->out, text->capacity);
    return error == ERR_OK ? true : fail(text->decoder, error);
}

void wire_bind_text(pb_callback_t *field, struct wire_text *text, struct wire_decoder *decoder,
                    enum wire_text_kind kind, char *out, size_t capacity)
{
    *text = (struct wire_text){decoder, kind, out, capacity};
    out[0] = '\0';
    field->funcs.decode = take_text;
    field->arg = text;
}

static bool take_list(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct wire_list *list = *arg;
    struct bytes view;
    if (!take_view(stream, list->decoder, &view)) {
        return false;
    }
    int error = list->take(list->context, view);
    return error == ERR_OK ? true : fail(list->decoder, error);
}

void wire_bind_list(pb_callback_t *field, struct wire_list *list, struct wire_decoder *decoder,
                    wire_take_fn take, void *context)
{
    *list = (struct wire_list){decoder, take, context};
    field->funcs.decode = take_list;
    field->arg = list;
}

/* Called for a packed run with all of it, for a single number with its own bytes. A number has at
 * least one byte, so what is left of the run bounds what is allocated for it. */
static bool take_numbers(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct wire_numbers *numbers = *arg;
    while (stream->bytes_left > 0) {
        uint64_t value;
        if (!pb_decode_varint(stream, &value)) {
            return fail(numbers->decoder, ERR_PROTOCOL);
        }
        void *items = numbers->items;
        int error = wire_array_grow(&items, &numbers->capacity, numbers->count, numbers->count_max,
                                    sizeof(*numbers->items));
        numbers->items = items;
        if (error != ERR_OK) {
            return fail(numbers->decoder, error);
        }
        numbers->items[numbers->count++] = value;
    }
    return true;
}

void wire_bind_numbers(pb_callback_t *field, struct wire_numbers *numbers,
                       struct wire_decoder *decoder, uint32_t count_max)
{
    *numbers = (struct wire_numbers){.decoder = decoder, .count_max = count_max};
    field->funcs.decode = take_numbers;
    field->arg = numbers;
}

int wire_array_grow(void **items, uint32_t *capacity, uint32_t count, uint32_t count_max,
                    size_t element_bytes)
{
    ASSERT_CMP(count, <=, *capacity);
    if (count >= count_max) {
        return ERR_TOO_LARGE;
    }
    if (count == *capacity) {
        uint32_t grown = count < 4 ? 4 : count * 2;
        grown = grown > count_max ? count_max : grown;
        *items = mem_realloc(*items, grown * element_bytes);
        *capacity = grown;
    }
    return ERR_OK;
}

/* ---- out ---- */

void wire_encode(const pb_msgdesc_t *fields, const void *message, struct buf *out)
{
    size_t size = 0;
    bool sized = pb_get_encoded_size(&size, fields, message);
    ASSERT(sized);
    pb_ostream_t stream = pb_ostream_from_buffer(buf_reserve(out, size), size);
    bool encoded = pb_encode(&stream, fields, message);
    ASSERT(encoded);
    ASSERT_CMP(stream.bytes_written, ==, size);
    out->size += size;
}

struct bytes wire_text_view(const char *text, size_t capacity)
{
    size_t size = strnlen(text, capacity);
    ASSERT_CMP(size, <, capacity);
    return bytes_of(text, size);
}

bool wire_put_element(pb_ostream_t *stream, const pb_field_t *field, struct bytes element)
{
    return pb_encode_tag_for_field(stream, field) &&
           pb_encode_string(stream, element.data, element.size);
}

bool wire_put_message(pb_ostream_t *stream, const pb_field_t *field, const pb_msgdesc_t *fields,
                      const void *message)
{
    return pb_encode_tag_for_field(stream, field) && pb_encode_submessage(stream, fields, message);
}

static bool give_bytes(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct bytes *bytes = *arg;
    return bytes->size == 0 ? true : wire_put_element(stream, field, *bytes);
}

void wire_put_bytes(pb_callback_t *field, const struct bytes *bytes)
{
    field->funcs.encode = give_bytes;
    field->arg = (void *)bytes;
}

static bool give_parts(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct wire_parts *parts = *arg;
    for (uint32_t i = 0; i < parts->count; i++) {
        if (!parts->put(stream, field, parts->context, i)) {
            return false;
        }
    }
    return true;
}

void wire_put_parts(pb_callback_t *field, struct wire_parts *parts, uint32_t count, wire_put_fn put,
                    const void *context)
{
    *parts = (struct wire_parts){count, put, context};
    field->funcs.encode = give_parts;
    field->arg = parts;
}

static bool give_numbers(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct wire_numbers_out *numbers = *arg;
    if (numbers->count == 0) {
        return true;
    }
    pb_ostream_t sizing = PB_OSTREAM_SIZING;
    for (uint32_t i = 0; i < numbers->count; i++) {
        if (!pb_encode_varint(&sizing, numbers->items[i])) {
            return false;
        }
    }
    if (!pb_encode_tag(stream, PB_WT_STRING, field->tag) ||
        !pb_encode_varint(stream, sizing.bytes_written)) {
        return false;
    }
    for (uint32_t i = 0; i < numbers->count; i++) {
        if (!pb_encode_varint(stream, numbers->items[i])) {
            return false;
        }
    }
    return true;
}

void wire_put_numbers(pb_callback_t *field, struct wire_numbers_out *numbers, uint32_t count,
                      const uint64_t *items)
{
    *numbers = (struct wire_numbers_out){count, items};
    field->funcs.encode = give_numbers;
    field->arg = numbers;
}
