/* Mutations of generated histories whose break can be proved; see generate.h. All rest on this:
 * tokens are "<number>;", no two writes have the same, and no token is part of another or of
 * several joined, since each is digits and one ';'. So a value tells which write it begins with
 * (its base, if that was a put or cas) and which appends followed, in order. */
#include "lin/generate.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { TRIES_MAX = 64 };

const char *lin_mutation_name(enum lin_mutation mutation)
{
    static const char *const names[] = {"dropped write", "stale read", "doubled append",
                                        "swapped reads", "early read", "lost append"};
    ASSERT_CMP(mutation, <, LIN_MUTATIONS);
    return names[mutation];
}

/* --- reading a value --- */

/* The token at `at` of the value: which write's it is, and where it ends. False: the value is over.
 */
static bool next_token(struct bytes value, size_t *at, uint32_t *number)
{
    uint32_t digits = 0;
    if (*at >= value.size) {
        return false;
    }
    for (; value.data[*at] != ';'; (*at)++) {
        digits = digits * 10 + (uint32_t)(value.data[*at] - '0');
    }
    (*at)++;
    *number = digits;
    return true;
}

static bool has_token(struct bytes value, uint32_t wanted)
{
    uint32_t number;
    for (size_t at = 0; next_token(value, &at, &number);) {
        if (number == wanted) {
            return true;
        }
    }
    return false;
}

/* The operation that the value begins with, if it is a put or cas; else NULL. Operations are
 * numbered by their place. */
static const struct lin_made_op *base_of(const struct lin_made *made, struct lin_value value)
{
    uint32_t number;
    size_t at = 0;
    if (!next_token(value.bytes, &at, &number)) {
        return NULL;
    }
    const struct lin_made_op *op = &made->ops[number];
    return op->op.kind == LIN_APPEND ? NULL : op;
}

static bool same_key(const struct lin_made_op *a, const struct lin_made_op *b)
{
    return bytes_equal(a->op.key, b->op.key);
}

/* The first returned before the second was called. */
static bool precedes(const struct lin_made_op *a, const struct lin_made_op *b)
{
    return a->outcome == LIN_OK && a->op.returned_ns < b->op.called_ns;
}

static bool is_ok(const struct lin_made_op *op, enum lin_kind kind)
{
    return op->op.kind == kind && op->outcome == LIN_OK && !op->removed;
}

static size_t draw_get(const struct lin_made *made, struct rng *rng)
{
    for (int i = 0; i < TRIES_MAX; i++) {
        size_t index = rng_below(rng, made->count);
        if (is_ok(&made->ops[index], LIN_GET)) {
            return index;
        }
    }
    return made->count;
}

static void read_instead(struct lin_made_op *get, struct lin_value value)
{
    get->op.observed = value;
    get->op.version = 0;
}

static struct buf *new_buf(struct lin_made *made)
{
    made->bytes = mem_realloc(made->bytes, (made->bytes_count + 1) * sizeof made->bytes[0]);
    made->bytes_capacity = made->bytes_count + 1;
    struct buf *buf = mem_calloc(1, sizeof *buf);
    buf_init(buf);
    made->bytes[made->bytes_count++] = buf;
    return buf;
}

/* --- the mutations --- */

/* A value with its token was read, and nobody else writes it. */
static bool drop_write(struct lin_made *made, struct rng *rng)
{
    size_t index = draw_get(made, rng);
    if (index == made->count || made->ops[index].op.observed.bytes.size == 0) {
        return false;
    }
    struct bytes value = made->ops[index].op.observed.bytes;
    uint32_t count = 0;
    uint32_t number;
    for (size_t at = 0; next_token(value, &at, &number);) {
        count++;
    }
    uint64_t which = rng_below(rng, count);
    size_t at = 0;
    for (uint64_t i = 0; i <= which; i++) {
        (void)next_token(value, &at, &number);
    }
    made->ops[number].removed = true;
    return true;
}

/* old < newer < get in real time, and only `old` writes what get now reads. */
static bool read_stale(struct lin_made *made, struct rng *rng)
{
    size_t index = draw_get(made, rng);
    if (index == made->count) {
        return false;
    }
    struct lin_made_op *get = &made->ops[index];
    const struct lin_made_op *newer = NULL;
    for (size_t i = index; i-- > 0;) {
        const struct lin_made_op *op = &made->ops[i];
        if (!same_key(op, get)) {
            continue;
        }
        if (newer == NULL && (is_ok(op, LIN_PUT) || is_ok(op, LIN_DELETE)) && precedes(op, get)) {
            newer = op;
        } else if (newer != NULL && is_ok(op, LIN_PUT) && precedes(op, newer)) {
            read_instead(get, op->op.argument);
            return true;
        }
    }
    return false;
}

