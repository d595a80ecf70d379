/* What holds for every message: round trips, unknown fields, cut and damaged bytes. Seeded; a
 * failure names the message and the seed's step. */
#include "unit/proto_test.h"

#include "unit/message_cases.h"

#define ROUND_TRIPS_EACH 200
#define MUTATIONS_EACH   10000

static void *fresh(const struct message_case *message)
{
    return mem_calloc(1, message->size);
}

/* Encodes a message drawn from `rng`. */
static void draw(const struct message_case *message, struct rng *rng, struct buf *out)
{
    void *value = fresh(message);
    message->fill(value, rng);
    message->encode(value, out);
    if (message->release != NULL) {
        message->release(value);
    }
    free(value);
}

/* Decodes; when that goes well, encodes again into *again (may be NULL) and frees what was decoded.
 */
static int decode(const struct message_case *message, struct bytes bytes, struct buf *again)
{
    void *value = fresh(message);
    memset(value, 0xa5, message->size); /* nothing may rest on what was there before */
    int error = message->decode(bytes, value);
    if (error == ERR_OK) {
        if (again != NULL) {
            message->encode(value, again);
        }
        if (message->deinit != NULL) {
            message->deinit(value);
            message->deinit(value); /* twice is safe */
        }
    }
    free(value);
    return error;
}

static void check_same(const struct message_case *message, struct bytes got, struct bytes want,
                       uint32_t step)
{
    if (got.size != want.size || (want.size > 0 && memcmp(got.data, want.data, want.size) != 0)) {
        fail_msg("%s, step %u: not the same after decoding and encoding again", message->name,
                 (unsigned)step);
    }
}

static void check_error(const struct message_case *message, int error, uint32_t step)
{
    if (error != ERR_OK) {
        fail_msg("%s, step %u: decoding gave %s", message->name, (unsigned)step, err_name(error));
    }
}

static void test_messages_each_round_trips(void **state)
{
    (void)state;
    struct buf bytes;
    struct buf again;
    buf_init(&bytes);
    buf_init(&again);
    for (size_t i = 0; i < message_case_count; i++) {
        struct rng rng;
        rng_init(&rng, 1);
        for (uint32_t step = 0; step < ROUND_TRIPS_EACH; step++) {
            buf_clear(&bytes);
            buf_clear(&again);
            draw(&message_cases[i], &rng, &bytes);
            check_error(&message_cases[i], decode(&message_cases[i], buf_view(&bytes), &again),
                        step);
            check_same(&message_cases[i], buf_view(&again), buf_view(&bytes), step);
        }
    }
    buf_deinit(&bytes);
    buf_deinit(&again);
}

static void test_messages_encoders_append(void **state)
{
    (void)state;
    struct buf bytes;
    buf_init(&bytes);
    for (size_t i = 0; i < message_case_count; i++) {
        struct rng rng;
        buf_clear(&bytes);
        rng_init(&rng, 2);
        draw(&message_cases[i], &rng, &bytes);
        size_t size = bytes.size;
        rng_init(&rng, 2);
        draw(&message_cases[i], &rng, &bytes);
        assert_int_equal(bytes.size, 2 * size);
        if (size > 0) {
            assert_memory_equal(bytes.data, bytes.data + size, size);
        }
    }
    buf_deinit(&bytes);
}

static void test_messages_unknown_fields_are_skipped(void **state)
{
    (void)state;
    /* Field 1000 as a varint, 64 bits, a run of bytes and 32 bits; field 536870911, the highest. */
    static const char unknown[] = "\xc0\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
                                  "\xc1\x3e"
                                  "12345678"
                                  "\xc2\x3e\x05"
                                  "hello"
                                  "\xc5\x3e"
                                  "1234"
                                  "\xfa\xff\xff\xff\x0f\x01x";
    struct buf bytes;
    struct buf mixed;
    struct buf again;
    buf_init(&bytes);
    buf_init(&mixed);
    buf_init(&again);
    for (size_t i = 0; i < message_case_count; i++) {
        struct rng rng;
        rng_init(&rng, 3);
        for (uint32_t step = 0; step < 20; step++) {
            buf_clear(&bytes);
            buf_clear(&mixed);
            buf_clear(&again);
            draw(&message_cases[i], &rng, &bytes);
            buf_append(&mixed, unknown, sizeof(unknown) - 1);
            buf_append_bytes(&mixed, buf_view(&bytes));
            buf_append(&mixed, unknown, sizeof(unknown) - 1);
            check_error(&message_cases[i], decode(&message_cases[i], buf_view(&mixed), &again),
                        step);
            check_same(&message_cases[i], buf_view(&again), buf_view(&bytes), step);
        }
    }
    buf_deinit(&bytes);
    buf_deinit(&mixed);
    buf_deinit(&again);
}

static bool is_refusal(int error)
{
    return error == ERR_PROTOCOL || error == ERR_TOO_LARGE || error == ERR_INVALID;
}

static void test_messages_each_prefix_is_refused_or_decoded_inside_it(void **state)
{
    (void)state;
    struct guarded guarded = guarded_create(64 * 1024);
    struct buf bytes;
    buf_init(&bytes);
    for (size_t i = 0; i < message_case_count; i++) {
        struct rng rng;
        rng_init(&rng, 4);
        for (uint32_t step = 0; step < 3; step++) {
            buf_clear(&bytes);
            draw(&message_cases[i], &rng, &bytes);
            uint32_t refused = 0;
            for (size_t size = 0; size < bytes.size; size++) {
                struct bytes prefix = guarded_put(&guarded, bytes_of(bytes.data, size));
                int error = decode(&message_cases[i], prefix, NULL);
                assert_true(error == ERR_OK || is_refusal(error));
                refused += error != ERR_OK;
            }
            /* At the least each cut after a tag is one. */
            assert_true(bytes.size < 2 || refused > 0);
        }
    }
    buf_deinit(&bytes);
    guarded_destroy(&guarded);
}

