/* See history.h. Keys and values live in chunks that never move, so that an operation may point at
 * them. */
#include "lin/history.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 256 * 1024, OPS_FIRST = 256 };

struct chunk {
    struct chunk *next;
    size_t size;
    size_t capacity;
    uint8_t data[];
};

struct entry {
    struct lin_op op; /* first, so that sorted entries are copied out in order */
    size_t added;
};

struct lin_history {
    struct lin_op *ops;
    size_t count;
    size_t capacity;
    struct lin_op *sorted; /* NULL: to be made */
    struct chunk *chunks;
    uint64_t chunk_bytes;
};

bool lin_value_equal(struct lin_value a, struct lin_value b)
{
    return a.present == b.present && bytes_equal(a.bytes, b.bytes);
}

struct lin_history *lin_history_create(void)
{
    return mem_calloc(1, sizeof(struct lin_history));
}

void lin_history_destroy(struct lin_history *history)
{
    if (history == NULL) {
        return;
    }
    while (history->chunks != NULL) {
        struct chunk *chunk = history->chunks;
        history->chunks = chunk->next;
        free(chunk);
    }
    free(history->sorted);
    free(history->ops);
    free(history);
}

static struct bytes keep(struct lin_history *history, struct bytes bytes)
{
    if (bytes.size == 0) {
        return BYTES_EMPTY;
    }
    struct chunk *chunk = history->chunks;
    if (chunk == NULL || bytes.size > chunk->capacity - chunk->size) {
        size_t capacity = bytes.size > CHUNK_BYTES ? bytes.size : CHUNK_BYTES;
        chunk = mem_alloc(sizeof *chunk + capacity);
        *chunk = (struct chunk){.next = history->chunks, .capacity = capacity};
        history->chunks = chunk;
        history->chunk_bytes += sizeof *chunk + capacity;
    }
    uint8_t *at = chunk->data + chunk->size;
    memcpy(at, bytes.data, bytes.size);
    chunk->size += bytes.size;
    return bytes_of(at, bytes.size);
}

static void check_op(const struct lin_op *op)
{
    ASSERT(op->kind >= LIN_GET && op->kind <= LIN_SEEN);
    ASSERT_CMP(op->called_ns, <=, op->returned_ns);
    ASSERT_CMP(op->called_ns, <, LIN_NEVER);
    ASSERT(op->argument.present || (op->kind != LIN_PUT && op->kind != LIN_APPEND));
    ASSERT(op->argument.present || op->argument.bytes.size == 0);
    ASSERT(op->observed.present || op->observed.bytes.size == 0);
    ASSERT_CMP(op->argument.bytes.size, <, UINT32_MAX); /* model.h counts in 32 bits */
    ASSERT_CMP(op->observed.bytes.size, <, UINT32_MAX);
    /* An absent key has no version, and one without an outcome told none. */
    ASSERT(op->version == 0 || op->kind != LIN_GET || op->observed.present);
    ASSERT(op->expected == 0 || (op->kind == LIN_CAS && op->observed.present));
    ASSERT(op->version == 0 || op->returned_ns != LIN_NEVER);
    ASSERT(op->version > 0 || op->kind != LIN_SEEN);
}

void lin_history_add(struct lin_history *history, const struct lin_op *op)
{
    check_op(op);
    if (op->returned_ns == LIN_NEVER && (op->kind == LIN_GET || op->kind == LIN_SEEN)) {
        return;
    }
    if (history->count == history->capacity) {
        history->capacity = history->capacity == 0 ? OPS_FIRST : 2 * history->capacity;
        history->ops = mem_realloc(history->ops, history->capacity * sizeof history->ops[0]);
    }
    struct lin_op *kept = &history->ops[history->count++];
    *kept = *op;
    kept->key = keep(history, op->key);
    kept->argument.bytes = keep(history, op->argument.bytes);
    kept->observed.bytes = keep(history, op->observed.bytes);
    free(history->sorted);
    history->sorted = NULL;
}

size_t lin_history_count(const struct lin_history *history)
{
    return history->count;
}

uint64_t lin_history_bytes(const struct lin_history *history)
{
    /* What sorting takes counts as if it were there: it will be. */
    return history->chunk_bytes + (history->capacity + history->count) * sizeof(struct lin_op) +
           history->count * sizeof(struct entry);
}

static int by_key_and_call(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;
    int order = bytes_compare(x->op.key, y->op.key);
    if (order != 0) {
        return order;
    }
    if (x->op.called_ns != y->op.called_ns) {
        return x->op.called_ns < y->op.called_ns ? -1 : 1;
    }
    return x->added < y->added ? -1 : x->added > y->added;
}

const struct lin_op *lin_history_sorted(struct lin_history *history)
{
    if (history->sorted != NULL) {
        return history->sorted;
    }
    size_t count = history->count;
    struct entry *entries = mem_calloc(count, sizeof *entries);
    for (size_t i = 0; i < count; i++) {
        entries[i] = (struct entry){.op = history->ops[i], .added = i};
    }
    qsort(entries, count, sizeof *entries, by_key_and_call);
    history->sorted = mem_calloc(count, sizeof history->sorted[0]);
    for (size_t i = 0; i < count; i++) {
        history->sorted[i] = entries[i].op;
    }
    free(entries);
    return history->sorted;
}
