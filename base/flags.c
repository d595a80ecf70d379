/* Command-line flags from a table.
 *
 * Parsed by hand, not with getopt_long(): that one keeps its place in globals, accepts
 * abbreviations (so that a new flag could break a script) and words its own errors. Thread: main,
 * before others start. The order of strength is command line, environment, default. Nothing is
 * allocated but one array for the length of the call. */
#include "base/flags.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FLAG_NAME_BYTES_MAX  64
#define FLAG_VALUE_TEXT_MAX  64
#define FLAG_BOUNDS_TEXT_MAX (2 * FLAG_VALUE_TEXT_MAX + 16)
#define HOST_NAME_BYTES_MAX  253 /* RFC 1035 2.3.4, without the final dot */
#define PORT_MAX             65535u
#define HELP_COLUMNS_MAX     100
#define HELP_COLUMN_INDENT   8

struct unit {
    const char *suffix;
    uint64_t factor;
};

static const struct unit duration_units[] = {
    {"h", 3600 * NS_PER_S}, {"m", 60 * NS_PER_S}, {"s", NS_PER_S},
    {"ms", NS_PER_MS},      {"us", NS_PER_US},    {"ns", 1},
};
static const struct unit size_units[] = {
    {"TiB", 1ull << 40}, {"GiB", 1ull << 30}, {"MiB", 1ull << 20}, {"KiB", 1ull << 10}, {"B", 1},
};
#define UNIT_COUNT(units) (sizeof(units) / sizeof((units)[0]))

/* --- Single values --- */

/* The decimal number at *text, which is moved behind it. No sign, no space, no overflow. */
static int take_digits(const char **text, uint64_t *out)
{
    const char *at = *text;
    uint64_t value = 0;
    if (!isdigit((unsigned char)*at)) {
        return ERR_INVALID;
    }
    for (; isdigit((unsigned char)*at); at++) {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value)) {
            return ERR_INVALID;
        }
    }
    *text = at;
    *out = value;
    return ERR_OK;
}

int parse_uint(const char *text, uint64_t *out)
{
    uint64_t value;
    int error = take_digits(&text, &value);
    if (error != ERR_OK || *text != '\0') {
        return ERR_INVALID;
    }
    *out = value;
    return ERR_OK;
}

static int parse_with_unit(const char *text, const struct unit *units, size_t unit_count,
                           uint64_t *out)
{
    uint64_t value;
    if (take_digits(&text, &value) != ERR_OK) {
        return ERR_INVALID;
    }
    for (size_t i = 0; i < unit_count; i++) {
        if (strcmp(text, units[i].suffix) == 0) {
            if (__builtin_mul_overflow(value, units[i].factor, &value)) {
                return ERR_INVALID;
            }
            *out = value;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

int parse_duration_ns(const char *text, uint64_t *out)
{
    if (strcmp(text, "0") == 0) { /* nothing is nothing in any unit */
        *out = 0;
        return ERR_OK;
    }
    return parse_with_unit(text, duration_units, UNIT_COUNT(duration_units), out);
}

int parse_size_bytes(const char *text, uint64_t *out)
{
    if (parse_uint(text, out) == ERR_OK) {
        return ERR_OK;
    }
    return parse_with_unit(text, size_units, UNIT_COUNT(size_units), out);
}

static bool host_name_is_valid(const char *host, size_t size)
{
    if (size == 0 || size > HOST_NAME_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)host[i];
        if (!isalnum(c) && c != '.' && c != '-' && c != '_') {
            return false;
        }
    }
    return true;
}

static bool host_v6_is_valid(const char *host, size_t size)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (size >= sizeof(text)) {
        return false;
    }
    memcpy(text, host, size);
    text[size] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1;
}

static int parse_host_port(const char *text, uint64_t port_min)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL) {
        return ERR_INVALID;
    }
    size_t host_size = (size_t)(colon - text);
    bool bracketed = host_size >= 2 && text[0] == '[' && text[host_size - 1] == ']';
    bool host_valid =
        bracketed ? host_v6_is_valid(text + 1, host_size - 2) : host_name_is_valid(text, host_size);
    uint64_t port;
    if (!host_valid || parse_uint(colon + 1, &port) != ERR_OK) {
        return ERR_INVALID;
    }
    return port >= port_min && port <= PORT_MAX ? ERR_OK : ERR_INVALID;
}

int parse_address(const char *text)
{
    return parse_host_port(text, 1);
}

