/* What people and scripts give to the programs: command lines, single values, encodings, JSON lines
 * of the command line and of the linearizability checker. First byte says which reader. */
#include "fuzz/fuzz.h"

#include "base/flags.h"
#include "client/ctl/encoding.h"
#include "client/ctl/jsonl.h"
#include "lin/history_json.h"
#include "proto/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 4096;

enum { ARGUMENTS_MAX = 24 };

static char *text_of(struct bytes bytes)
{
    char *text = mem_alloc(bytes.size + 1);
    if (bytes.size > 0) {
        memcpy(text, bytes.data, bytes.size);
    }
    text[bytes.size] = '\0';
    return text;
}

/* Arguments are separated by newlines. */
static void fuzz_flags(struct bytes input)
{
    bool verbose = false;
    uint64_t count = 7, wait_ns = 5, size = 9;
    const char *name = "";
    const struct flag flags[] = {
        {.name = "verbose", .kind = FLAG_BOOL, .value = &verbose, .help = "v"},
        {.name = "count",
         .kind = FLAG_UINT,
         .value = &count,
         .min = 1,
         .max = 99,
         .required = true,
         .placeholder = "N",
         .help = "c"},
        {.name = "wait",
         .kind = FLAG_DURATION,
         .value = &wait_ns,
         .max = 1000000000000,
         .placeholder = "T",
         .help = "w"},
        {.name = "size", .kind = FLAG_BYTES, .value = &size, .placeholder = "S", .help = "s"},
        {.name = "name", .kind = FLAG_STRING, .value = &name, .placeholder = "X", .help = "n"},
    };
    const struct flag_set set = {.program = "fuzz",
                                 .summary = "s",
                                 .usage = "",
                                 .flags = flags,
                                 .count = sizeof flags / sizeof flags[0]};
    char *text = text_of(input);
    char program[] = "fuzz";
    char *arguments[ARGUMENTS_MAX + 1] = {program};
    int argument_count = 1;
    char *rest = text;
    char *word;
    while (argument_count < ARGUMENTS_MAX && (word = strsep(&rest, "\n")) != NULL) {
        arguments[argument_count++] = word;
    }
    char *positional[ARGUMENTS_MAX + 1];
    int positional_count = 0;
    char message[300] = "";
    int error = flags_parse(&set, argument_count, arguments, positional, &positional_count, message,
                            sizeof message);
    ASSERT(error == 0 || error == ERR_EXISTS || error == ERR_INVALID);
    if (error == 0) {
        ASSERT(count >= 1 && count <= 99);
        ASSERT_CMP(wait_ns, <=, 1000000000000);
        ASSERT(positional_count >= 0 && positional_count < argument_count);
        ASSERT(name != NULL);
    } else if (error == ERR_INVALID) {
        ASSERT(message[0] != '\0');
        ASSERT(memchr(message, '\0', sizeof message) != NULL);
    }
    free(text);
}

static void fuzz_values(struct bytes input)
{
    char *text = text_of(input);
    uint64_t value;
    uint64_t again;
    if (parse_uint(text, &value) == 0) {
        char decimal[32];
        snprintf(decimal, sizeof decimal, "%llu", (unsigned long long)value);
        int error = parse_uint(decimal, &again);
        ASSERT(error == 0);
        ASSERT_CMP(value, ==, again);
    }
    int error = parse_duration_ns(text, &value);
    error = error == 0 ? parse_size_bytes(text, &value) : error;
    (void)error;
    if (parse_address(text) == 0) {
        int listen_error = parse_listen_address(text);
        ASSERT(listen_error == 0);
        ASSERT(strrchr(text, ':') != NULL);
    }
    free(text);
}

static void fuzz_encoding(struct bytes input)
{
    for (int encoding = ENCODING_PLAIN; encoding <= ENCODING_BASE64; encoding++) {
        struct buf decoded = {0};
        struct buf text = {0};
        struct buf again = {0};
        if (encoding_decode((enum encoding)encoding, input, &decoded) == 0) {
            encoding_encode((enum encoding)encoding, buf_view(&decoded), &text);
            int error = encoding_decode((enum encoding)encoding, buf_view(&text), &again);
            ASSERT(error == 0);
            ASSERT(bytes_equal(buf_view(&decoded), buf_view(&again)));
        }
        buf_deinit(&decoded);
        buf_deinit(&text);
        buf_deinit(&again);
    }
}

