/* See reading.h.
 *
 * The observed values are sorted, so each begins like the one before it for some length; what was
 * found there still holds and only the rest is walked. */
#include "lin/reading.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { TOKEN_LENGTHS_MAX = 64 }; /* distinct ones; with more, nothing is read */

/* A place in the present value: what is before it can be put together so. */
struct place {
    uint8_t ways;     /* 0, 1, or 2 for more */
    bool told;        /* what the tokens before it say has been noted */
    bool after_token; /* of one way: it ends with `token`; otherwise it is a base */
    uint32_t token;
};

struct walk {
    struct lin_model *model;
    struct lin_reading *reading;
    uint32_t lengths[TOKEN_LENGTHS_MAX];
    uint32_t length_count;
    uint32_t length_max;
    struct place *places;
    bool *required;                /* by observed value: an observer that returned saw it */
    struct lin_model_value *bases; /* distinct, sorted by `from` */
    size_t base_count;
    uint32_t *writers; /* by token: how many appends */
    uint32_t *witness; /* by token: the required value that told its result */
};

/* --- walking the values --- */

static size_t common_size(struct bytes a, struct bytes b)
{
    size_t limit = a.size < b.size ? a.size : b.size;
    size_t same = 0;
    /* Whole blocks first: long values that begin alike are the common case. */
    while (limit - same >= 64 && memcmp(a.data + same, b.data + same, 64) == 0) {
        same += 64;
    }
    while (same < limit && a.data[same] == b.data[same]) {
        same++;
    }
    return same;
}

static void add_ways(struct place *place, uint8_t ways)
{
    place->ways = place->ways + ways > 2 ? 2 : (uint8_t)(place->ways + ways);
}

/* Tokens that begin at `at` of observed[index] and end after `shared`. */
static void follow_tokens(struct walk *walk, uint32_t index, size_t at, size_t shared)
{
    struct bytes value = walk->model->observed[index];
    for (uint32_t i = 0; i < walk->length_count; i++) {
        uint32_t length = walk->lengths[i];
        uint32_t token;
        if (length > value.size - at || at + length <= shared ||
            !lin_model_find_token(walk->model, bytes_of(value.data + at, length), &token)) {
            continue;
        }
        struct place *end = &walk->places[at + length];
        walk->reading->seen[token] = true;
        add_ways(end, walk->places[at].ways);
        end->after_token = true;
        end->token = token;
    }
}

/* observed[index], which is required, begins with `end` bytes whose last token only one append
 * writes. */
static void note_result(struct walk *walk, uint32_t index, uint32_t token, size_t end)
{
    struct lin_reading *reading = walk->reading;
    struct bytes beginning = bytes_of(walk->model->observed[index].data, end);
    uint32_t value = lin_model_value(walk->model, (struct lin_value){true, beginning});
    if (reading->result[token] == LIN_VALUE_NONE) {
        reading->result[token] = value;
        walk->witness[token] = index;
    } else if (reading->result[token] != value && reading->twice == LIN_READING_NONE) {
        reading->twice = token;
        reading->twice_in[0] = walk->witness[token];
        reading->twice_in[1] = index;
    }
}

/* The value was put together in one way: goes back through it. */
static void tell(struct walk *walk, uint32_t index)
{
    size_t at = walk->model->observed[index].size;
    while (!walk->places[at].told) {
        struct place *place = &walk->places[at];
        ASSERT_CMP(place->ways, ==, 1);
        place->told = true;
        if (!place->after_token) {
            break;
        }
        if (walk->writers[place->token] == 1) {
            note_result(walk, index, place->token, at);
        }
        at -= walk->model->tokens[place->token].size;
    }
}

static void walk_value(struct walk *walk, uint32_t index, size_t shared, size_t *next_base)
{
    struct lin_model *model = walk->model;
    struct bytes value = model->observed[index];
    if (value.size > shared) {
        memset(walk->places + shared + 1, 0, (value.size - shared) * sizeof walk->places[0]);
    }
    bool empty_base = false;
    for (; *next_base < walk->base_count && walk->bases[*next_base].from == index; (*next_base)++) {
        uint32_t size = walk->bases[*next_base].size;
        add_ways(&walk->places[size], 1);
        empty_base = empty_base || size == 0;
    }
    size_t at = shared >= walk->length_max ? shared - walk->length_max + 1 : 0;
    for (; at < value.size; at++) {
        if (walk->places[at].ways > 0) {
            follow_tokens(walk, index, at, shared);
        }
    }
    /* Nothing at all reaches place 0, but only a write of nothing makes the empty value. */
    bool empty_token = model->token_count > 0 && model->tokens[0].size == 0;
    uint8_t ways = value.size > 0 ? walk->places[value.size].ways : empty_base || empty_token;
    if (!walk->required[index]) {
        return;
    }
    if (ways == 0 && walk->reading->unwritten == LIN_READING_NONE) {
        walk->reading->unwritten = index;
    } else if (value.size > 0 && ways == 1 && !empty_token) {
        tell(walk, index);
    }
}

