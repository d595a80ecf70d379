/* Histories from JSON lines: what each line means, and what a person is told about a wrong one. */
#include "unit/base_test.h"

#include "lin/check.h"
#include "lin/generate.h"

#include <stdio.h>

static struct lin_history *history;
static char message[512];

static int read_text(const char *text, size_t size)
{
    lin_history_destroy(history);
    history = lin_history_create();
    message[0] = '\0';
    FILE *in = fmemopen((void *)(uintptr_t)text, size, "r");
    assert_non_null(in);
    int error = lin_history_read(in, "h", UINT64_MAX, history, message, sizeof message);
    assert_int_equal(fclose(in), 0);
    return error;
}

static int end(void **state)
{
    (void)state;
    lin_history_destroy(history);
    history = NULL;
    return 0;
}

static enum lin_verdict verdict(void)
{
    struct lin_result result;
    enum lin_verdict found = lin_check(history, &(struct lin_limits){0}, &result);
    lin_result_deinit(&result);
    return found;
}

#define assert_reads(text) assert_int_equal(read_text(text, strlen(text)), ERR_OK)
#define assert_refused(text, words)                                                                \
    do {                                                                                           \
        assert_int_equal(read_text(text, strlen(text)), ERR_INVALID);                              \
        if (strstr(message, words) == NULL) {                                                      \
            fail_msg("'%s' is not in '%s'", words, message);                                       \
        }                                                                                          \
    } while (0)

/* A line: process, type, f, then more fields. */
#define LINE(process, type, f, more)                                                               \
    "{\"process\":" #process ",\"type\":\"" type "\",\"f\":\"" f "\",\"key\":\"x\"" more "}\n"

static void test_history_each_operation_is_read(void **state)
{
    (void)state;
    assert_reads(
        LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":1")
            LINE(1, "ok", "put", ",\"value\":\"a\",\"time\":5")
                LINE(1, "invoke", "append", ",\"value\":7,\"time\":6")
                    LINE(1, "ok", "append", ",\"time\":7") "\n" LINE(
                        2, "invoke", "cas", ",\"value\":[\"a7\",\"c\"],\"time\":8")
                        LINE(2, "ok", "cas", ",\"time\":9") LINE(2, "invoke", "get",
                                                                 ",\"value\":null,\"time\":10")
                            LINE(2, "ok", "get", ",\"value\":\"c\",\"time\":11,\"extra\":{}")
                                LINE(2, "invoke", "delete", ",\"time\":12")
                                    LINE(2, "ok", "delete", ",\"time\":13")
                                        LINE(2, "invoke", "get", ",\"time\":14")
                                            LINE(2, "ok", "get", ",\"value\":null,\"time\":15"));
    assert_int_equal(lin_history_count(history), 6);
    const struct lin_op *ops = lin_history_sorted(history);
    assert_int_equal(ops[0].kind, LIN_PUT);
    assert_int_equal(ops[0].called_ns, 1);
    assert_int_equal(ops[0].returned_ns, 5);
    assert_int_equal(ops[0].line, 1);
    assert_int_equal(ops[1].argument.bytes.data[0], '7'); /* an integer is its digits */
    assert_int_equal(ops[2].kind, LIN_CAS);
    assert_int_equal(ops[2].line, 6); /* blank lines count */
    assert_int_equal(ops[2].observed.bytes.size, 2);
    assert_false(ops[5].observed.present);
    assert_int_equal(verdict(), LIN_LINEARIZABLE);
}

static void test_history_outcomes_mean_what_they_say(void **state)
{
    (void)state;
    /* A failed write is dropped: its value may not be read. */
    assert_reads(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":1")
                     LINE(1, "fail", "put", ",\"time\":2") LINE(1, "invoke", "get", ",\"time\":3")
                         LINE(1, "ok", "get", ",\"value\":\"a\",\"time\":4"));
    assert_int_equal(verdict(), LIN_BROKEN);
    /* One of unknown outcome may come after its info, and its process goes on. */
    assert_reads(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":1")
                     LINE(1, "info", "put", ",\"time\":2") LINE(1, "invoke", "get", ",\"time\":3")
                         LINE(1, "ok", "get", ",\"value\":null,\"time\":4")
                             LINE(1, "invoke", "get", ",\"time\":5")
                                 LINE(1, "ok", "get", ",\"value\":\"a\",\"time\":6"));
    assert_int_equal(verdict(), LIN_LINEARIZABLE);
    /* So may one that the history ends in. A get of unknown outcome says nothing. */
    assert_reads(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":1")
                     LINE(2, "invoke", "get", ",\"time\":3") LINE(2, "info", "get", ",\"time\":4")
                         LINE(2, "invoke", "get", ",\"time\":5")
                             LINE(2, "ok", "get", ",\"value\":\"a\",\"time\":6"));
    assert_int_equal(lin_history_count(history), 2);
    assert_int_equal(verdict(), LIN_LINEARIZABLE);
}

