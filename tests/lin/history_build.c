/* From events to operations: who returned what; see history_json.h. */
#include "lin/history_json.h"

#include "lin/map.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

struct process {
    uint64_t number;
    bool open;
    uint64_t last_ns; /* of its latest event */
    struct lin_event call;
    struct buf bytes; /* the call's key, value and from, one after another */
};

struct lin_builder {
    struct lin_history *history;
    struct process **processes; /* each stays where it is while the array grows */
    uint32_t count, capacity;
    struct lin_map by_number;
};

static const char *kind_name(enum lin_kind kind)
{
    static const char *const names[] = {"?", "get", "put", "append", "delete", "cas", "?"};
    return names[kind];
}

struct lin_builder *lin_builder_create(struct lin_history *history)
{
    struct lin_builder *builder = mem_calloc(1, sizeof *builder);
    builder->history = history;
    return builder;
}

static struct process *process_of(struct lin_builder *builder, uint64_t number)
{
    uint32_t index;
    if (lin_map_find(&builder->by_number, number, 0, &index)) {
        return builder->processes[index];
    }
    if (builder->count == builder->capacity) {
        builder->capacity = builder->capacity == 0 ? 64 : 2 * builder->capacity;
        builder->processes =
            mem_realloc(builder->processes, builder->capacity * sizeof builder->processes[0]);
    }
    struct process *process = mem_calloc(1, sizeof *process);
    process->number = number;
    buf_init(&process->bytes);
    lin_map_add(&builder->by_number, number, 0, builder->count);
    builder->processes[builder->count++] = process;
    return process;
}

static void keep_call(struct process *process, const struct lin_event *event)
{
    process->open = true;
    process->call = *event;
    buf_clear(&process->bytes);
    buf_append_bytes(&process->bytes, event->key);
    buf_append_bytes(&process->bytes, event->value.bytes);
    buf_append_bytes(&process->bytes, event->from.bytes);
    const uint8_t *at = process->bytes.data; /* never NULL: a key is not empty */
    process->call.key.data = at;
    process->call.value.bytes.data = at + event->key.size;
    process->call.from.bytes.data = at + event->key.size + event->value.bytes.size;
}

/* The call as an operation that never returned. */
static struct lin_op op_of_call(const struct lin_event *call)
{
    struct lin_op op = {.kind = call->kind,
                        .process = call->process,
                        .called_ns = call->time_ns,
                        .returned_ns = LIN_NEVER,
                        .key = call->key,
                        .argument = LIN_ABSENT,
                        .observed = LIN_ABSENT,
                        .line = call->line};
    if (call->kind == LIN_PUT || call->kind == LIN_APPEND || call->kind == LIN_CAS) {
        op.argument = call->value;
    }
    if (call->kind == LIN_CAS) {
        op.observed = call->from;
        op.expected = call->has_expected ? call->expected : 0;
    }
    return op;
}

static int complain(char *message, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int complain(char *message, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, size, format, arguments);
    va_end(arguments);
    return ERR_INVALID;
}

static int add_call(struct process *process, const struct lin_event *event, char *message,
                    size_t size)
{
    if (process->open) {
        return complain(message, size,
                        "process %" PRIu64 " calls while its %s of line %" PRIu64
                        " has not returned; end that with ok, fail or info first",
                        event->process, kind_name(process->call.kind), process->call.line);
    }
    if (event->key.size == 0) {
        return complain(message, size, "\"key\" is empty; a key has at least one byte");
    }
    if ((event->kind == LIN_PUT || event->kind == LIN_APPEND) && !event->value.present) {
        return complain(message, size, "\"value\" of %s is missing or null; it must be a string",
                        kind_name(event->kind));
    }
    if (event->has_expected && event->kind != LIN_CAS) {
        return complain(message, size, "\"expected\" is for cas only, not for %s",
                        kind_name(event->kind));
    }
    if (event->has_expected && (event->expected > 0) != event->from.present) {
        return complain(
            message, size,
            "\"expected\" is %" PRIu64
            " and the value to replace is %s; 0 goes with null, any other with a string",
            event->expected, event->from.present ? "a string" : "null");
    }
    keep_call(process, event);
    return ERR_OK;
}