static void walk_all(struct walk *walk)
{
    struct lin_model *model = walk->model;
    size_t next_base = 0;
    walk->places[0].ways = 1; /* an absent key */
    for (uint32_t i = 0; i < model->observed_count; i++) {
        size_t shared = i == 0 ? 0 : common_size(model->observed[i - 1], model->observed[i]);
        walk_value(walk, i, shared, &next_base);
    }
}

/* --- setting up --- */

static int by_from_and_size(const void *a, const void *b)
{
    const struct lin_model_value *x = a;
    const struct lin_model_value *y = b;
    if (x->from != y->from) {
        return x->from < y->from ? -1 : 1;
    }
    return x->size < y->size ? -1 : x->size > y->size;
}

static void collect(struct walk *walk, const struct lin_op *ops, size_t count)
{
    struct lin_model *model = walk->model;
    for (size_t i = 0; i < count; i++) {
        const struct lin_op *op = &ops[i];
        bool base = op->kind == LIN_PUT || op->kind == LIN_CAS;
        uint32_t value = base ? lin_model_value(model, op->argument) : LIN_VALUE_OTHER;
        if (value > LIN_VALUE_OTHER) {
            walk->bases[walk->base_count++] = model->values[value];
        }
        if (op->kind == LIN_APPEND) {
            walk->writers[lin_model_token(model, op->argument.bytes)]++;
        }
        if ((op->kind == LIN_GET || op->kind == LIN_CAS) && op->observed.present &&
            op->returned_ns != LIN_NEVER) {
            walk->required[model->values[lin_model_value(model, op->observed)].from] = true;
        }
    }
    qsort(walk->bases, walk->base_count, sizeof walk->bases[0], by_from_and_size);
    size_t kept = 0;
    for (size_t i = 0; i < walk->base_count; i++) {
        if (kept == 0 || by_from_and_size(&walk->bases[kept - 1], &walk->bases[i]) != 0) {
            walk->bases[kept++] = walk->bases[i];
        }
    }
    walk->base_count = kept;
}

/* False: too many. */
static bool collect_lengths(struct walk *walk)
{
    for (uint32_t t = 0; t < walk->model->token_count; t++) {
        uint32_t size = (uint32_t)walk->model->tokens[t].size;
        bool known = size == 0; /* never moves on */
        for (uint32_t i = 0; i < walk->length_count && !known; i++) {
            known = walk->lengths[i] == size;
        }
        if (known) {
            continue;
        }
        if (walk->length_count == TOKEN_LENGTHS_MAX) {
            return false;
        }
        walk->lengths[walk->length_count++] = size;
        walk->length_max = size > walk->length_max ? size : walk->length_max;
    }
    return true;
}

static size_t longest_observed(const struct lin_model *model)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < model->observed_count; i++) {
        longest = model->observed[i].size > longest ? model->observed[i].size : longest;
    }
    return longest;
}

void lin_reading_init(struct lin_reading *reading, struct lin_model *model,
                      const struct lin_op *ops, size_t count)
{
    uint32_t tokens = model->token_count;
    *reading = (struct lin_reading){.seen = mem_calloc(tokens, sizeof reading->seen[0]),
                                    .result = mem_calloc(tokens, sizeof reading->result[0]),
                                    .unwritten = LIN_READING_NONE,
                                    .twice = LIN_READING_NONE};
    struct walk walk = {.model = model, .reading = reading};
    bool readable = collect_lengths(&walk);
    for (uint32_t t = 0; t < tokens; t++) {
        reading->result[t] = LIN_VALUE_NONE;
        reading->seen[t] = !readable || model->tokens[t].size == 0;
    }
    if (!readable) {
        return;
    }
    walk.places = mem_calloc(longest_observed(model) + 1, sizeof walk.places[0]);
    walk.required = mem_calloc(model->observed_count, sizeof walk.required[0]);
    walk.bases = mem_calloc(count, sizeof walk.bases[0]);
    walk.writers = mem_calloc(tokens, sizeof walk.writers[0]);
    walk.witness = mem_calloc(tokens, sizeof walk.witness[0]);
    collect(&walk, ops, count);
    walk_all(&walk);
    free(walk.places);
    free(walk.required);
    free(walk.bases);
    free(walk.writers);
    free(walk.witness);
}

void lin_reading_deinit(struct lin_reading *reading)
{
    free(reading->seen);
    free(reading->result);
}
