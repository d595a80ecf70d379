/* Flags: every kind, every way to give it, and what a person is told about a bad one. */
#include "unit/base_test.h"

#include "base/clock.h"
#include "base/flags.h"

static struct settings {
    bool tls;
    uint64_t group;
    const char *listen;
    uint64_t timeout_ns;
    uint64_t segment_bytes;
} settings;

static const struct flag flag_rows[] = {
    {.name = "tls",
     .kind = FLAG_BOOL,
     .value = &settings.tls,
     .environment = "SKVT_TLS",
     .help = "Whether to encrypt."},
    {.name = "group",
     .kind = FLAG_UINT,
     .value = &settings.group,
     .min = 1,
     .max = 100,
     .required = true,
     .environment = "SKVT_GROUP",
     .placeholder = "N",
     .help = "The group."},
    {.name = "listen",
     .kind = FLAG_STRING,
     .value = &settings.listen,
     .placeholder = "ADDR",
     .help = "Where to listen."},
    {.name = "election-timeout",
     .kind = FLAG_DURATION,
     .value = &settings.timeout_ns,
     .min = 10 * NS_PER_MS,
     .max = 60 * NS_PER_S,
     .placeholder = "TIME",
     .help = "How long."},
    {.name = "segment-size",
     .kind = FLAG_BYTES,
     .value = &settings.segment_bytes,
     .placeholder = "SIZE",
     .help = "How large."},
};
static const struct flag_set flag_table = {
    .program = "shardkv",
    .summary = "a replica",
    .usage = "KEY [VALUE]",
    .details = "More words.",
    .flags = flag_rows,
    .count = sizeof(flag_rows) / sizeof(flag_rows[0]),
};

#define ARGUMENTS_MAX 16
static char message[256];
static char *words[ARGUMENTS_MAX];
static int word_count;

/* The arguments end with NULL. */
static int parse(const char *first, ...)
{
    char *argv[ARGUMENTS_MAX] = {"shardkv"};
    int argc = 1;
    va_list arguments;
    va_start(arguments, first);
    for (const char *at = first; at != NULL; at = va_arg(arguments, const char *)) {
        assert_true(argc < ARGUMENTS_MAX);
        argv[argc++] = (char *)(uintptr_t)at;
    }
    va_end(arguments);
    return flags_parse(&flag_table, argc, argv, words, &word_count, message, sizeof(message));
}

static int begin(void **state)
{
    (void)state;
    settings = (struct settings){false, 1, "127.0.0.1:7000", NS_PER_S, 64u << 20};
    unsetenv("SKVT_TLS");
    unsetenv("SKVT_GROUP");
    message[0] = '\0';
    word_count = -1;
    return 0;
}

static void test_flags_each_kind_is_read(void **state)
{
    (void)state;
    assert_int_equal(parse("--tls", "--group=7", "--listen", "0.0.0.0:1",
                           "--election-timeout=250ms", "--segment-size", "8MiB", NULL),
                     ERR_OK);
    assert_true(settings.tls);
    assert_int_equal(settings.group, 7);
    assert_string_equal(settings.listen, "0.0.0.0:1");
    assert_int_equal(settings.timeout_ns, 250 * NS_PER_MS);
    assert_int_equal(settings.segment_bytes, 8u << 20);
    assert_int_equal(word_count, 0);
}

static void test_flags_not_given_keeps_the_default(void **state)
{
    (void)state;
    assert_int_equal(parse("--group=7", NULL), ERR_OK);
    assert_false(settings.tls);
    assert_int_equal(settings.timeout_ns, NS_PER_S);
    assert_string_equal(settings.listen, "127.0.0.1:7000");
}

static void test_flags_bool_has_three_spellings(void **state)
{
    (void)state;
    assert_int_equal(parse("--group=7", "--tls=true", NULL), ERR_OK);
    assert_true(settings.tls);
    assert_int_equal(parse("--group=7", "--no-tls", NULL), ERR_OK);
    assert_false(settings.tls);
    settings.tls = true;
    assert_int_equal(parse("--group=7", "--tls=false", NULL), ERR_OK);
    assert_false(settings.tls);
    assert_int_equal(parse("--group=7", "--tls=yes", NULL), ERR_INVALID);
    assert_string_equal(message, "--tls=yes: must be true or false");
    assert_int_equal(parse("--group=7", "--no-tls=true", NULL), ERR_INVALID);
    assert_int_equal(parse("--no-group", NULL), ERR_INVALID);
    assert_string_equal(message, "--no-group: only --no-group without a value turns a switch off");
}

