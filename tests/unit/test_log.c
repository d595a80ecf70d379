/* The log: shape of a line, what is escaped, what is cut, one write a line. */
#include "unit/base_test.h"

#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

struct capture {
    unsigned count;
    char last[8192];
};

static void keep(void *context, const char *line)
{
    struct capture *capture = context;
    capture->count++;
    snprintf(capture->last, sizeof(capture->last), "%s", line);
}

static int begin(void **state)
{
    static struct capture capture;
    capture.count = 0;
    capture.last[0] = '\0';
    log_set_sink(keep, &capture);
    log_set_level(LOG_INFO);
    log_set_context("");
    *state = &capture;
    return 0;
}

static int end(void **state)
{
    (void)state;
    log_set_sink(NULL, NULL);
    log_set_context("");
    log_set_level(LOG_INFO);
    return 0;
}

/* What stands behind the time, whose shape is checked: 2026-11-21T10:00:00.123Z */
static const char *after_time(const char *line)
{
    static const char shape[] = "0000-00-00T00:00:00.000Z ";
    for (size_t i = 0; shape[i] != '\0'; i++) {
        if (shape[i] == '0') {
            assert_in_range(line[i], '0', '9');
        } else {
            assert_int_equal(line[i], shape[i]);
        }
    }
    return line + sizeof(shape) - 1;
}

static void test_log_line_has_time_level_event_pairs(void **state)
{
    struct capture *capture = *state;
    log_event(LOG_WARN, "leader.lost", "term=%d reason=%s", 7, "quorum");
    assert_int_equal(capture->count, 1);
    assert_string_equal(after_time(capture->last), "warn leader.lost term=7 reason=quorum");
    log_event(LOG_ERROR, "stopped", "%s", "");
    assert_string_equal(after_time(capture->last), "error stopped");
}

static void test_log_context_stands_after_the_level(void **state)
{
    struct capture *capture = *state;
    log_set_context("node=1 group=100");
    log_event(LOG_INFO, "started", "port=%d", 5);
    assert_string_equal(after_time(capture->last), "info node=1 group=100 started port=5");
}

static void test_log_below_level_is_silent(void **state)
{
    struct capture *capture = *state;
    log_event(LOG_DEBUG, "request", "x=%d", 1);
    LOG_DBG("request", "x=%d", 1);
    assert_int_equal(capture->count, 0);
    assert_false(log_enabled(LOG_DEBUG));
    log_set_level(LOG_DEBUG);
    LOG_DBG("request", "x=%d", 1);
    assert_int_equal(capture->count, 1);
    log_set_level(LOG_ERROR);
    log_event(LOG_WARN, "warning", "x=%d", 1);
    assert_int_equal(capture->count, 1);
}

static void test_log_control_characters_cannot_forge_a_line(void **state)
{
    struct capture *capture = *state;
    log_event(LOG_INFO, "peer", "name=%s", "a\n2026 info forged x=1\r\t\x1b[31m\x7f");
    assert_string_equal(after_time(capture->last),
                        "info peer name=a\\n2026 info forged x=1\\x0d\\x09\\x1b[31m\\x7f");
    log_event(LOG_INFO, "peer", "name=%s", "Zürich");
    assert_string_equal(after_time(capture->last), "info peer name=Zürich");
}

static void test_log_long_line_is_cut_and_marked(void **state)
{
    struct capture *capture = *state;
    char value[6000];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    log_event(LOG_INFO, "long", "value=%s", value);
    size_t size = strlen(capture->last);
    assert_true(size < 4096);
    assert_string_equal(capture->last + size - 4, "v...");
    /* Escapes grow a line: they too are cut in whole pieces. */
    memset(value, '\x01', sizeof(value) - 1);
    log_event(LOG_INFO, "long", "value=%s", value);
    size = strlen(capture->last);
    assert_true(size < 4096);
    assert_string_equal(capture->last + size - 7, "\\x01...");
}

static void test_log_keeps_errno(void **state)
{
    (void)state;
    errno = ENOSPC;
    log_event(LOG_INFO, "write.failed", "errno=%d", errno);
    assert_int_equal(errno, ENOSPC);
}

static void test_log_level_parse_knows_four_words(void **state)
{
    (void)state;
    enum log_level level = LOG_INFO;
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_DEBUG);
    assert_true(log_level_parse("info", &level));
    assert_int_equal(level, LOG_INFO);
    assert_true(log_level_parse("warn", &level));
    assert_int_equal(level, LOG_WARN);
    assert_true(log_level_parse("error", &level));
    assert_int_equal(level, LOG_ERROR);
    assert_false(log_level_parse("warning", &level));
    assert_false(log_level_parse("", &level));
    assert_int_equal(level, LOG_ERROR);
}

static void test_log_rate_limit_lets_one_through_an_interval(void **state)
{
    (void)state;
    uint64_t last_ns = 0;
    assert_true(log_rate_limit(&last_ns, 0, 100)); /* a simulated clock may start at 0 */
    assert_false(log_rate_limit(&last_ns, 0, 100));
    assert_false(log_rate_limit(&last_ns, 99, 100));
    assert_true(log_rate_limit(&last_ns, 101, 100));
    assert_false(log_rate_limit(&last_ns, 200, 100));
    assert_true(log_rate_limit(&last_ns, 201, 100));
    assert_false(log_rate_limit(&last_ns, 150, 100));
}

#define LOG_THREADS 4
#define LOG_LINES   200

static void *log_many(void *context)
{
    const int *number = context;
    for (int i = 0; i < LOG_LINES; i++) {
        log_event(LOG_INFO, "line", "thread=%d tail=%s", *number, "end");
    }
    return NULL;
}

static void log_from_threads(void *context)
{
    (void)context;
    log_set_sink(NULL, NULL);
    pthread_t threads[LOG_THREADS];
    int numbers[LOG_THREADS];
    for (int i = 0; i < LOG_THREADS; i++) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, log_many, &numbers[i]) != 0) {
            _exit(1);
        }
    }
    for (int i = 0; i < LOG_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void test_log_threads_write_whole_lines_to_standard_error(void **state)
{
    (void)state;
    static char text[LOG_THREADS * LOG_LINES * 100];
    int status = child_run(log_from_threads, NULL, text, sizeof(text));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    unsigned lines = 0;
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line != NULL && *line != '\0';
         line = strsep(&rest, "\n")) {
        const char *tail = after_time(line);
        int thread = -1;
        char ending[8] = "";
        assert_int_equal(sscanf(tail, "info line thread=%d tail=%7s", &thread, ending), 2);
        assert_in_range(thread, 0, LOG_THREADS - 1);
        assert_string_equal(ending, "end");
        lines++;
    }
    assert_int_equal(lines, LOG_THREADS * LOG_LINES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_log_line_has_time_level_event_pairs, begin, end),
        cmocka_unit_test_setup_teardown(test_log_context_stands_after_the_level, begin, end),
        cmocka_unit_test_setup_teardown(test_log_below_level_is_silent, begin, end),
        cmocka_unit_test_setup_teardown(test_log_control_characters_cannot_forge_a_line, begin,
                                        end),
        cmocka_unit_test_setup_teardown(test_log_long_line_is_cut_and_marked, begin, end),
        cmocka_unit_test_setup_teardown(test_log_keeps_errno, begin, end),
        cmocka_unit_test_setup_teardown(test_log_level_parse_knows_four_words, begin, end),
        cmocka_unit_test_setup_teardown(test_log_rate_limit_lets_one_through_an_interval, begin,
                                        end),
        cmocka_unit_test_setup_teardown(test_log_threads_write_whole_lines_to_standard_error, begin,
                                        end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
