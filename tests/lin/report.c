/* See report.h. */
#include "lin/report.h"

#include "base/assert.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHOWN_BYTES_MAX = 48, /* of a value; longer ones are shortened to both ends */
    SHOWN_END_BYTES = 20,
};
static_assert(2 * SHOWN_END_BYTES < SHOWN_BYTES_MAX, "the ends do not overlap");

const char *lin_verdict_name(enum lin_verdict verdict)
{
    switch (verdict) {
    case LIN_LINEARIZABLE:
        return "LINEARIZABLE";
    case LIN_BROKEN:
        return "NOT LINEARIZABLE";
    case LIN_UNKNOWN:
        return "UNKNOWN";
    }
    UNREACHABLE();
}

const char *lin_spent_name(enum lin_spent spent)
{
    switch (spent) {
    case LIN_SPENT_NOTHING:
        return "nothing";
    case LIN_SPENT_TIME:
        return "time";
    case LIN_SPENT_MEMORY:
        return "memory";
    case LIN_SPENT_STEPS:
        return "steps";
    }
    UNREACHABLE();
}

/* --- words --- */

static void escape(struct bytes bytes, struct buf *out)
{
    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t byte = bytes.data[i];
        if (byte == '"' || byte == '\\') {
            buf_printf(out, "\\%c", byte);
        } else if (byte < 0x20 || byte >= 0x7f) {
            buf_printf(out, "\\x%02x", byte);
        } else {
            buf_append(out, &byte, 1);
        }
    }
}

void lin_describe_bytes(struct bytes bytes, struct buf *out)
{
    buf_append(out, "\"", 1);
    if (bytes.size <= SHOWN_BYTES_MAX) {
        escape(bytes, out);
    } else {
        escape(bytes_of(bytes.data, SHOWN_END_BYTES), out);
        buf_printf(out, "...%zu bytes...", bytes.size - (size_t)2 * SHOWN_END_BYTES);
        escape(bytes_of(bytes.data + bytes.size - SHOWN_END_BYTES, SHOWN_END_BYTES), out);
    }
    buf_append(out, "\"", 1);
}

static void describe_value(struct lin_value value, struct buf *out)
{
    if (value.present) {
        lin_describe_bytes(value.bytes, out);
    } else {
        buf_printf(out, "nothing");
    }
}

void lin_describe_op(const struct lin_op *op, struct buf *out)
{
    switch (op->kind) {
    case LIN_GET:
        buf_printf(out, "get -> ");
        describe_value(op->observed, out);
        break;
    case LIN_PUT:
        buf_printf(out, "put ");
        describe_value(op->argument, out);
        break;
    case LIN_APPEND:
        buf_printf(out, "append ");
        describe_value(op->argument, out);
        break;
    case LIN_DELETE:
        buf_printf(out, "delete");
        break;
    case LIN_CAS:
        buf_printf(out, "cas ");
        describe_value(op->observed, out);
        buf_printf(out, " -> ");
        describe_value(op->argument, out);
        break;
    case LIN_SEEN:
        buf_printf(out, "seen present");
        break;
    }
    if (op->expected > 0) {
        buf_printf(out, " if version %" PRIu64, op->expected);
    }
    if (op->version > 0) {
        buf_printf(out, ", version %" PRIu64, op->version);
    }
}

/* --- text --- */

static void text_op(const struct lin_op *op, struct buf *out)
{
    if (op->returned_ns == LIN_NEVER) {
        buf_printf(out, "  %20" PRIu64 "  %20s  process %-4" PRIu64 " ", op->called_ns, "-",
                   op->process);
    } else {
        buf_printf(out, "  %20" PRIu64 "  %20" PRIu64 "  process %-4" PRIu64 " ", op->called_ns,
                   op->returned_ns, op->process);
    }
    lin_describe_op(op, out);
    if (op->line > 0) {
        buf_printf(out, "  (line %" PRIu64 ")", op->line);
    }
    buf_append(out, "\n", 1);
}

const char *lin_failure_text(const struct lin_failure *failure)
{
    switch (failure->reason) {
    case LIN_NOT_WRITTEN:
        return "Nothing that was called before it returned makes the value that this one saw:";
    case LIN_TWICE_APPLIED:
        return "What one append wrote was read behind different beginnings, but it takes effect "
               "once:";
    case LIN_NO_ORDER:
        return failure->core_is_minimal
                   ? "No order explains these operations, none of which can be left out ('-': its "
                     "return does not matter, or was not seen):"
                   : "No order explains these operations; fewer might do ('-': its return does not "
                     "matter, or was not seen):";
    }
    UNREACHABLE();
}