static void test_flags_words_may_stand_anywhere(void **state)
{
    (void)state;
    assert_int_equal(parse("put", "--group", "7", "key", "-", "--", "--tls", "-x", NULL), ERR_OK);
    assert_int_equal(word_count, 5);
    assert_string_equal(words[0], "put");
    assert_string_equal(words[1], "key");
    assert_string_equal(words[2], "-");
    assert_string_equal(words[3], "--tls");
    assert_string_equal(words[4], "-x");
    assert_false(settings.tls);
}

static void test_flags_given_twice_the_last_holds(void **state)
{
    (void)state;
    assert_int_equal(parse("--group=7", "--group=8", NULL), ERR_OK);
    assert_int_equal(settings.group, 8);
}

static void test_flags_bad_value_says_what_would_be_right(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"--group=x", "--group=x: must be a decimal number"},
        {"--group=-1", "--group=-1: must be a decimal number"},
        {"--group= 1", "--group= 1: must be a decimal number"},
        {"--group=", "--group=: must be a decimal number"},
        {"--group=0", "--group=0: must be from 1 to 100"},
        {"--group=101", "--group=101: must be from 1 to 100"},
        {"--group=18446744073709551617", "--group=18446744073709551617: must be a decimal number"},
        {"--election-timeout=5", "--election-timeout=5: must be a number with a unit, such as "
                                 "250ms, 10s, 5m or 1h"},
        {"--election-timeout=9ms", "--election-timeout=9ms: must be from 10ms to 1m"},
        {"--election-timeout=2h", "--election-timeout=2h: must be from 10ms to 1m"},
        {"--segment-size=5MB", "--segment-size=5MB: must be a number of bytes, such as 4096, "
                               "64KiB, 8MiB or 1GiB"},
        {"-v", "-v: flags start with two dashes; put -- before words that start with one"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin(state);
        assert_int_equal(parse("--group=5", cases[i][0], NULL), ERR_INVALID);
        assert_string_equal(message, cases[i][1]);
        assert_int_equal(settings.timeout_ns, NS_PER_S);
        assert_int_equal(settings.segment_bytes, 64u << 20);
    }
}

static void test_flags_without_value_is_refused(void **state)
{
    (void)state;
    assert_int_equal(parse("--group", NULL), ERR_INVALID);
    assert_string_equal(message, "--group: needs a value: a decimal number");
    assert_int_equal(parse("--listen", "--group=1", NULL), ERR_INVALID);
    assert_string_equal(message, "--listen: needs a value: text");
}

static void test_flags_unknown_suggests_the_nearest(void **state)
{
    (void)state;
    assert_int_equal(parse("--gruop=1", NULL), ERR_INVALID);
    assert_string_equal(message, "unknown flag --gruop; did you mean --group?");
    assert_int_equal(parse("--election-timout", "1s", NULL), ERR_INVALID);
    assert_string_equal(message,
                        "unknown flag --election-timout; did you mean --election-timeout?");
    assert_int_equal(parse("--frobnicate", NULL), ERR_INVALID);
    assert_string_equal(message, "unknown flag --frobnicate; see shardkv --help");
    /* No abbreviations: a flag added later must not change what a script says. */
    assert_int_equal(parse("--gro=1", NULL), ERR_INVALID);
    char longest[300] = "--";
    memset(longest + 2, 'x', sizeof(longest) - 3);
    assert_int_equal(parse(longest, NULL), ERR_INVALID);
    assert_memory_equal(message, "unknown flag --xxx", 18);
}

static void test_flags_required_missing_names_flag_and_variable(void **state)
{
    (void)state;
    assert_int_equal(parse("--tls", NULL), ERR_INVALID);
    assert_string_equal(
        message, "--group=N is required (or the environment variable SKVT_GROUP): The group.");
}