/* What is printed of a row reads as the same row. */
static void fuzz_jsonl(struct bytes input)
{
    struct jsonl_row row = {0};
    struct jsonl_row again = {0};
    char why[256] = "";
    if (jsonl_parse(input, &row, why, sizeof why) == 0) {
        ASSERT(row.key.size > 0 && row.key.size <= KEY_BYTES_MAX);
        char *line = NULL;
        size_t line_size = 0;
        FILE *out = open_memstream(&line, &line_size);
        ASSERT(out != NULL);
        struct bytes value = buf_view(&row.value);
        int error = jsonl_print(out, buf_view(&row.key), &value);
        ASSERT(error == 0);
        fclose(out);
        error = jsonl_parse(bytes_of(line, line_size), &again, why, sizeof why);
        ASSERT(error == 0);
        ASSERT(bytes_equal(buf_view(&row.key), buf_view(&again.key)));
        ASSERT(bytes_equal(buf_view(&row.value), buf_view(&again.value)));
        free(line);
    } else {
        ASSERT(why[0] != '\0');
    }
    jsonl_row_deinit(&row);
    jsonl_row_deinit(&again);
}

static void fuzz_lin(struct bytes input)
{
    if (input.size == 0) {
        return; /* fmemopen takes no empty file */
    }
    FILE *in = fmemopen((void *)(uintptr_t)input.data, input.size, "r");
    ASSERT(in != NULL);
    struct lin_history *history = lin_history_create();
    char message[600] = "";
    int error = lin_history_read(in, "input", 64 * 1024 * 1024, history, message, sizeof message);
    ASSERT(error == 0 || error == ERR_INVALID || error == ERR_TOO_LARGE);
    ASSERT(error == 0 || message[0] != '\0');
    if (error == 0) {
        size_t count = lin_history_count(history);
        const struct lin_op *ops = lin_history_sorted(history);
        for (size_t i = 0; i < count; i++) {
            ASSERT_CMP(ops[i].returned_ns, >=, ops[i].called_ns);
        }
    }
    lin_history_destroy(history);
    fclose(in);
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    uint32_t what = fuzz_choice(&reader, 5);
    struct bytes rest = fuzz_take(&reader, input.size);
    switch (what) {
    case 0:
        fuzz_flags(rest);
        break;
    case 1:
        fuzz_values(rest);
        break;
    case 2:
        fuzz_encoding(rest);
        break;
    case 3:
        fuzz_jsonl(rest);
        break;
    default:
        fuzz_lin(rest);
        break;
    }
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    static const struct {
        uint8_t what;
        const char *text;
    } seeds[] = {
        {0, "--count=5\nword\n--verbose\n--wait\n250ms\n--\n--name"},
        {0, "--no-verbose\n--size=8MiB\n--count\n99\n--name=x\na\nb"},
        {0, "--help"},
        {0, "--coutn=5"},
        {1, "18446744073709551615"},
        {1, "250ms"},
        {1, "1GiB"},
        {1, "[::1]:65535"},
        {1, "host.example:1"},
        {2, "00ffAb"},
        {2, "Zm9vYg==\n"},
        {3, "{\"key\":\"k\\u00e9\",\"value\":\"v\\u0000w\",\"more\":1}"},
        {3, "{\"key_base64\":\"AP8=\",\"value_base64\":\"\"}"},
    };
    enum { SEED_COUNT = sizeof seeds / sizeof seeds[0] };
    if (index < SEED_COUNT) {
        put_u8(out, seeds[index].what);
        buf_append_bytes(out, bytes_of_string(seeds[index].text));
        return true;
    }
    if (index > SEED_COUNT) {
        return false;
    }
    put_u8(out, 4);
    struct lin_event event = {.process = 1, .type = LIN_INVOKE, .kind = LIN_PUT, .time_ns = 5};
    event.key = bytes_of_string("k");
    event.value = (struct lin_value){.present = true, .bytes = bytes_of_string("v")};
    lin_event_write(&event, out);
    event.type = LIN_OK;
    event.time_ns = 9;
    event.has_version = true;
    event.version = 3;
    lin_event_write(&event, out);
    event = (struct lin_event){.process = 2, .type = LIN_INVOKE, .kind = LIN_GET, .time_ns = 7};
    event.key = bytes_of_string("k");
    lin_event_write(&event, out);
    event.type = LIN_INFO;
    lin_event_write(&event, out);
    return true;
}