static void text_failure(const struct lin_failure *failure, struct buf *out)
{
    if (failure->culprit == NULL) {
        return;
    }
    buf_printf(
        out,
        "Of the key's %zu operations, those called before the following one returned have no "
        "order; without its answer they have one. It cannot be placed:\n",
        failure->key_ops);
    text_op(failure->culprit, out);
    buf_printf(out, "%s\n  %20s  %20s\n", lin_failure_text(failure), "called", "returned");
    for (size_t i = 0; i < failure->core_count; i++) {
        text_op(&failure->core[i], out);
    }
}

void lin_report_text(const struct lin_result *result, struct buf *out)
{
    buf_printf(out, "%s", lin_verdict_name(result->verdict));
    if (result->verdict == LIN_BROKEN) {
        buf_printf(out, ": key ");
        lin_describe_bytes(result->failure.key, out);
    } else if (result->verdict == LIN_UNKNOWN) {
        buf_printf(out, ": the limit of %s was reached", lin_spent_name(result->spent));
        if (result->unknown_ops > 0) {
            buf_printf(out, " at key ");
            lin_describe_bytes(result->unknown_key, out);
            buf_printf(out, " (at most %zu of its %zu operations were in an order)",
                       result->unknown_placed, result->unknown_ops);
        } else {
            buf_printf(out, " by the history itself");
        }
    }
    buf_printf(out, "; %zu operations, %zu of %zu keys, %" PRIu64 " configurations\n", result->ops,
               result->keys_checked, result->keys, result->configurations);
    if (result->verdict == LIN_BROKEN) {
        text_failure(&result->failure, out);
    }
}

/* --- JSON --- */

/* gives; the text of `buf`, which is emptied. Printable ASCII is valid UTF-8. */
static json_t *take_text(struct buf *buf)
{
    json_t *text = json_stringn((const char *)buf->data, buf->size);
    buf_deinit(buf);
    buf_init(buf);
    return text;
}

static void json_set_uint(json_t *object, const char *field, uint64_t value)
{
    json_object_set_new(object, field, json_integer((json_int_t)value));
}

static json_t *json_of_op(const struct lin_op *op)
{
    struct buf text;
    buf_init(&text);
    lin_describe_op(op, &text);
    json_t *object = json_object();
    json_object_set_new(object, "operation", take_text(&text));
    json_set_uint(object, "process", op->process);
    json_set_uint(object, "called", op->called_ns);
    json_object_set_new(object, "returned",
                        op->returned_ns == LIN_NEVER ? json_null()
                                                     : json_integer((json_int_t)op->returned_ns));
    json_set_uint(object, "line", op->line);
    return object;
}

static json_t *json_of_failure(const struct lin_failure *failure)
{
    struct buf text;
    buf_init(&text);
    lin_describe_bytes(failure->key, &text);
    json_t *object = json_object();
    json_object_set_new(object, "key", take_text(&text));
    json_set_uint(object, "key_operations", failure->key_ops);
    json_set_uint(object, "prefix_operations", failure->prefix_ops);
    if (failure->culprit != NULL) {
        json_object_set_new(object, "culprit", json_of_op(failure->culprit));
    }
    json_t *core = json_array();
    for (size_t i = 0; i < failure->core_count; i++) {
        json_array_append_new(core, json_of_op(&failure->core[i]));
    }
    json_object_set_new(object, "core", core);
    json_object_set_new(object, "core_text", json_string(lin_failure_text(failure)));
    json_object_set_new(object, "core_is_minimal", json_boolean(failure->core_is_minimal));
    return object;
}

void lin_report_json(const struct lin_result *result, uint64_t elapsed_ns, struct buf *out)
{
    json_t *object = json_object();
    json_object_set_new(object, "verdict", json_string(lin_verdict_name(result->verdict)));
    json_set_uint(object, "operations", result->ops);
    json_set_uint(object, "keys", result->keys);
    json_set_uint(object, "keys_checked", result->keys_checked);
    json_set_uint(object, "configurations", result->configurations);
    json_set_uint(object, "memory_bytes_peak", result->memory_bytes_peak);
    json_object_set_new(object, "seconds", json_real((double)elapsed_ns / 1e9));
    if (result->verdict == LIN_UNKNOWN) {
        json_object_set_new(object, "limit", json_string(lin_spent_name(result->spent)));
    }
    if (result->verdict == LIN_BROKEN) {
        json_object_set_new(object, "failure", json_of_failure(&result->failure));
    }
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    buf_append_bytes(out, bytes_of_string(text));
    buf_append(out, "\n", 1);
    free(text);
}