static void test_flags_environment_fills_what_is_not_given(void **state)
{
    (void)state;
    setenv("SKVT_GROUP", "9", 1);
    setenv("SKVT_TLS", "true", 1);
    assert_int_equal(parse(NULL), ERR_OK);
    assert_int_equal(settings.group, 9);
    assert_true(settings.tls);
    assert_int_equal(parse("--group=3", "--no-tls", NULL),
                     ERR_OK); /* the command line is stronger */
    assert_int_equal(settings.group, 3);
    assert_false(settings.tls);
    setenv("SKVT_GROUP", "many", 1);
    assert_int_equal(parse(NULL), ERR_INVALID);
    assert_string_equal(message, "SKVT_GROUP=many: must be a decimal number");
    setenv("SKVT_GROUP", "", 1); /* empty is not given */
    assert_int_equal(parse(NULL), ERR_INVALID);
    assert_memory_equal(message, "--group=N is required", 21);
}

static void test_flags_help_wins_and_shows_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse("--election-timeout=5s", "--bogus", "--help", NULL), ERR_EXISTS);
    assert_int_equal(settings.timeout_ns, NS_PER_S); /* nothing was parsed before it */
    assert_int_equal(parse("--", "--help", NULL), ERR_INVALID);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    flags_help(&flag_table, out);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, "shardkv: a replica\n"
                              "\n"
                              "Usage: shardkv [FLAGS] KEY [VALUE]\n"
                              "\n"
                              "Flags:\n"
                              "  --tls, --no-tls\n"
                              "        Whether to encrypt. (default off; environment SKVT_TLS)\n"
                              "  --group=N\n"
                              "        The group. (required; environment SKVT_GROUP)\n"
                              "  --listen=ADDR\n"
                              "        Where to listen. (default 127.0.0.1:7000)\n"
                              "  --election-timeout=TIME\n"
                              "        How long. (default 1s, from 10ms to 1m)\n"
                              "  --segment-size=SIZE\n"
                              "        How large. (default 64MiB)\n"
                              "  --help\n"
                              "        Shows this text.\n"
                              "\n"
                              "More words.\n");
    free(text);
}

static void test_flags_long_help_is_wrapped(void **state)
{
    (void)state;
    char help[512] = "";
    for (int i = 0; i < 50; i++) {
        strcat(help, "seven77 ");
    }
    bool value = true;
    const struct flag flag = {.name = "x", .kind = FLAG_BOOL, .value = &value, .help = help};
    const struct flag_set set = {"p", "s", "", NULL, &flag, 1};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    flags_help(&set, out);
    assert_int_equal(fclose(out), 0);
    size_t column = 0;
    size_t longest = 0;
    for (size_t i = 0; i < size; i++) {
        column = text[i] == '\n' ? 0 : column + 1;
        longest = column > longest ? column : longest;
    }
    assert_in_range(longest, 90, 100);
    free(text);
}

static void test_parse_duration_knows_units_and_overflow(void **state)
{
    (void)state;
    uint64_t value = 77;
    assert_int_equal(parse_duration_ns("5m", &value), ERR_OK);
    assert_int_equal(value, 300 * NS_PER_S);
    assert_int_equal(parse_duration_ns("1h", &value), ERR_OK);
    assert_int_equal(value, 3600 * NS_PER_S);
    assert_int_equal(parse_duration_ns("3us", &value), ERR_OK);
    assert_int_equal(value, 3000);
    assert_int_equal(parse_duration_ns("0", &value), ERR_OK);
    assert_int_equal(value, 0);
    value = 77;
    static const char *const bad[] = {"", "5", "ms", "1.5s", "-1s", "5 s", "5S", "6000000h", "5sx"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse_duration_ns(bad[i], &value), ERR_INVALID);
        assert_int_equal(value, 77);
    }
}

static void test_parse_size_knows_units_and_overflow(void **state)
{
    (void)state;
    uint64_t value = 77;
    assert_int_equal(parse_size_bytes("4096", &value), ERR_OK);
    assert_int_equal(value, 4096);
    assert_int_equal(parse_size_bytes("64KiB", &value), ERR_OK);
    assert_int_equal(value, 65536);
    assert_int_equal(parse_size_bytes("1GiB", &value), ERR_OK);
    assert_int_equal(value, 1u << 30);
    assert_int_equal(parse_size_bytes("16777215TiB", &value), ERR_OK);
    value = 77;
    static const char *const bad[] = {"", "KiB", "1KB", "1k", "16777216TiB", "-1", "0x10"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse_size_bytes(bad[i], &value), ERR_INVALID);
        assert_int_equal(value, 77);
    }
}

