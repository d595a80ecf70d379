/* See reading.h.
 *
 * The observed values are sorted, so each begins like the one before it for some length; what was
 * found there still holds and only the rest is walked. All work is proportional to the bytes of the
 * values without these common beginnings. */
#include "lin/reading.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum {
    TOKEN_LENGTHS_MAX = 64, /* distinct ones; with more, nothing is read */
    PIECES_MAX =
        4 * 1024 * 1024, /* of arguments looked at for uniqueness; with more, none is unique */
};

/* A token found in observed[from .. to-1], which begin alike up to its end. */
struct find {
    uint32_t token;
    uint32_t from;
    uint32_t end; /* bytes */
};

struct walk {
    struct lin_model *model;
    struct lin_reading *reading;
    uint32_t lengths[TOKEN_LENGTHS_MAX];
    uint32_t length_count;
    uint32_t length_max;
    bool *reached;                 /* by place in the present value */
    bool *required;                /* by observed value: an observer that returned saw it */
    uint32_t *required_before;     /* prefix sums of it */
    struct lin_model_value *bases; /* sorted by `from` */
    size_t base_count;
    struct find *finds; /* whose values go on with the present one */
    size_t find_count, find_capacity;
    bool *unique; /* by token */
};

/* ---- which tokens are unmistakable
 * ------------------------------------------------------------------------------- */

/* Counts of pieces by hash: two pieces taken for one only make a token mistakable. */
struct pieces {
    struct lin_map map;
    uint32_t *counts;
    uint32_t count, capacity;
};

static uint64_t hash_bytes(const uint8_t *data, size_t size)
{
    uint64_t hash = size;
    for (size_t i = 0; i < size; i++) {
        hash = lin_mix(hash ^ data[i]);
    }
    return hash;
}

static void count_piece(struct pieces *pieces, const uint8_t *data, size_t size)
{
    uint64_t hash = hash_bytes(data, size);
    uint32_t index;
    if (!lin_map_find(&pieces->map, hash, size, &index)) {
        if (pieces->count == pieces->capacity) {
            pieces->capacity = pieces->capacity == 0 ? 256 : 2 * pieces->capacity;
            pieces->counts =
                mem_realloc(pieces->counts, pieces->capacity * sizeof pieces->counts[0]);
        }
        index = pieces->count++;
        pieces->counts[index] = 0;
        lin_map_add(&pieces->map, hash, size, index);
    }
    pieces->counts[index]++;
}

static uint32_t piece_count(const struct pieces *pieces, const uint8_t *data, size_t size)
{
    uint32_t index;
    return lin_map_find(&pieces->map, hash_bytes(data, size), size, &index) ? pieces->counts[index]
                                                                            : 0;
}

static void pieces_deinit(struct pieces *pieces)
{
    lin_map_deinit(&pieces->map);
    free(pieces->counts);
}

static bool writes_bytes(const struct lin_op *op)
{
    return op->kind == LIN_PUT || op->kind == LIN_APPEND ||
           (op->kind == LIN_CAS && op->argument.present);
}

/* A token is unmistakable when only one append writes it, no other argument has it inside, and no
 * beginning of it is an end of an argument, so that it never comes about across two. */
static void find_unique(struct walk *walk, const struct lin_op *ops, size_t count)
{
    struct pieces inside = {0};
    struct pieces ends = {0};
    uint64_t pieces = 0;
    for (size_t i = 0; i < count; i++) {
        if (writes_bytes(&ops[i])) {
            pieces += (uint64_t)ops[i].argument.bytes.size * (walk->length_count + 1);
        }
    }
    if (pieces > PIECES_MAX) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct bytes bytes = ops[i].argument.bytes;
        if (!writes_bytes(&ops[i])) {
            continue;
        }
        for (uint32_t j = 0; j < walk->length_count; j++) {
            for (size_t at = 0; at + walk->lengths[j] <= bytes.size; at++) {
                count_piece(&inside, bytes.data + at, walk->lengths[j]);
            }
        }
        for (size_t size = 1; size <= bytes.size && size < walk->length_max; size++) {
            count_piece(&ends, bytes.data + bytes.size - size, size);
        }
    }
    for (uint32_t t = 0; t < walk->model->token_count; t++) {
        struct bytes token = walk->model->tokens[t];
        bool unique = token.size > 0 && piece_count(&inside, token.data, token.size) == 1;
        for (size_t size = 1; size < token.size && unique; size++) {
            unique = piece_count(&ends, token.data, size) == 0;
        }
        walk->unique[t] = unique;
    }
    pieces_deinit(&inside);
    pieces_deinit(&ends);
}

/* ---- walking the values
 * ------------------------------------------------------------------------------------------ */

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

/* The values that begin with the find end before `to`. */
static void conclude(struct walk *walk, const struct find *find, uint32_t to)
{
    struct lin_reading *reading = walk->reading;
    uint32_t before = walk->required_before[find->from];
    if (!walk->unique[find->token] || walk->required_before[to] == before) {
        return;
    }
    uint32_t witness = find->from;
    while (!walk->required[witness]) {
        witness++;
    }
    uint32_t value =
        lin_model_prefix(walk->model, (struct lin_model_value){find->from, to, find->end});
    uint32_t *result = &reading->result[find->token];
    if (*result == LIN_VALUE_NONE) {
        *result = value;
    } else if (*result != value && reading->twice == LIN_READING_NONE) {
        uint32_t first = walk->model->values[*result].from;
        while (!walk->required[first]) {
            first++;
        }
        reading->twice = find->token;
        reading->twice_in[0] = first;
        reading->twice_in[1] = witness;
    }
}

