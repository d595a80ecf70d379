/* Is a history of gets, puts and appends linearizable? Each key by itself (linearizability is
 * local: Herlihy and Wing, 3.2), by the search of Wing and Gong with Lowe's memory of what was
 * tried. A value is known by its length and a rolling hash, so a state is two numbers however long
 * the strings grow.
 *
 * An operation whose outcome is unknown may take effect at any moment after its call, also after
 * everything else. One that surely was not executed is not given to the checker at all. */
#ifndef TESTS_SIM_LINEAR_H
#define TESTS_SIM_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum linear_kind { LINEAR_GET = 1, LINEAR_PUT, LINEAR_APPEND };

#define LINEAR_NEVER UINT64_MAX /* a return that was not seen */

struct linear_history;

/* `distinct`: no text of a write occurs in the value of its key but by that write. Then a write of
 * unknown outcome that no get shows may be left out (whoever overwrote it hid it for good), and one
 * that is shown took effect before that get returned: without this, many unknown outcomes make the
 * search endless. gives */
struct linear_history *linear_create(bool distinct);
void linear_destroy(struct linear_history *history);
/* `value`: of a get what was answered ("" for absent), otherwise the argument. Copied. */
void linear_add(struct linear_history *history, const char *key, enum linear_kind kind,
                const void *value, size_t size, uint64_t called_ns, uint64_t returned_ns);
size_t linear_count(const struct linear_history *history);

enum linear_verdict { LINEAR_OK = 0, LINEAR_BROKEN, LINEAR_GAVE_UP /* too many states */ };
/* `why` names the key, and the operations that no order explains. */
enum linear_verdict linear_check(struct linear_history *history, char *why, size_t why_size);

#endif