static void test_history_times_order_lines_and_may_be_left_out(void **state)
{
    (void)state;
    /* Merged from two recorders: the second process's lines come after, its times between. */
    assert_reads(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":1") LINE(
        1, "ok", "put", ",\"time\":2") LINE(1, "invoke", "put", ",\"value\":\"b\",\"time\":7")
                     LINE(1, "ok", "put", ",\"time\":8") LINE(2, "invoke", "get", ",\"time\":3")
                         LINE(2, "ok", "get", ",\"value\":\"a\",\"time\":4"));
    assert_int_equal(verdict(), LIN_LINEARIZABLE);
    assert_reads(LINE(1, "invoke", "put", ",\"value\":\"a\"") LINE(1, "ok", "put", "")
                     LINE(2, "invoke", "get", "") LINE(2, "ok", "get", ",\"value\":null"));
    assert_int_equal(verdict(), LIN_BROKEN);
    assert_refused(LINE(1, "invoke", "put", ",\"value\":\"a\"") LINE(1, "ok", "put", ",\"time\":4"),
                   "h:2: \"time\" is given here but not in the first event");
    assert_refused(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":4") LINE(1, "ok", "put", ""),
                   "h:2: \"time\" is missing");
    assert_refused(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":4")
                       LINE(1, "ok", "put", ",\"time\":3"),
                   "h:2: \"time\" is 3, but process 1 was at 4 already");
}

static void test_history_versions_are_read(void **state)
{
    (void)state;
    assert_reads(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":1")
                     LINE(1, "ok", "put", ",\"version\":3,\"time\":2") LINE(
                         1, "invoke", "cas", ",\"value\":[\"a\",\"b\"],\"expected\":3,\"time\":3")
                         LINE(1, "ok", "cas", ",\"version\":4,\"time\":4")
                             LINE(1, "invoke", "delete", ",\"time\":5")
                                 LINE(1, "ok", "delete", ",\"version\":0,\"time\":6"));
    const struct lin_op *ops = lin_history_sorted(history);
    assert_int_equal(ops[0].version, 3);
    assert_int_equal(ops[1].expected, 3);
    assert_int_equal(ops[1].version, 4);
    assert_int_equal(verdict(), LIN_LINEARIZABLE);
    /* A refused cas tells the version that is there: here of a key whose only write made another.
     */
    assert_reads(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":1")
                     LINE(1, "ok", "put", ",\"version\":3,\"time\":2") LINE(
                         1, "invoke", "cas", ",\"value\":[\"a\",\"b\"],\"expected\":2,\"time\":3")
                         LINE(1, "fail", "cas", ",\"version\":5,\"time\":4"));
    assert_int_equal(lin_history_count(history), 2);
    assert_int_equal(verdict(), LIN_BROKEN);
    assert_reads(LINE(1, "invoke", "cas", ",\"value\":[\"a\",\"b\"],\"expected\":2,\"time\":3")
                     LINE(1, "fail", "cas", ",\"version\":0,\"time\":4"));
    assert_int_equal(verdict(), LIN_LINEARIZABLE); /* absent, as it was */
    assert_refused(LINE(1, "invoke", "cas", ",\"value\":[null,\"b\"],\"expected\":2,\"time\":3"),
                   "0 goes with null");
    assert_refused(LINE(1, "invoke", "get", ",\"time\":3")
                       LINE(1, "ok", "get", ",\"value\":null,\"version\":2,\"time\":4"),
                   "0 goes with null");
    assert_refused(LINE(1, "invoke", "put", ",\"value\":\"a\",\"expected\":2,\"time\":3"),
                   "\"expected\" is for cas only");
    assert_refused(LINE(1, "invoke", "put", ",\"value\":\"a\",\"time\":3")
                       LINE(1, "ok", "put", ",\"version\":0,\"time\":4"),
                   "after put it is at least 1");
}

static void test_history_wrong_lines_name_line_and_remedy(void **state)
{
    (void)state;
    assert_refused("\n{\"process\":1,\n", "h:2: no JSON: ");
    assert_refused("[1]\n", "h:1: not an object; each line is {");
    assert_refused("{}\n", "\"process\" is missing");
    assert_refused("{\"process\":-1}\n", "\"process\" is not a whole number from 0 on");
    assert_refused("{\"process\":1}\n", "\"type\" is missing or no string; it must be invoke, ok");
    assert_refused(LINE(1, "done", "get", ""),
                   "\"type\" is \"done\"; it must be invoke, ok, fail or info");
    assert_refused(LINE(1, "invoke", "read", ""), "\"f\" is \"read\"; it must be get, put, append");
    assert_refused("{\"process\":1,\"type\":\"invoke\",\"f\":\"get\",\"key\":1}\n",
                   "\"key\" is missing or no");
    assert_refused("{\"process\":1,\"type\":\"invoke\",\"f\":\"get\",\"key\":\"\"}\n",
                   "\"key\" is empty");
    assert_refused(LINE(1, "invoke", "put", ""), "\"value\" of put is missing or null");
    assert_refused(LINE(1, "invoke", "put", ",\"value\":1.5"), "neither a string, nor an integer");
    assert_refused(LINE(1, "invoke", "cas", ",\"value\":\"a\""), "must be [from, to]");
    assert_refused(LINE(1, "invoke", "cas", ",\"value\":[\"a\",{}]"),
                   "the second of \"value\" is neither");
    assert_refused(LINE(1, "invoke", "get", "") LINE(1, "ok", "get", ""), "must say what it read");
    assert_refused(LINE(1, "invoke", "get", "") LINE(1, "invoke", "get", ""),
                   "h:2: process 1 calls while its get of line 1 has not returned");
    assert_refused(LINE(1, "ok", "get", ",\"value\":null"), "process 1 returns without a call");
    assert_refused(LINE(1, "invoke", "get", "") LINE(1, "ok", "put", ""),
                   "its open call is line 1, get of \"x\"");
    assert_refused("{\"process\":1,\"process\":1}\n", "h:1: no JSON: duplicate");
    assert_refused("\n\n", "no events");
}