static void mutate(uint8_t *data, size_t size, struct rng *rng)
{
    uint64_t changes = rng_between(rng, 1, 4);
    for (uint64_t i = 0; i < changes; i++) {
        size_t at = (size_t)rng_below(rng, size);
        switch (rng_below(rng, 3)) {
        case 0:
            data[at] = (uint8_t)rng_next(rng);
            break;
        case 1:
            data[at] ^= (uint8_t)(1u << rng_below(rng, 8));
            break;
        default:
            data[at] = rng_chance(rng, 1, 2) ? 0xff : 0x00;
            break;
        }
    }
}

static void test_messages_mutated_bytes_are_refused_or_encode_again(void **state)
{
    (void)state;
    struct guarded guarded = guarded_create(64 * 1024);
    struct buf bytes;
    struct buf again;
    buf_init(&bytes);
    buf_init(&again);
    for (size_t i = 0; i < message_case_count; i++) {
        struct rng rng;
        rng_init(&rng, 5);
        for (uint32_t step = 0; step < MUTATIONS_EACH; step++) {
            if (step % 100 == 0) {
                do {
                    buf_clear(&bytes);
                    draw(&message_cases[i], &rng, &bytes);
                } while (bytes.size == 0);
            }
            struct bytes damaged = guarded_put(&guarded, buf_view(&bytes));
            mutate((uint8_t *)damaged.data, damaged.size, &rng);
            buf_clear(&again);
            int error = decode(&message_cases[i], damaged, &again);
            assert_true(error == ERR_OK || is_refusal(error));
            if (error == ERR_OK) {
                /* What was accepted is a message: its own encoding is too. */
                check_error(&message_cases[i], decode(&message_cases[i], buf_view(&again), NULL),
                            step);
            }
        }
    }
    buf_deinit(&bytes);
    buf_deinit(&again);
    guarded_destroy(&guarded);
}

static void test_messages_random_bytes_are_refused_or_decoded(void **state)
{
    (void)state;
    struct guarded guarded = guarded_create(256);
    struct rng rng;
    rng_init(&rng, 6);
    for (size_t i = 0; i < message_case_count; i++) {
        for (uint32_t step = 0; step < 2000; step++) {
            uint8_t noise[64];
            size_t size = (size_t)rng_below(&rng, sizeof(noise) + 1);
            for (size_t at = 0; at < size; at++) {
                noise[at] = (uint8_t)rng_below(&rng, rng_chance(&rng, 1, 2) ? 64 : 256);
            }
            int error =
                decode(&message_cases[i], guarded_put(&guarded, bytes_of(noise, size)), NULL);
            assert_true(error == ERR_OK || is_refusal(error));
        }
    }
    guarded_destroy(&guarded);
}

/* Every field of every message with every wire type it may not have: nanopb hands a callback a
 * scalar as bytes of its own stack, which must never come out as a view. */
static void test_messages_each_field_of_each_wire_type_gives_no_foreign_view(void **state)
{
    (void)state;
    static const struct {
        unsigned wire_type;
        const char *payload;
        size_t size;
    } payloads[] = {
        {0, "\x81\x01", 2}, {1, "abcdefgh", 8}, {2, "\x03xyz", 4}, {5, "abcd", 4},
        {3, "", 0},         {4, "", 0},         {6, "", 0},        {7, "", 0},
    };
    struct guarded guarded = guarded_create(64);
    struct buf bytes;
    struct buf again;
    buf_init(&bytes);
    buf_init(&again);
    for (size_t i = 0; i < message_case_count; i++) {
        for (unsigned tag = 0; tag <= 20; tag++) {
            for (size_t j = 0; j < sizeof(payloads) / sizeof(payloads[0]); j++) {
                buf_clear(&bytes);
                unsigned key = tag << 3 | payloads[j].wire_type;
                uint8_t head[2] = {(uint8_t)(key | 0x80), (uint8_t)(key >> 7)};
                buf_append(&bytes, head, 2);
                buf_append(&bytes, payloads[j].payload, payloads[j].size);
                buf_clear(&again);
                struct bytes input = guarded_put(&guarded, buf_view(&bytes));
                int error = decode(&message_cases[i], input, &again);
                bool known_type = payloads[j].wire_type <= 2 || payloads[j].wire_type == 5;
                assert_true(known_type ? error == ERR_OK || is_refusal(error) : is_refusal(error));
                assert_true(tag != 0 || is_refusal(error));
            }
        }
    }
    buf_deinit(&bytes);
    buf_deinit(&again);
    guarded_destroy(&guarded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_each_round_trips),
        cmocka_unit_test(test_messages_encoders_append),
        cmocka_unit_test(test_messages_unknown_fields_are_skipped),
        cmocka_unit_test(test_messages_each_prefix_is_refused_or_decoded_inside_it),
        cmocka_unit_test(test_messages_mutated_bytes_are_refused_or_encode_again),
        cmocka_unit_test(test_messages_random_bytes_are_refused_or_decoded),
        cmocka_unit_test(test_messages_each_field_of_each_wire_type_gives_no_foreign_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
