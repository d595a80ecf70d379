/* The text of events; see history_json.h. Everything in a file comes from outside: each field is
 * checked, and an error says what stands there and what would be right. */
#include "lin/history_json.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[] = {
    [LIN_INVOKE] = "invoke", [LIN_OK] = "ok", [LIN_FAIL] = "fail", [LIN_INFO] = "info"};
static const char *const kind_names[] = {[LIN_GET] = "get",
                                         [LIN_PUT] = "put",
                                         [LIN_APPEND] = "append",
                                         [LIN_DELETE] = "delete",
                                         [LIN_CAS] = "cas"};
enum {
    TYPE_COUNT = sizeof type_names / sizeof type_names[0],
    KIND_COUNT = sizeof kind_names / sizeof kind_names[0],
    NUMBER_TEXT_MAX = 24, /* -9223372036854775808 */
    WHAT_BYTES_MAX = 400,
};

/* --- writing --- */

static void write_string(struct buf *out, struct bytes bytes)
{
    buf_append(out, "\"", 1);
    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t byte = bytes.data[i];
        if (byte < 0x20 || byte >= 0x7f || byte == '"' || byte == '\\') {
            buf_printf(out, "\\u%04x", byte);
        } else {
            buf_append(out, &byte, 1);
        }
    }
    buf_append(out, "\"", 1);
}

static void write_value(struct buf *out, struct lin_value value)
{
    if (value.present) {
        write_string(out, value.bytes);
    } else {
        buf_append(out, "null", 4);
    }
}

void lin_event_write(const struct lin_event *event, struct buf *out)
{
    buf_printf(out,
               "{\"process\":%" PRIu64 ",\"type\":\"%s\",\"f\":\"%s\",\"key\":", event->process,
               type_names[event->type], kind_names[event->kind]);
    write_string(out, event->key);
    bool told = event->type == LIN_INVOKE ? event->kind != LIN_GET && event->kind != LIN_DELETE
                                          : event->type == LIN_OK && event->kind == LIN_GET;
    if (told && event->kind == LIN_CAS) {
        buf_append(out, ",\"value\":[", 10);
        write_value(out, event->from);
        buf_append(out, ",", 1);
        write_value(out, event->value);
        buf_append(out, "]", 1);
    } else if (told) {
        buf_append(out, ",\"value\":", 9);
        write_value(out, event->value);
    }
    if (event->has_version) {
        buf_printf(out, ",\"version\":%" PRIu64, event->version);
    }
    if (event->has_expected) {
        buf_printf(out, ",\"expected\":%" PRIu64, event->expected);
    }
    buf_printf(out, ",\"time\":%" PRIu64 "}\n", event->time_ns);
}

/* --- reading --- */

struct line_reader {
    const char *name;
    uint64_t line;
    bool timed; /* whether the first event has a time: all do or none */
    uint64_t events;
    struct lin_history *history;
    struct lin_builder *builder;
    char *message;
    size_t message_size;
    char numbers[2][NUMBER_TEXT_MAX]; /* values given as integers, as text */
};

