/* A history: what clients called and what they were answered, in memory. Recorders add operations
 * to it, the checker (check.h) reads it; history_json.h fills it from a file.
 *
 * Time is one clock for all clients, in any unit. Of two events at the same moment a call counts as
 * earlier than a return, so that such operations overlap: a coarse clock makes the checker weaker,
 * never wrong.
 *
 * An operation that was surely not executed is not added at all. One whose outcome is unknown is
 * added with LIN_NEVER as its return: it may take effect at any moment after its call, also never.
 * One owner, one thread. */
#ifndef TESTS_LIN_HISTORY_H
#define TESTS_LIN_HISTORY_H

#include "base/bytes.h"
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIN_NEVER UINT64_MAX /* a return that was not seen */

enum lin_kind {
    LIN_GET = 1,
    LIN_PUT,
    LIN_APPEND, /* to an absent key as to an empty value */
    LIN_DELETE, /* of an absent key too */
    LIN_CAS,    /* `observed` was there and `argument` took its place; a refused one is not added */
    LIN_SEEN, /* the key was seen present at `version`, its value untold: a refused cas that told it
               */
};

struct lin_value {
    bool present;
    struct bytes bytes; /* empty when absent */
};
#define LIN_ABSENT ((struct lin_value){false, {NULL, 0}})
static inline struct lin_value lin_value_of(const void *data, size_t size)
{
    return (struct lin_value){true, bytes_of(data, size)};
}
bool lin_value_equal(struct lin_value a, struct lin_value b);

struct lin_op {
    enum lin_kind kind;
    uint64_t process; /* who called; of no meaning to the checker */
    uint64_t called_ns;
    uint64_t returned_ns; /* at or after called_ns; LIN_NEVER: outcome unknown */
    struct bytes key;
    struct lin_value argument; /* PUT, APPEND, CAS: what is written; only a CAS may write absent */
    struct lin_value observed; /* GET: what was read; CAS: what had to be there */
    /* Versions are claims beyond the values and may be left 0, each for itself. They grow with
     * every change of the key. */
    uint64_t version;  /* GET, SEEN: the one read; PUT, APPEND, CAS that returned: the one made */
    uint64_t expected; /* CAS: the one that had to be there */
    uint64_t line;     /* where it stands in a file, for people; 0: nowhere */
};

struct lin_history;

struct lin_history *lin_history_create(void); /* gives */
void lin_history_destroy(struct lin_history *history);
/* Copies the key and the values. A get or LIN_SEEN that never returned says nothing and is left
 * out. */
void lin_history_add(struct lin_history *history, const struct lin_op *op);
size_t lin_history_count(const struct lin_history *history);
/* Bytes held. */
uint64_t lin_history_bytes(const struct lin_history *history);
/* By key, within a key by call, then in the order added. Valid until the next add; sorts when
 * something was added. */
const struct lin_op *lin_history_sorted(struct lin_history *history);

#endif