int parse_listen_address(const char *text)
{
    return parse_host_port(text, 0);
}

/* --- Values as text --- */

/* The largest unit that divides the value, so that 10s is not shown as 10000000000ns. */
static void unit_text(char out[FLAG_VALUE_TEXT_MAX], uint64_t value, const struct unit *units,
                      size_t unit_count)
{
    size_t chosen = unit_count - 1;
    for (size_t i = 0; i < unit_count && value != 0; i++) {
        if (value % units[i].factor == 0) {
            chosen = i;
            break;
        }
    }
    const char *suffix = value == 0 ? "" : units[chosen].suffix;
    snprintf(out, FLAG_VALUE_TEXT_MAX, "%" PRIu64 "%s", value / units[chosen].factor, suffix);
}

static void number_text(char out[FLAG_VALUE_TEXT_MAX], enum flag_kind kind, uint64_t value)
{
    if (kind == FLAG_DURATION) {
        unit_text(out, value, duration_units, UNIT_COUNT(duration_units));
    } else if (kind == FLAG_BYTES) {
        unit_text(out, value, size_units, UNIT_COUNT(size_units));
    } else {
        snprintf(out, FLAG_VALUE_TEXT_MAX, "%" PRIu64, value);
    }
}

/* "from 1 to 10"; the largest number there is is no bound that anyone wants to read. */
static void bounds_text(char out[FLAG_BOUNDS_TEXT_MAX], const struct flag *flag)
{
    char low[FLAG_VALUE_TEXT_MAX];
    char high[FLAG_VALUE_TEXT_MAX];
    number_text(low, flag->kind, flag->min);
    number_text(high, flag->kind, flag->max);
    if (flag->max == UINT64_MAX) {
        snprintf(out, FLAG_BOUNDS_TEXT_MAX, "at least %s", low);
    } else {
        snprintf(out, FLAG_BOUNDS_TEXT_MAX, "from %s to %s", low, high);
    }
}

static const char *kind_wants(enum flag_kind kind)
{
    switch (kind) {
    case FLAG_BOOL:
        return "true or false";
    case FLAG_UINT:
        return "a decimal number";
    case FLAG_STRING:
        return "text";
    case FLAG_DURATION:
        return "a number with a unit, such as 250ms, 10s, 5m or 1h";
    case FLAG_BYTES:
        return "a number of bytes, such as 4096, 64KiB, 8MiB or 1GiB";
    }
    UNREACHABLE();
}

/* --- Parsing --- */