static void test_parse_address_wants_host_and_port(void **state)
{
    (void)state;
    static const char *const good[] = {"localhost:1", "127.0.0.1:65535", "[::1]:7000",
                                       "a-b.example.com:80", "kv_1:80"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(parse_address(good[i]), ERR_OK);
        assert_int_equal(parse_listen_address(good[i]), ERR_OK);
    }
    static const char *const bad[] = {"",         "localhost", ":80",    "localhost:", "host:65536",
                                      "host:-1",  "host:x",    "::1:80", "[::1]",      "[::1:80",
                                      "[nope]:1", "[]:1",      "a b:80", "a/b:80",     "host:1:2"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(parse_address(bad[i]), ERR_INVALID);
        assert_int_equal(parse_listen_address(bad[i]), ERR_INVALID);
    }
    assert_int_equal(parse_address("127.0.0.1:0"), ERR_INVALID);
    assert_int_equal(parse_listen_address("127.0.0.1:0"), ERR_OK);
}

static void test_flags_required_text_is_not_empty(void **state)
{
    (void)state;
    static const char *name;
    static const struct flag rows[] = {
        {"cluster", FLAG_STRING, &name, 0, 0, true, NULL, "NAME", "whose it is"}};
    const struct flag_set set = {"x", "y", "", NULL, rows, 1};
    char *argv[] = {"x", "--cluster=", NULL};
    char *positional[3];
    int count = 0;
    char text[200];
    assert_int_equal(flags_parse(&set, 2, argv, positional, &count, text, sizeof text),
                     ERR_INVALID);
    assert_string_equal(text, "--cluster=: must not be empty: whose it is");
    assert_null(name);
}

static void test_flags_largest_number_is_no_bound_to_read(void **state)
{
    (void)state;
    static uint64_t line = 1;
    static const struct flag rows[] = {
        {"from-line", FLAG_UINT, &line, 1, UINT64_MAX, false, NULL, "N", "Where to begin."}};
    const struct flag_set set = {"x", "y", "", NULL, rows, 1};
    char *argv[] = {"x", "--from-line=0", NULL};
    char *positional[3];
    int count = 0;
    char message_text[200];
    assert_int_equal(
        flags_parse(&set, 2, argv, positional, &count, message_text, sizeof message_text),
        ERR_INVALID);
    assert_string_equal(message_text, "--from-line=0: must be at least 1");
    char *help = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&help, &size);
    assert_non_null(out);
    flags_help(&set, out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(help, "(default 1, at least 1)"));
    assert_null(strstr(help, "18446744073709551615"));
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_flags_each_kind_is_read, begin),
        cmocka_unit_test_setup(test_flags_not_given_keeps_the_default, begin),
        cmocka_unit_test_setup(test_flags_bool_has_three_spellings, begin),
        cmocka_unit_test_setup(test_flags_words_may_stand_anywhere, begin),
        cmocka_unit_test_setup(test_flags_given_twice_the_last_holds, begin),
        cmocka_unit_test_setup(test_flags_required_text_is_not_empty, begin),
        cmocka_unit_test_setup(test_flags_largest_number_is_no_bound_to_read, begin),
        cmocka_unit_test_setup(test_flags_bad_value_says_what_would_be_right, begin),
        cmocka_unit_test_setup(test_flags_without_value_is_refused, begin),
        cmocka_unit_test_setup(test_flags_unknown_suggests_the_nearest, begin),
        cmocka_unit_test_setup(test_flags_required_missing_names_flag_and_variable, begin),
        cmocka_unit_test_setup(test_flags_environment_fills_what_is_not_given, begin),
        cmocka_unit_test_setup(test_flags_help_wins_and_shows_defaults, begin),
        cmocka_unit_test_setup(test_flags_long_help_is_wrapped, begin),
        cmocka_unit_test(test_parse_duration_knows_units_and_overflow),
        cmocka_unit_test(test_parse_size_knows_units_and_overflow),
        cmocka_unit_test(test_parse_address_wants_host_and_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