static int complain(struct line_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int complain(struct line_reader *reader, const char *format, ...)
{
    char what[WHAT_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    (void)snprintf(reader->message, reader->message_size, "%s:%" PRIu64 ": %s", reader->name,
                   reader->line, what);
    return ERR_INVALID;
}

/* A non-negative integer; `given` false when there is none or null. */
static int read_uint(struct line_reader *reader, const json_t *object, const char *field,
                     bool *given, uint64_t *out)
{
    const json_t *member = json_object_get(object, field);
    *given = member != NULL && !json_is_null(member);
    if (!*given) {
        return ERR_OK;
    }
    if (!json_is_integer(member) || json_integer_value(member) < 0) {
        return complain(reader, "\"%s\" is not a whole number from 0 on", field);
    }
    *out = (uint64_t)json_integer_value(member);
    return ERR_OK;
}

/* The place of the field's text among names[1 .. count-1]. */
static int read_name(struct line_reader *reader, const json_t *object, const char *field,
                     const char *const *names, int count, const char *choices, int *out)
{
    const char *text = json_string_value(json_object_get(object, field));
    if (text == NULL) {
        return complain(reader, "\"%s\" is missing or no string; it must be %s", field, choices);
    }
    for (int i = 1; i < count; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return ERR_OK;
        }
    }
    return complain(reader, "\"%s\" is \"%.40s\"; it must be %s", field, text, choices);
}

/* A string, an integer (taken as its digits) or null. */
static int read_value(struct line_reader *reader, const json_t *member, const char *what,
                      int number, struct lin_value *out)
{
    *out = LIN_ABSENT;
    if (member == NULL || json_is_null(member)) {
        return ERR_OK;
    }
    if (json_is_string(member)) {
        *out = lin_value_of(json_string_value(member), json_string_length(member));
        return ERR_OK;
    }
    if (json_is_integer(member)) {
        int size = snprintf(reader->numbers[number], NUMBER_TEXT_MAX, "%" JSON_INTEGER_FORMAT,
                            json_integer_value(member));
        *out = lin_value_of(reader->numbers[number], (size_t)size);
        return ERR_OK;
    }
    return complain(reader, "%s is neither a string, nor an integer, nor null", what);
}

static int read_values(struct line_reader *reader, const json_t *object, struct lin_event *event)
{
    const json_t *value = json_object_get(object, "value");
    if (event->type == LIN_INVOKE && event->kind == LIN_CAS) {
        if (!json_is_array(value) || json_array_size(value) != 2) {
            return complain(reader, "\"value\" of cas must be [from, to]");
        }
        int error =
            read_value(reader, json_array_get(value, 0), "the first of \"value\"", 0, &event->from);
        return error != ERR_OK ? error
                               : read_value(reader, json_array_get(value, 1),
                                            "the second of \"value\"", 1, &event->value);
    }
    if (event->type == LIN_INVOKE && (event->kind == LIN_PUT || event->kind == LIN_APPEND)) {
        return read_value(reader, value, "\"value\"", 0, &event->value);
    }
    if (event->type == LIN_OK && event->kind == LIN_GET) {
        if (value == NULL) {
            return complain(reader, "an ok get must say what it read in \"value\"; null for an "
                                    "absent key");
        }
        return read_value(reader, value, "\"value\"", 0, &event->value);
    }
    return ERR_OK; /* whatever stands there claims nothing */
}

static int read_time(struct line_reader *reader, const json_t *object, struct lin_event *event)
{
    bool given;
    int error = read_uint(reader, object, "time", &given, &event->time_ns);
    if (error != ERR_OK) {
        return error;
    }
    if (reader->events == 0) {
        reader->timed = given;
    }
    if (given != reader->timed) {
        return complain(reader, given ? "\"time\" is given here but not in the first event; "
                                        "give it in all lines, or in none for the order of lines"
                                      : "\"time\" is missing; it must be nanoseconds");
    }
    if (!given) {
        event->time_ns = reader->line;
    }
    return ERR_OK;
}

static int read_event(struct line_reader *reader, const json_t *object, struct lin_event *event)
{
    int type = 0;
    int kind = 0;
    bool given;
    int error = read_uint(reader, object, "process", &given, &event->process);
    if (error == ERR_OK && !given) {
        error = complain(reader, "\"process\" is missing; it must be a whole number");
    }
    if (error == ERR_OK) {
        error = read_name(reader, object, "type", type_names, TYPE_COUNT,
                          "invoke, ok, fail or info", &type);
    }
    if (error == ERR_OK) {
        error = read_name(reader, object, "f", kind_names, KIND_COUNT,
                          "get, put, append, delete or cas", &kind);
    }
    if (error != ERR_OK) {
        return error;
    }
    event->type = (enum lin_event_type)type;
    event->kind = (enum lin_kind)kind;
    const json_t *key = json_object_get(object, "key");
    if (!json_is_string(key)) {
        return complain(reader, "\"key\" is missing or no string");
    }
    event->key = bytes_of(json_string_value(key), json_string_length(key));
    error = read_values(reader, object, event);
    if (error == ERR_OK) {
        error = read_uint(reader, object, "version", &event->has_version, &event->version);
    }
    if (error == ERR_OK) {
        error = read_uint(reader, object, "expected", &event->has_expected, &event->expected);
    }
    return error == ERR_OK ? read_time(reader, object, event) : error;
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (strchr(" \t\r\n", text[i]) == NULL || text[i] == '\0') {
            return false;
        }
    }
    return true;
}