/* The token was appended once at most. */
static bool double_append(struct lin_made *made, struct rng *rng)
{
    size_t index = draw_get(made, rng);
    if (index == made->count) {
        return false;
    }
    struct bytes value = made->ops[index].op.observed.bytes;
    uint32_t number;
    size_t from = 0;
    for (size_t at = 0; next_token(value, &at, &number); from = at) {
        if (made->ops[number].op.kind == LIN_APPEND) {
            struct buf *longer = new_buf(made);
            buf_append(longer, value.data, at);
            buf_append(longer, value.data + from, value.size - from);
            read_instead(&made->ops[index], (struct lin_value){true, buf_view(longer)});
            return true;
        }
    }
    return false;
}

/* The bases are w1 < w2 in real time; get 1 < get 2 as well. Once get 1 reads what w2 began, w1's
 * value is gone for good. */
static bool swap_reads(struct lin_made *made, struct rng *rng)
{
    size_t index = draw_get(made, rng);
    if (index == made->count) {
        return false;
    }
    struct lin_made_op *second = &made->ops[index];
    const struct lin_made_op *second_base = base_of(made, second->op.observed);
    for (size_t i = index; second_base != NULL && i-- > 0;) {
        struct lin_made_op *first = &made->ops[i];
        if (!is_ok(first, LIN_GET) || !same_key(first, second) || !precedes(first, second)) {
            continue;
        }
        const struct lin_made_op *first_base = base_of(made, first->op.observed);
        if (first_base != NULL && precedes(first_base, second_base)) {
            struct lin_value newer = second->op.observed;
            read_instead(second, first->op.observed);
            read_instead(first, newer);
            return true;
        }
    }
    return false;
}

static bool read_early(struct lin_made *made, struct rng *rng)
{
    size_t index = draw_get(made, rng);
    for (size_t i = index; i < made->count; i++) {
        const struct lin_made_op *op = &made->ops[i];
        if (is_ok(op, LIN_PUT) && same_key(op, &made->ops[index]) &&
            precedes(&made->ops[index], op)) {
            read_instead(&made->ops[index], op->op.argument);
            return true;
        }
    }
    return false;
}

/* Another get read base, ..., token: so the append came after the base. It returned before this get
 * was called, which reads the same base: so it must read the token. */
static bool lose_append(struct lin_made *made, struct rng *rng)
{
    size_t index = draw_get(made, rng);
    if (index == made->count || base_of(made, made->ops[index].op.observed) == NULL) {
        return false;
    }
    struct lin_made_op *get = &made->ops[index];
    const struct lin_made_op *base = base_of(made, get->op.observed);
    struct bytes value = get->op.observed.bytes;
    uint32_t number;
    size_t from = 0;
    for (size_t at = 0; next_token(value, &at, &number); from = at) {
        const struct lin_made_op *append = &made->ops[number];
        if (!is_ok(append, LIN_APPEND) || !precedes(append, get)) {
            continue;
        }
        for (size_t i = 0; i < made->count; i++) {
            const struct lin_made_op *witness = &made->ops[i];
            if (i != index && is_ok(witness, LIN_GET) && same_key(witness, get) &&
                base_of(made, witness->op.observed) == base &&
                has_token(witness->op.observed.bytes, number)) {
                struct buf *shorter = new_buf(made);
                buf_append(shorter, value.data, from);
                buf_append(shorter, value.data + at, value.size - at);
                read_instead(get, (struct lin_value){true, buf_view(shorter)});
                return true;
            }
        }
    }
    return false;
}

bool lin_made_mutate(struct lin_made *made, enum lin_mutation mutation, struct rng *rng)
{
    typedef bool (*mutate_fn)(struct lin_made *, struct rng *);
    static const mutate_fn mutations[] = {drop_write, read_stale, double_append,
                                          swap_reads, read_early, lose_append};
    static_assert(sizeof mutations / sizeof mutations[0] == LIN_MUTATIONS, "one function each");
    ASSERT_CMP(mutation, <, LIN_MUTATIONS);
    for (int i = 0; i < TRIES_MAX; i++) {
        if (mutations[mutation](made, rng)) {
            return true;
        }
    }
    return false;
}
