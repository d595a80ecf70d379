/* See lin_brute.h. */
#include "unit/lin_brute.h"

#include "base/assert.h"

#include <string.h>

struct brute_key {
    bool present;
    size_t size;
    char bytes[BRUTE_VALUE_BYTES_MAX];
    /* The versions of the states so far, in order; 0: not told. */
    uint64_t versions[2 * BRUTE_OPS_MAX];
    size_t version_count;
};

static bool holds(const struct brute_key *key, struct lin_value value)
{
    if (!key->present || !value.present) {
        return key->present == value.present;
    }
    return key->size == value.bytes.size &&
           (key->size == 0 || memcmp(key->bytes, value.bytes.data, key->size) == 0);
}

static void extend(struct brute_key *key, struct bytes bytes)
{
    ASSERT_CMP(key->size + bytes.size, <=, BRUTE_VALUE_BYTES_MAX);
    if (bytes.size > 0) {
        memcpy(key->bytes + key->size, bytes.data, bytes.size);
    }
    key->size += bytes.size;
    key->present = true;
}

static void clear(struct brute_key *key)
{
    key->present = false;
    key->size = 0;
}

static bool growing(const struct brute_key *key)
{
    uint64_t last = 0;
    for (size_t i = 0; i < key->version_count; i++) {
        if (key->versions[i] == 0) {
            continue;
        }
        if (key->versions[i] <= last) {
            return false;
        }
        last = key->versions[i];
    }
    return true;
}

static bool tell(struct brute_key *key, uint64_t version)
{
    if (version == 0) {
        return true;
    }
    uint64_t *now = &key->versions[key->version_count - 1];
    if (*now != 0 && *now != version) {
        return false;
    }
    *now = version;
    return growing(key);
}

static bool change(struct brute_key *key, uint64_t version)
{
    key->versions[key->version_count++] = 0;
    return tell(key, version);
}

static bool take_effect(struct brute_key *key, const struct lin_op *op)
{
    switch (op->kind) {
    case LIN_GET:
        return holds(key, op->observed) && tell(key, op->version);
    case LIN_SEEN:
        return key->present && tell(key, op->version);
    case LIN_PUT:
        clear(key);
        extend(key, op->argument.bytes);
        return change(key, op->version);
    case LIN_APPEND:
        extend(key, op->argument.bytes);
        return change(key, op->version);
    case LIN_DELETE:
        clear(key);
        return change(key, 0);
    case LIN_CAS:
        if (!holds(key, op->observed) || !tell(key, op->expected)) {
            return false;
        }
        clear(key);
        if (op->argument.present) {
            extend(key, op->argument.bytes);
        }
        return change(key, op->argument.present ? op->version : 0);
    }
    return false;
}

static bool may_be_next(const struct lin_op *ops, size_t count, unsigned placed, size_t which)
{
    for (size_t i = 0; i < count; i++) {
        if ((placed & 1u << i) == 0 && ops[i].returned_ns < ops[which].called_ns) {
            return false;
        }
    }
    return true;
}

static bool try_all(const struct lin_op *ops, size_t count, unsigned placed,
                    const struct brute_key *key)
{
    bool all = true;
    for (size_t i = 0; i < count; i++) {
        all = all && ((placed & 1u << i) != 0 || ops[i].returned_ns == LIN_NEVER);
    }
    if (all) {
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        if ((placed & 1u << i) != 0 || !may_be_next(ops, count, placed, i)) {
            continue;
        }
        struct brute_key after = *key;
        if (take_effect(&after, &ops[i]) && try_all(ops, count, placed | 1u << i, &after)) {
            return true;
        }
    }
    return false;
}

bool brute_linearizable(const struct lin_op *ops, size_t count)
{
    ASSERT_CMP(count, <=, BRUTE_OPS_MAX);
    struct brute_key key = {.version_count = 1};
    return try_all(ops, count, 0, &key);
}