static int read_line(struct line_reader *reader, const char *text, size_t size)
{
    if (is_blank(text, size)) {
        return ERR_OK;
    }
    json_error_t problem;
    json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    if (object == NULL) {
        return complain(reader, "no JSON: %s (column %d); each line is one object", problem.text,
                        problem.column);
    }
    struct lin_event event = {.line = reader->line};
    int error = ERR_OK;
    if (!json_is_object(object)) {
        error = complain(reader,
                         "not an object; each line is {\"process\":..., \"type\":..., \"f\":..., "
                         "\"key\":..., \"value\":..., \"time\":...}");
    }
    if (error == ERR_OK) {
        error = read_event(reader, object, &event);
    }
    if (error == ERR_OK) {
        char what[WHAT_BYTES_MAX];
        error = lin_builder_add(reader->builder, &event, what, sizeof what);
        if (error != ERR_OK) {
            error = complain(reader, "%s", what);
        }
    }
    json_decref(object);
    reader->events++;
    return error;
}

/* The next line, with its newline if it has one. ERR_NOT_FOUND: there is none. */
static int next_text(struct line_reader *reader, FILE *in, struct buf *text)
{
    buf_clear(text);
    int byte;
    while ((byte = getc_unlocked(in)) != EOF) {
        uint8_t one = (uint8_t)byte;
        buf_append(text, &one, 1);
        if (byte == '\n') {
            break;
        }
        if (text->size > LIN_LINE_BYTES_MAX) {
            reader->line++;
            return complain(reader, "the line is longer than %d bytes", LIN_LINE_BYTES_MAX);
        }
    }
    reader->line++;
    return text->size == 0 ? ERR_NOT_FOUND : ERR_OK;
}

int lin_history_read(FILE *in, const char *name, uint64_t memory_bytes_max,
                     struct lin_history *history, char *message, size_t message_size)
{
    struct line_reader reader = {.name = name,
                                 .history = history,
                                 .builder = lin_builder_create(history),
                                 .message = message,
                                 .message_size = message_size};
    struct buf text;
    buf_init(&text);
    errno = 0;
    int error;
    while ((error = next_text(&reader, in, &text)) == ERR_OK) {
        error = read_line(&reader, (const char *)text.data, text.size);
        if (error == ERR_OK && lin_history_bytes(history) > memory_bytes_max) {
            (void)snprintf(message, message_size,
                           "%s:%" PRIu64 ": the history takes more memory than the limit", name,
                           reader.line);
            error = ERR_TOO_LARGE;
        }
        if (error != ERR_OK) {
            break;
        }
    }
    if (error == ERR_NOT_FOUND) {
        error = ERR_OK;
    }
    if (error == ERR_OK && reader.events == 0 && !ferror(in)) {
        /* True of nothing is no answer that a gate should take. */
        (void)snprintf(message, message_size, "%s: no events; a history has at least one", name);
        error = ERR_INVALID;
    }
    if (error == ERR_OK && ferror(in)) {
        (void)snprintf(message, message_size, "%s: %s", name, strerror(errno));
        error = ERR_IO;
    }
    buf_deinit(&text);
    lin_builder_finish(reader.builder);
    return error;
}