static void test_history_any_bytes_survive_writing_and_reading(void **state)
{
    (void)state;
    uint8_t all[256];
    for (int i = 0; i < 256; i++) {
        all[i] = (uint8_t)i;
    }
    struct buf text;
    buf_init(&text);
    struct lin_event event = {.process = 3,
                              .type = LIN_INVOKE,
                              .kind = LIN_PUT,
                              .key = bytes_of(all, sizeof all),
                              .value = lin_value_of(all, sizeof all),
                              .time_ns = 1};
    lin_event_write(&event, &text);
    event.type = LIN_OK;
    event.has_version = true;
    event.version = 9;
    lin_event_write(&event, &text);
    assert_int_equal(read_text((const char *)text.data, text.size), ERR_OK);
    const struct lin_op *op = lin_history_sorted(history);
    /* Bytes from 0x80 on come back as the UTF-8 of their characters: other bytes, but each its own.
     */
    assert_int_equal(op->argument.bytes.size, 128 + 2 * 128);
    assert_memory_equal(op->argument.bytes.data, all, 128);
    assert_int_equal(op->version, 9);
    buf_deinit(&text);
}

static void test_history_text_and_memory_give_the_same(void **state)
{
    (void)state;
    struct lin_shape shape = {.seed = 5,
                              .ops = 500,
                              .keys = 3,
                              .clients = 7,
                              .put_percent = 20,
                              .append_percent = 20,
                              .delete_percent = 5,
                              .cas_percent = 20,
                              .info_per_mille = 50,
                              .versions = true,
                              .think_ns_max = NS_PER_MS};
    struct lin_made made;
    lin_made_init(&made, &shape);
    struct lin_history *direct = lin_history_create();
    lin_made_add_to(&made, direct);
    struct buf text;
    buf_init(&text);
    lin_made_write(&made, &text);
    assert_int_equal(read_text((const char *)text.data, text.size), ERR_OK);
    size_t count = lin_history_count(direct);
    assert_in_range(count, 400, 500);
    assert_int_equal(lin_history_count(history), count);
    const struct lin_op *a = lin_history_sorted(direct);
    const struct lin_op *b = lin_history_sorted(history);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(a[i].kind, b[i].kind);
        assert_int_equal(a[i].called_ns, b[i].called_ns);
        assert_int_equal(a[i].returned_ns, b[i].returned_ns);
        assert_int_equal(a[i].version, b[i].version);
        assert_int_equal(a[i].expected, b[i].expected);
        assert_int_equal(a[i].line, b[i].line);
        assert_true(bytes_equal(a[i].key, b[i].key));
        assert_true(lin_value_equal(a[i].argument, b[i].argument));
        assert_true(lin_value_equal(a[i].observed, b[i].observed));
    }
    lin_history_destroy(direct);
    lin_made_deinit(&made);
    buf_deinit(&text);
}

static void test_history_larger_than_the_limit_is_refused(void **state)
{
    (void)state;
    struct lin_shape shape = {.seed = 5, .ops = 20000, .keys = 3, .clients = 7, .put_percent = 20};
    struct lin_made made;
    lin_made_init(&made, &shape);
    struct buf text;
    buf_init(&text);
    lin_made_write(&made, &text);
    lin_history_destroy(history);
    history = lin_history_create();
    FILE *in = fmemopen(text.data, text.size, "r");
    assert_non_null(in);
    assert_int_equal(lin_history_read(in, "h", 1 << 20, history, message, sizeof message),
                     ERR_TOO_LARGE);
    assert_int_equal(fclose(in), 0);
    assert_in_range(lin_history_bytes(history), 1 << 20, 4 << 20);
    lin_made_deinit(&made);
    buf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_history_each_operation_is_read, end),
        cmocka_unit_test_teardown(test_history_outcomes_mean_what_they_say, end),
        cmocka_unit_test_teardown(test_history_times_order_lines_and_may_be_left_out, end),
        cmocka_unit_test_teardown(test_history_versions_are_read, end),
        cmocka_unit_test_teardown(test_history_wrong_lines_name_line_and_remedy, end),
        cmocka_unit_test_teardown(test_history_any_bytes_survive_writing_and_reading, end),
        cmocka_unit_test_teardown(test_history_text_and_memory_give_the_same, end),
        cmocka_unit_test_teardown(test_history_larger_than_the_limit_is_refused, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