static void add_find(struct walk *walk, struct find find)
{
    if (walk->find_count == walk->find_capacity) {
        walk->find_capacity = walk->find_capacity == 0 ? 64 : 2 * walk->find_capacity;
        walk->finds = mem_realloc(walk->finds, walk->find_capacity * sizeof walk->finds[0]);
    }
    walk->finds[walk->find_count++] = find;
}

/* Tokens that begin at `at` of observed[index] and end after `shared`. */
static void find_tokens(struct walk *walk, uint32_t index, size_t at, size_t shared)
{
    const struct lin_model *model = walk->model;
    struct bytes value = model->observed[index];
    for (uint32_t i = 0; i < walk->length_count; i++) {
        uint32_t length = walk->lengths[i];
        uint32_t token;
        if (length > value.size - at || at + length <= shared) {
            continue;
        }
        if (lin_model_find_token(model, bytes_of(value.data + at, length), &token)) {
            walk->reading->seen[token] = true;
            walk->reached[at + length] = true;
            add_find(walk, (struct find){token, index, (uint32_t)(at + length)});
        }
    }
}

static void walk_value(struct walk *walk, uint32_t index, size_t shared, size_t *next_base)
{
    struct lin_model *model = walk->model;
    struct bytes value = model->observed[index];
    if (value.size > shared) {
        memset(walk->reached + shared + 1, false, value.size - shared);
    }
    walk->reached[0] = true;
    bool empty_made = false;
    for (; *next_base < walk->base_count && walk->bases[*next_base].from == index; (*next_base)++) {
        uint32_t size = walk->bases[*next_base].size;
        walk->reached[size] = true;
        empty_made = empty_made || size == 0;
    }
    size_t at = shared >= walk->length_max ? shared - walk->length_max + 1 : 0;
    for (; at < value.size; at++) {
        if (walk->reached[at]) {
            find_tokens(walk, index, at, shared);
        }
    }
    /* Nothing at all reaches place 0, but only a write of nothing makes the empty value. */
    bool written = value.size > 0
                       ? walk->reached[value.size]
                       : empty_made || (model->token_count > 0 && model->tokens[0].size == 0);
    if (!written && walk->required[index] && walk->reading->unwritten == LIN_READING_NONE) {
        walk->reading->unwritten = index;
    }
}

static void walk_all(struct walk *walk)
{
    struct lin_model *model = walk->model;
    size_t next_base = 0;
    for (uint32_t i = 0; i < model->observed_count; i++) {
        size_t shared = i == 0 ? 0 : common_size(model->observed[i - 1], model->observed[i]);
        size_t kept = 0;
        for (size_t j = 0; j < walk->find_count; j++) {
            if (walk->finds[j].end > shared) {
                conclude(walk, &walk->finds[j], i);
            } else {
                walk->finds[kept++] = walk->finds[j];
            }
        }
        walk->find_count = kept;
        walk_value(walk, i, shared, &next_base);
    }
    for (size_t j = 0; j < walk->find_count; j++) {
        conclude(walk, &walk->finds[j], model->observed_count);
    }
}

/* ---- setting up
 * ---------------------------------------------------------------------------------------------------
 */

static int by_from(const void *a, const void *b)
{
    const struct lin_model_value *x = a;
    const struct lin_model_value *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
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
        if ((op->kind == LIN_GET || op->kind == LIN_CAS) && op->observed.present &&
            op->returned_ns != LIN_NEVER) {
            walk->required[model->values[lin_model_value(model, op->observed)].from] = true;
        }
    }
    qsort(walk->bases, walk->base_count, sizeof walk->bases[0], by_from);
    for (uint32_t i = 0; i < model->observed_count; i++) {
        walk->required_before[i + 1] = walk->required_before[i] + walk->required[i];
    }
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
            walk->reading->seen[t] = walk->reading->seen[t] || size == 0;
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

void lin_reading_init(struct lin_reading *reading, struct lin_model *model,
                      const struct lin_op *ops, size_t count)
{
    uint32_t tokens = model->token_count;
    *reading = (struct lin_reading){.seen = mem_calloc(tokens, sizeof reading->seen[0]),
                                    .result = mem_calloc(tokens, sizeof reading->result[0]),
                                    .unwritten = LIN_READING_NONE,
                                    .twice = LIN_READING_NONE};
    for (uint32_t t = 0; t < tokens; t++) {
        reading->result[t] = LIN_VALUE_NONE;
    }
    struct walk walk = {.model = model, .reading = reading};
    if (!collect_lengths(&walk)) {
        for (uint32_t t = 0; t < tokens; t++) {
            reading->seen[t] = true;
        }
        return;
    }
    size_t longest = 0;
    for (uint32_t i = 0; i < model->observed_count; i++) {
        longest = model->observed[i].size > longest ? model->observed[i].size : longest;
    }
    walk.reached = mem_calloc(longest + 1, sizeof walk.reached[0]);
    walk.required = mem_calloc(model->observed_count, sizeof walk.required[0]);
    walk.required_before =
        mem_calloc((size_t)model->observed_count + 1, sizeof walk.required_before[0]);
    walk.bases = mem_calloc(count, sizeof walk.bases[0]);
    walk.unique = mem_calloc(tokens, sizeof walk.unique[0]);
    collect(&walk, ops, count);
    find_unique(&walk, ops, count);
    walk_all(&walk);
    free(walk.reached);
    free(walk.required);
    free(walk.required_before);
    free(walk.bases);
    free(walk.unique);
    free(walk.finds);
}

void lin_reading_deinit(struct lin_reading *reading)
{
    free(reading->seen);
    free(reading->result);
}
