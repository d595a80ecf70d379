/* Bytes as words and rows as JSON lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"
#include "client/ctl/encoding.h"
#include "client/ctl/jsonl.h"
#include "proto/limits.h"
#include <stdlib.h>
#include <string.h>

static void expect_decoded(enum encoding encoding, const char *text, const void *bytes, size_t size)
{
    struct buf out = {0};
    assert_int_equal(encoding_decode(encoding, bytes_of_string(text), &out), 0);
    assert_int_equal(out.size, size);
    if (size > 0) {
        assert_memory_equal(out.data, bytes, size);
    }
    buf_deinit(&out);
}

static void expect_refused(enum encoding encoding, const char *text)
{
    struct buf out = {0};
    assert_int_equal(encoding_decode(encoding, bytes_of_string(text), &out), ERR_INVALID);
    buf_deinit(&out);
}

static void test_decode_gives_what_rfc_4648_says(void **state)
{
    (void)state;
    expect_decoded(ENCODING_BASE64, "", "", 0);
    expect_decoded(ENCODING_BASE64, "Zg==", "f", 1);
    expect_decoded(ENCODING_BASE64, "Zm8=", "fo", 2);
    expect_decoded(ENCODING_BASE64, "Zm9v", "foo", 3);
    expect_decoded(ENCODING_BASE64, "Zm9vYmFy\n", "foobar", 6);
    expect_decoded(ENCODING_BASE64, "AP+/", "\x00\xff\xbf", 3);
    expect_decoded(ENCODING_HEX, "00ffAb", "\x00\xff\xab", 3);
    expect_decoded(ENCODING_PLAIN, "a b\n", "a b\n", 4);
}

static void test_decode_refuses_what_is_not_it(void **state)
{
    (void)state;
    const char *base64[] = {"Z",    "Zg",   "Zg=",  "Zg===",    "Z===", "====",
                            "Zh==", "Zm9=", "Zm 9", "Zg==Zg==", "-_-_", "Zm9v\x80"};
    const char *hex[] = {"0", "0g", "0x00", "00 00", "\xc3\xa9"};
    for (size_t i = 0; i < sizeof base64 / sizeof base64[0]; i++) {
        expect_refused(ENCODING_BASE64, base64[i]);
    }
    for (size_t i = 0; i < sizeof hex / sizeof hex[0]; i++) {
        expect_refused(ENCODING_HEX, hex[i]);
    }
}

static void test_encode_then_decode_gives_the_same(void **state)
{
    (void)state;
    struct rng rng;
    uint8_t bytes[70];
    rng_init(&rng, 7);
    for (size_t size = 0; size < sizeof bytes; size++) {
        for (size_t i = 0; i < size; i++) {
            bytes[i] = (uint8_t)rng_next(&rng);
        }
        for (int encoding = ENCODING_HEX; encoding <= ENCODING_BASE64; encoding++) {
            struct buf text = {0};
            encoding_encode((enum encoding)encoding, bytes_of(bytes, size), &text);
            buf_append(&text, "", 1);
            expect_decoded((enum encoding)encoding, text.size > 0 ? (const char *)text.data : "",
                           bytes, size);
            buf_deinit(&text);
        }
    }
}

static int parse(const char *line, struct jsonl_row *row, char why[256])
{
    return jsonl_parse(bytes_of_string(line), row, why, 256);
}

static void test_row_is_parsed_in_both_forms(void **state)
{
    (void)state;
    struct jsonl_row row = {0};
    char why[256];
    assert_int_equal(
        parse("{\"key\":\"k\\u00e9\",\"value\":\"v\\u0000w\",\"more\":1}\n", &row, why), 0);
    assert_true(bytes_equal(buf_view(&row.key), bytes_of("k\xc3\xa9", 3)));
    assert_true(bytes_equal(buf_view(&row.value), bytes_of("v\0w", 3)));
    assert_int_equal(parse("{\"key_base64\":\"AP8=\",\"value\":\"\"}", &row, why), 0);
    assert_true(bytes_equal(buf_view(&row.key), bytes_of("\x00\xff", 2)));
    assert_int_equal(row.value.size, 0);
    jsonl_row_deinit(&row);
}

static void test_bad_row_is_refused_with_the_reason(void **state)
{
    (void)state;
    const struct {
        const char *line;
        const char *reason;
    } cases[] = {
        {"", "not JSON"},
        {"{\"key\":\"a\"", "not JSON"},
        {"[1]", "object"},
        {"{\"value\":\"v\"}", "either \"key\" or \"key_base64\""},
        {"{\"key\":\"a\",\"key_base64\":\"YQ==\",\"value\":\"v\"}", "either"},
        {"{\"key\":1,\"value\":\"v\"}", "not a string"},
        {"{\"key\":\"\",\"value\":\"v\"}", "empty"},
        {"{\"key\":\"a\"}", "either \"value\""},
        {"{\"key\":\"a\",\"key\":\"b\",\"value\":\"v\"}", "not JSON"},
        {"{\"key\":\"a\",\"value_base64\":\"x\"}", "not base64"},
        {"{\"key\":\"a\",\"value\":\"v\"} {}", "not JSON"},
    };
    struct jsonl_row row = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char why[256] = "";
        assert_int_equal(parse(cases[i].line, &row, why), ERR_INVALID);
        assert_non_null(strstr(why, cases[i].reason));
    }
    char *line = mem_calloc(1, KEY_BYTES_MAX + 100);
    char why[256] = "";
    (void)strcpy(line, "{\"key\":\"");
    memset(line + 8, 'x', KEY_BYTES_MAX + 1);
    (void)strcat(line, "\",\"value\":\"\"}");
    assert_int_equal(parse(line, &row, why), ERR_INVALID);
    assert_non_null(strstr(why, "4097"));
    free(line);
    jsonl_row_deinit(&row);
}

static void test_printed_row_is_parsed_to_the_same(void **state)
{
    (void)state;
    const struct bytes samples[] = {bytes_of("plain", 5), bytes_of("\xff\x00\xfe", 3),
                                    bytes_of("a\0b\n\"\\", 6),
                                    bytes_of("\xc3\xa9\xf0\x9f\x98\x80", 6), bytes_of("\xc3", 1)};
    enum { COUNT = sizeof samples / sizeof samples[0] };
    for (size_t i = 0; i < COUNT * COUNT; i++) {
        char *text = NULL;
        size_t size = 0;
        char why[256];
        struct jsonl_row row = {0};
        FILE *file = open_memstream(&text, &size);
        assert_int_equal(jsonl_print(file, samples[i / COUNT], &samples[i % COUNT]), 0);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(text[size - 1], '\n');
        assert_null(memchr(text, '\n', size - 1));
        assert_int_equal(parse(text, &row, why), 0);
        assert_true(bytes_equal(buf_view(&row.key), samples[i / COUNT]));
        assert_true(bytes_equal(buf_view(&row.value), samples[i % COUNT]));
        jsonl_row_deinit(&row);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_gives_what_rfc_4648_says),
        cmocka_unit_test(test_decode_refuses_what_is_not_it),
        cmocka_unit_test(test_encode_then_decode_gives_the_same),
        cmocka_unit_test(test_row_is_parsed_in_both_forms),
        cmocka_unit_test(test_bad_row_is_refused_with_the_reason),
        cmocka_unit_test(test_printed_row_is_parsed_to_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