/* Where an error is told: what the caller gave us. */
struct complaint {
    char *message;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static int complain(struct complaint complaint,
                                                          const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(complaint.message, complaint.size, format, arguments);
    va_end(arguments);
    return ERR_INVALID;
}

static int parse_number(enum flag_kind kind, const char *text, uint64_t *out)
{
    if (kind == FLAG_DURATION) {
        return parse_duration_ns(text, out);
    }
    return kind == FLAG_BYTES ? parse_size_bytes(text, out) : parse_uint(text, out);
}

static bool flag_in_bounds(const struct flag *flag, uint64_t value)
{
    return (flag->min == 0 && flag->max == 0) || (value >= flag->min && value <= flag->max);
}

/* Puts `text` into the flag's value. `source` is how the person gave it: "--name" or "NAME" of the
 * environment. */
static int flag_set_value(const struct flag *flag, const char *source, const char *text,
                          struct complaint complaint)
{
    if (flag->kind == FLAG_STRING) {
        if (flag->required && text[0] == '\0') {
            return complain(complaint, "%s=: must not be empty: %s", source, flag->help);
        }
        *(const char **)flag->value = text;
        return ERR_OK;
    }
    if (flag->kind == FLAG_BOOL) {
        bool yes = strcmp(text, "true") == 0;
        if (!yes && strcmp(text, "false") != 0) {
            return complain(complaint, "%s=%s: must be %s", source, text, kind_wants(flag->kind));
        }
        *(bool *)flag->value = yes;
        return ERR_OK;
    }
    uint64_t value;
    if (parse_number(flag->kind, text, &value) != ERR_OK) {
        return complain(complaint, "%s=%s: must be %s", source, text, kind_wants(flag->kind));
    }
    if (!flag_in_bounds(flag, value)) {
        char bounds[FLAG_BOUNDS_TEXT_MAX];
        bounds_text(bounds, flag);
        return complain(complaint, "%s=%s: must be %s", source, text, bounds);
    }
    *(uint64_t *)flag->value = value;
    return ERR_OK;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance of two names; one row is kept, and what is longer than a name may be is
 * far from all. */
static size_t edit_distance(const char *a, size_t a_size, const char *b)
{
    size_t b_size = strlen(b);
    if (a_size > FLAG_NAME_BYTES_MAX || b_size > FLAG_NAME_BYTES_MAX) {
        return SIZE_MAX;
    }
    size_t row[FLAG_NAME_BYTES_MAX + 1];
    for (size_t j = 0; j <= b_size; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = min_size(replaced, min_size(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_size];
}

static int complain_unknown(const struct flag_set *set, const char *name, size_t name_size,
                            struct complaint complaint)
{
    const char *nearest = NULL;
    size_t nearest_distance = SIZE_MAX;
    for (size_t i = 0; i < set->count; i++) {
        size_t distance = edit_distance(name, name_size, set->flags[i].name);
        if (distance < nearest_distance) {
            nearest_distance = distance;
            nearest = set->flags[i].name;
        }
    }
    /* A third of the name wrong is a slip; more is another word, for which a guess would only
     * confuse. */
    if (nearest != NULL && nearest_distance <= 1 + name_size / 3) {
        return complain(complaint, "unknown flag --%.*s; did you mean --%s?", (int)name_size, name,
                        nearest);
    }
    return complain(complaint, "unknown flag --%.*s; see %s --help", (int)name_size, name,
                    set->program);
}

static const struct flag *flag_find(const struct flag_set *set, const char *name, size_t size)
{
    for (size_t i = 0; i < set->count; i++) {
        if (strlen(set->flags[i].name) == size && memcmp(set->flags[i].name, name, size) == 0) {
            return &set->flags[i];
        }
    }
    return NULL;
}

/* One "--..." argument; `next` is the argument behind it or NULL. *used_next tells whether it was
 * the value. */
static int flag_parse_one(const struct flag_set *set, const char *argument, const char *next,
                          bool *given, bool *used_next, struct complaint complaint)
{
    const char *name = argument + 2;
    const char *equals = strchr(name, '=');
    size_t name_size = equals == NULL ? strlen(name) : (size_t)(equals - name);
    const char *text = equals == NULL ? NULL : equals + 1;
    *used_next = false;

    const struct flag *flag = flag_find(set, name, name_size);
    if (flag == NULL && name_size > 3 && strncmp(name, "no-", 3) == 0) {
        flag = flag_find(set, name + 3, name_size - 3);
        if (flag != NULL && (flag->kind != FLAG_BOOL || text != NULL)) {
            return complain(complaint, "%s: only --no-%s without a value turns a switch off",
                            argument, flag->name);
        }
        text = "false";
    }
    if (flag == NULL) {
        return complain_unknown(set, name, name_size, complaint);
    }
    if (text == NULL && flag->kind == FLAG_BOOL) {
        text = "true";
    } else if (text == NULL) {
        if (next == NULL || strncmp(next, "--", 2) == 0) {
            return complain(complaint, "--%s: needs a value: %s", flag->name,
                            kind_wants(flag->kind));
        }
        text = next;
        *used_next = true;
    }
    char source[FLAG_NAME_BYTES_MAX + 3];
    snprintf(source, sizeof(source), "--%s", flag->name);
    given[flag - set->flags] = true;
    return flag_set_value(flag, source, text, complaint);
}

/* For every flag that the command line did not give: the environment, or a complaint if it is
 * required. */
static int flags_fill_rest(const struct flag_set *set, const bool *given,
                           struct complaint complaint)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct flag *flag = &set->flags[i];
        if (given[i]) {
            continue;
        }
        const char *text = flag->environment == NULL ? NULL : getenv(flag->environment);
        if (text != NULL && text[0] != '\0') {
            int error = flag_set_value(flag, flag->environment, text, complaint);
            if (error != ERR_OK) {
                return error;
            }
        } else if (flag->required) {
            return complain(complaint, "--%s=%s is required%s%s%s: %s", flag->name,
                            flag->placeholder == NULL ? "VALUE" : flag->placeholder,
                            flag->environment == NULL ? "" : " (or the environment variable ",
                            flag->environment == NULL ? "" : flag->environment,
                            flag->environment == NULL ? "" : ")", flag->help);
        }
    }
    return ERR_OK;
}

/* Looked for before anything is parsed, because help shows the values as defaults. */
static bool help_is_asked(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return true;
        }
    }
    return false;
}

