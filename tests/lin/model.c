/* See model.h.
 *
 * Invariants: observed[] and tokens[] are sorted and distinct. values[v] of any v but ABSENT and
 * OTHER holds from < to, all of observed[from .. to-1] begin with its `size` bytes and none else
 * does. */
#include "lin/model.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { INTERNED_FIRST = 64 };

static int by_bytes(const void *a, const void *b)
{
    return bytes_compare(*(const struct bytes *)a, *(const struct bytes *)b);
}

static uint32_t sort_distinct(struct bytes *list, size_t count)
{
    ASSERT_CMP(count, <, UINT32_MAX);
    qsort(list, count, sizeof *list, by_bytes);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || !bytes_equal(list[kept - 1], list[i])) {
            list[kept++] = list[i];
        }
    }
    return (uint32_t)kept;
}

static bool is_observer(const struct lin_op *op)
{
    return op->kind == LIN_GET || op->kind == LIN_CAS;
}

/* The observed values among [range.from, range.to) whose bytes from `range.size` on begin with
 * `token`; empty if there are none. */
static struct lin_model_value narrow(const struct lin_model *model, struct lin_model_value range,
                                     struct bytes token)
{
    if (token.size > UINT32_MAX - range.size) {
        return (struct lin_model_value){0};
    }
    uint32_t edge[2]; /* the first that is not below the token's run, the first that is above it */
    for (int which = 0; which < 2; which++) {
        uint32_t low = range.from;
        uint32_t high = range.to;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            struct bytes whole = model->observed[middle];
            size_t left = whole.size - range.size;
            size_t compared = left < token.size ? left : token.size;
            int order = compared == 0 ? 0 : memcmp(whole.data + range.size, token.data, compared);
            if (order == 0 && left < token.size) {
                order = -1;
            }
            bool before = which == 0 ? order < 0 : order <= 0;
            if (before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        edge[which] = low;
    }
    return (struct lin_model_value){edge[0], edge[1], range.size + (uint32_t)token.size};
}

static struct lin_model_value everything(const struct lin_model *model)
{
    return (struct lin_model_value){0, model->observed_count, 0};
}

static uint32_t intern_value(struct lin_model *model, struct lin_model_value value)
{
    if (value.from >= value.to) {
        return LIN_VALUE_OTHER;
    }
    uint32_t found;
    if (lin_map_find(&model->value_map, value.from, value.size, &found)) {
        return found;
    }
    if (model->value_count == model->value_capacity) {
        model->value_capacity *= 2;
        model->values = mem_realloc(model->values, model->value_capacity * sizeof model->values[0]);
    }
    model->values[model->value_count] = value;
    lin_map_add(&model->value_map, value.from, value.size, model->value_count);
    return model->value_count++;
}

/* Ranges are nested or apart, and tokens come sorted, the outer before the inner: a range whose
 * first value is marked is marked whole. */
static void mark_from_nothing(struct lin_model *model)
{
    for (uint32_t i = 0; i < model->token_count; i++) {
        struct lin_model_value range = narrow(model, everything(model), model->tokens[i]);
        for (uint32_t j = range.from; j < range.to && !model->from_nothing[j]; j++) {
            model->from_nothing[j] = true;
        }
    }
}

void lin_model_init(struct lin_model *model, const struct lin_op *ops, size_t count)
{
    *model = (struct lin_model){.value_capacity = INTERNED_FIRST, .state_capacity = INTERNED_FIRST};
    model->observed = mem_calloc(count, sizeof model->observed[0]);
    model->tokens = mem_calloc(count, sizeof model->tokens[0]);
    size_t observed_count = 0;
    size_t token_count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct lin_op *op = &ops[i];
        if (is_observer(op) && op->observed.present) {
            model->observed[observed_count++] = op->observed.bytes;
        }
        if (op->kind == LIN_APPEND) {
            model->tokens[token_count++] = op->argument.bytes;
        }
        model->versions = model->versions || op->version > 0 || op->expected > 0;
    }
    model->observed_count = sort_distinct(model->observed, observed_count);
    model->token_count = sort_distinct(model->tokens, token_count);
    model->from_nothing = mem_calloc(model->observed_count, sizeof model->from_nothing[0]);
    model->values = mem_calloc(model->value_capacity, sizeof model->values[0]);
    model->states = mem_calloc(model->state_capacity, sizeof model->states[0]);
    model->value_count = LIN_VALUE_OTHER + 1;
    mark_from_nothing(model);
}

void lin_model_deinit(struct lin_model *model)
{
    free(model->observed);
    free(model->tokens);
    free(model->from_nothing);
    free(model->values);
    free(model->states);
    lin_map_deinit(&model->value_map);
    lin_map_deinit(&model->append_map);
    lin_map_deinit(&model->state_map);
}

uint64_t lin_model_bytes(const struct lin_model *model)
{
    return (model->observed_count + model->token_count) * sizeof(struct bytes) +
           model->value_capacity * sizeof model->values[0] +
           model->state_capacity * sizeof model->states[0] + lin_map_bytes(&model->value_map) +
           lin_map_bytes(&model->append_map) + lin_map_bytes(&model->state_map);
}

uint32_t lin_model_value(struct lin_model *model, struct lin_value value)
{
    if (!value.present) {
        return LIN_VALUE_ABSENT;
    }
    return intern_value(model, narrow(model, everything(model), value.bytes));
}

bool lin_model_find_token(const struct lin_model *model, struct bytes token, uint32_t *out)
{
    const struct bytes *found =
        bsearch(&token, model->tokens, model->token_count, sizeof token, by_bytes);
    if (found == NULL) {
        return false;
    }
    *out = (uint32_t)(found - model->tokens);
    return true;
}

uint32_t lin_model_token(const struct lin_model *model, struct bytes token)
{
    uint32_t found = 0;
    bool known = lin_model_find_token(model, token, &found);
    ASSERT(known);
    return found;
}

uint32_t lin_model_append(struct lin_model *model, uint32_t value, uint32_t token)
{
    if (value == LIN_VALUE_OTHER) {
        return LIN_VALUE_OTHER;
    }
    uint32_t result;
    if (lin_map_find(&model->append_map, value, token, &result)) {
        return result;
    }
    struct lin_model_value range =
        value == LIN_VALUE_ABSENT ? everything(model) : model->values[value];
    result = intern_value(model, narrow(model, range, model->tokens[token]));
    lin_map_add(&model->append_map, value, token, result);
    return result;
}

bool lin_model_reaches(const struct lin_model *model, uint32_t value, uint32_t end)
{
    if (value == end) {
        return true;
    }
    if (model->token_count == 0 || value == LIN_VALUE_OTHER || end == LIN_VALUE_ABSENT ||
        end == LIN_VALUE_OTHER) {
        return false;
    }
    uint32_t at = model->values[end].from;
    if (value == LIN_VALUE_ABSENT) {
        return model->from_nothing[at];
    }
    return at >= model->values[value].from && at < model->values[value].to &&
           model->values[value].size <= model->values[end].size;
}

uint32_t lin_model_state(struct lin_model *model, struct lin_model_state state)
{
    if (!model->versions) {
        return state.value;
    }
    uint64_t first = state.value | (uint64_t)state.exact << 32;
    uint32_t found;
    if (lin_map_find(&model->state_map, first, state.version, &found)) {
        return found;
    }
    if (model->state_count == model->state_capacity) {
        model->state_capacity *= 2;
        model->states = mem_realloc(model->states, model->state_capacity * sizeof model->states[0]);
    }
    model->states[model->state_count] = state;
    lin_map_add(&model->state_map, first, state.version, model->state_count);
    return model->state_count++;
}
