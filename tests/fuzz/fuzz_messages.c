/* Every decoder of proto/messages.h: first byte says which, the rest is the message. What a decoder
 * accepts, its encoder writes, and that decodes again to the same: the second encoding equals the
 * first. (It need not equal the input: fields may come in any order, unknown ones are skipped.) */
#include "fuzz/fuzz.h"

#include "base/rng.h"
#include "unit/message_cases.h"

#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 8192;

enum { SEEDS_EACH = 3 };

/* Decodes over memory that is not zero; nothing may rest on what was there. */
static bool decode_and_encode(const struct message_case *message, struct bytes bytes,
                              struct buf *again)
{
    void *value = mem_alloc(message->size);
    memset(value, 0xa5, message->size);
    bool decoded = message->decode(bytes, value) == 0;
    if (decoded) {
        message->encode(value, again);
        if (message->deinit != NULL) {
            message->deinit(value);
            message->deinit(value); /* safe twice, as promised */
        }
    }
    free(value);
    return decoded;
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    const struct message_case *message = &message_cases[get_u8(&reader) % message_case_count];
    struct buf first;
    struct buf second;
    buf_init(&first);
    buf_init(&second);
    if (decode_and_encode(message, fuzz_take(&reader, input.size), &first)) {
        ASSERT(decode_and_encode(message, buf_view(&first), &second));
        ASSERT(bytes_equal(buf_view(&first), buf_view(&second)));
    }
    buf_deinit(&first);
    buf_deinit(&second);
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    if (index >= message_case_count * SEEDS_EACH) {
        return false;
    }
    uint8_t which = (uint8_t)(index / SEEDS_EACH);
    const struct message_case *message = &message_cases[which];
    struct rng rng;
    rng_init(&rng, index + 1);
    /* Some drawings are larger than an input may be; an empty message then stands for them. */
    for (int tries = 0; tries < 50; tries++) {
        buf_clear(out);
        put_u8(out, which);
        void *value = mem_calloc(1, message->size);
        message->fill(value, &rng);
        message->encode(value, out);
        if (message->release != NULL) {
            message->release(value);
        }
        free(value);
        if (out->size <= 1024) {
            return true;
        }
    }
    buf_clear(out);
    put_u8(out, which);
    return true;
}