int flags_parse(const struct flag_set *set, int argc, char **argv, char **positional,
                int *positional_count, char *message, size_t message_size)
{
    ASSERT_CMP(message_size, >, 0);
    struct complaint complaint = {message, message_size};
    message[0] = '\0';
    *positional_count = 0;
    if (help_is_asked(argc, argv)) {
        return ERR_EXISTS;
    }
    bool *given = mem_calloc(set->count, sizeof(given[0]));
    bool flags_ended = false;
    int error = ERR_OK;
    for (int i = 1; i < argc && error == ERR_OK; i++) {
        char *argument = argv[i];
        bool dashed = argument[0] == '-' && argument[1] != '\0'; /* "-" alone is a word */
        if (flags_ended || !dashed) {
            positional[(*positional_count)++] = argument;
        } else if (strcmp(argument, "--") == 0) {
            flags_ended = true;
        } else if (argument[1] != '-') {
            error = complain(complaint,
                             "%s: flags start with two dashes; put -- before words that start with "
                             "one",
                             argument);
        } else {
            bool used_next;
            const char *next = i + 1 < argc ? argv[i + 1] : NULL;
            error = flag_parse_one(set, argument, next, given, &used_next, complaint);
            i += used_next ? 1 : 0;
        }
    }
    if (error == ERR_OK) {
        error = flags_fill_rest(set, given, complaint);
    }
    free(given);
    return error;
}

/* --- Help --- */

/* `text` in lines of at most HELP_COLUMNS_MAX, broken between words, each indented. */
static void help_wrap(FILE *out, const char *text, size_t indent)
{
    size_t column = 0;
    while (*text != '\0') {
        size_t word = strcspn(text, " ");
        if (column > 0 && column + 1 + word > HELP_COLUMNS_MAX) {
            fputc('\n', out);
            column = 0;
        }
        if (column == 0) {
            fprintf(out, "%*s", (int)indent, "");
            column = indent;
        } else {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, word, out);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void help_add_default(struct buf *line, const struct flag *flag)
{
    char number[FLAG_VALUE_TEXT_MAX];
    char bounds[FLAG_BOUNDS_TEXT_MAX];
    switch (flag->kind) {
    case FLAG_BOOL:
        buf_printf(line, "default %s", *(const bool *)flag->value ? "on" : "off");
        return;
    case FLAG_STRING: {
        const char *text = *(const char *const *)flag->value;
        buf_printf(line, "default %s", text == NULL || text[0] == '\0' ? "none" : text);
        return;
    }
    case FLAG_UINT:
    case FLAG_DURATION:
    case FLAG_BYTES:
        number_text(number, flag->kind, *(const uint64_t *)flag->value);
        buf_printf(line, "default %s", number);
        if (flag->min != 0 || flag->max != 0) {
            bounds_text(bounds, flag);
            buf_printf(line, ", %s", bounds);
        }
        return;
    }
    UNREACHABLE();
}

static void help_flag(const struct flag *flag, FILE *out)
{
    if (flag->kind == FLAG_BOOL) {
        fprintf(out, "  --%s, --no-%s\n", flag->name, flag->name);
    } else {
        fprintf(out, "  --%s=%s\n", flag->name,
                flag->placeholder == NULL ? "VALUE" : flag->placeholder);
    }
    struct buf line;
    buf_init(&line);
    buf_printf(&line, "%s (", flag->help);
    if (flag->required) {
        buf_printf(&line, "required");
    } else {
        help_add_default(&line, flag);
    }
    if (flag->environment != NULL) {
        buf_printf(&line, "; environment %s", flag->environment);
    }
    buf_append(&line, ")", sizeof(")"));
    help_wrap(out, (const char *)line.data, HELP_COLUMN_INDENT);
    buf_deinit(&line);
}

void flags_help(const struct flag_set *set, FILE *out)
{
    fprintf(out, "%s: %s\n\n", set->program, set->summary);
    fprintf(out, "Usage: %s [FLAGS]%s%s\n\nFlags:\n", set->program,
            set->usage[0] == '\0' ? "" : " ", set->usage);
    for (size_t i = 0; i < set->count; i++) {
        help_flag(&set->flags[i], out);
    }
    fprintf(out, "  --help\n");
    help_wrap(out, "Shows this text.", HELP_COLUMN_INDENT);
    if (set->details != NULL) {
        fprintf(out, "\n%s\n", set->details);
    }
}