/* A get's version goes with its value, and who writes a value makes a version. */
static int check_version(const struct lin_event *event, char *message, size_t size)
{
    if (!event->has_version) {
        return ERR_OK;
    }
    if (event->kind == LIN_GET && (event->version > 0) != event->value.present) {
        return complain(message, size,
                        "\"version\" is %" PRIu64
                        " and the value read is %s; 0 goes with null, any other with a string",
                        event->version, event->value.present ? "a string" : "null");
    }
    if ((event->kind == LIN_PUT || event->kind == LIN_APPEND) && event->version == 0) {
        return complain(message, size, "\"version\" is 0; after %s it is at least 1",
                        kind_name(event->kind));
    }
    return ERR_OK;
}

static void add_ok(struct lin_builder *builder, const struct lin_event *call,
                   const struct lin_event *event)
{
    struct lin_op op = op_of_call(call);
    op.returned_ns = event->time_ns;
    if (event->kind == LIN_GET) {
        op.observed = event->value;
    }
    bool present = event->kind == LIN_GET ? op.observed.present : op.argument.present;
    op.version = event->has_version && present ? event->version : 0;
    lin_history_add(builder->history, &op);
}

/* What a refused cas tells of the key: that it was absent, or present at a version. */
static void add_refused(struct lin_builder *builder, const struct lin_event *call,
                        const struct lin_event *event)
{
    struct lin_op op = {.kind = event->version == 0 ? LIN_GET : LIN_SEEN,
                        .process = call->process,
                        .called_ns = call->time_ns,
                        .returned_ns = event->time_ns,
                        .key = call->key,
                        .version = event->version,
                        .line = call->line};
    lin_history_add(builder->history, &op);
}

static int add_return(struct lin_builder *builder, struct process *process,
                      const struct lin_event *event, char *message, size_t size)
{
    const struct lin_event *call = &process->call;
    if (!process->open) {
        return complain(message, size,
                        "process %" PRIu64 " returns without a call; an invoke must come first",
                        event->process);
    }
    if (event->kind != call->kind || !bytes_equal(event->key, call->key)) {
        return complain(message, size,
                        "process %" PRIu64
                        " returns from %s of \"%.*s\"; its open call is line %" PRIu64
                        ", %s of \"%.*s\"",
                        event->process, kind_name(event->kind), (int)event->key.size,
                        (const char *)event->key.data, call->line, kind_name(call->kind),
                        (int)call->key.size, (const char *)call->key.data);
    }
    process->open = false;
    switch (event->type) {
    case LIN_OK: {
        int error = check_version(event, message, size);
        if (error == ERR_OK) {
            add_ok(builder, call, event);
        }
        return error;
    }
    case LIN_FAIL:
        if (event->kind == LIN_CAS && event->has_version) {
            add_refused(builder, call, event);
        }
        return ERR_OK;
    case LIN_INFO: {
        struct lin_op op = op_of_call(call);
        lin_history_add(builder->history, &op);
        return ERR_OK;
    }
    case LIN_INVOKE:
        break;
    }
    return ERR_INVALID;
}

int lin_builder_add(struct lin_builder *builder, const struct lin_event *event, char *message,
                    size_t message_size)
{
    struct process *process = process_of(builder, event->process);
    if (event->time_ns < process->last_ns) {
        return complain(message, message_size,
                        "\"time\" is %" PRIu64 ", but process %" PRIu64 " was at %" PRIu64
                        " already; a process's times never go back",
                        event->time_ns, event->process, process->last_ns);
    }
    if (event->time_ns >= LIN_NEVER) {
        return complain(message, message_size, "\"time\" is too large");
    }
    process->last_ns = event->time_ns;
    return event->type == LIN_INVOKE ? add_call(process, event, message, message_size)
                                     : add_return(builder, process, event, message, message_size);
}

void lin_builder_finish(struct lin_builder *builder)
{
    if (builder == NULL) {
        return;
    }
    for (uint32_t i = 0; i < builder->count; i++) {
        struct process *process = builder->processes[i];
        if (process->open) {
            struct lin_op op = op_of_call(&process->call);
            lin_history_add(builder->history, &op);
        }
        buf_deinit(&process->bytes);
        free(process);
    }
    free(builder->processes);
    lin_map_deinit(&builder->by_number);
    free(builder);
}
