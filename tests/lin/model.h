/* What one key can hold, as far as a history can tell: values and states as small numbers.
 *
 * A value matters only by what observers (gets, compare-and-sets) may still see of it. Let the
 * distinct observed values of the key be sorted. A value that is a prefix of some of them is the
 * range of those it is a prefix of, and its length; every other present value is one and the same,
 * LIN_VALUE_OTHER: no observer will ever see it or anything appended to it. So values need no hash
 * and are compared exactly, however long they grow, and appending is a binary search.
 *
 *     observed, sorted   0 "ab;"   1 "ab;cd;"   2 "x"        "a" = {0, 2, 1}     "x" = {2, 3, 1}
 * "b" = OTHER
 *
 * A state is a value and what is known of its version: exactly it, or only that it is above one
 * that was there before. Both are interned: equal means same number. Memory is bounded by the
 * budget that the caller checks. */
#ifndef TESTS_LIN_MODEL_H
#define TESTS_LIN_MODEL_H

#include "lin/history.h"
#include "lin/map.h"

#define LIN_VALUE_ABSENT 0u
#define LIN_VALUE_OTHER  1u
#define LIN_VALUE_NONE   UINT32_MAX /* no value is claimed */

struct lin_model_value {
    uint32_t from, to; /* observed values with this prefix; from == to: ABSENT or OTHER */
    uint32_t size;
};

struct lin_model_state {
    uint32_t value;
    bool exact; /* the version is `version`; otherwise it is above */
    uint64_t version;
};

struct lin_model {
    struct bytes *observed; /* distinct, sorted; borrowed bytes */
    uint32_t observed_count;
    bool *from_nothing;   /* by observed value: some append could begin it on an absent key */
    struct bytes *tokens; /* what is appended: distinct, sorted; borrowed bytes */
    uint32_t token_count;
    bool versions; /* whether any is claimed; if not, a state is its value */
    struct lin_model_value *values;
    uint32_t value_count, value_capacity;
    struct lin_model_state *states;
    uint32_t state_count, state_capacity;
    struct lin_map value_map;  /* (from, size) -> value */
    struct lin_map append_map; /* (value, token) -> value */
    struct lin_map state_map;  /* (value and exact, version) -> state */
};

/* Of the operations of one key. */
void lin_model_init(struct lin_model *model, const struct lin_op *ops, size_t count);
void lin_model_deinit(struct lin_model *model);
uint64_t lin_model_bytes(const struct lin_model *model);

uint32_t lin_model_value(struct lin_model *model, struct lin_value value);
uint32_t lin_model_token(const struct lin_model *model, struct bytes token); /* one of `tokens` */
bool lin_model_find_token(const struct lin_model *model, struct bytes token, uint32_t *out);
uint32_t lin_model_append(struct lin_model *model, uint32_t value, uint32_t token);
/* Whether appends alone could make the observed value `end` (or ABSENT) of `value`. Necessary, not
 * sufficient. */
bool lin_model_reaches(const struct lin_model *model, uint32_t value, uint32_t end);

uint32_t lin_model_state(struct lin_model *model, struct lin_model_state state);
static inline uint32_t lin_model_state_value(const struct lin_model *model, uint32_t state)
{
    return model->versions ? model->states[state].value : state;
}

#endif
