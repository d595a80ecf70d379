/* See linear.h.
 *
 * The search keeps a list of call and return events by time. From its front it tries to let one
 * called operation take effect: its two events leave the list. A return in front of the list whose
 * operation has not taken effect is a dead end: the last choice is taken back. A pair (set of
 * operations that took effect, state) that was reached before is not entered again: with unknown
 * operations returning at the end of time this is complete. */
#include "sim/linear.h"

#include "base/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MEMO_BYTES_MAX = 512 * 1024 * 1024,
    STEPS_MAX = 50 * 1000 * 1000,
    TEXT_BYTES_MIN = 4, /* of a write that is looked for in what gets show */
};

/* A string: length and sum of byte * BASE^i modulo a prime near 2^61, most significant byte first.
 */
struct state {
    uint64_t size;
    uint64_t hash;
};

struct operation {
    char *key;
    enum linear_kind kind;
    struct state value;
    uint8_t *text; /* NULL unless the history is of distinct writes */
    uint64_t called_ns;
    uint64_t returned_ns;
    bool dropped;
};

struct linear_history {
    struct operation *operations;
    size_t count;
    size_t capacity;
    bool distinct;
};

#define PRIME ((UINT64_C(1) << 61) - 1)
#define BASE  UINT64_C(0x1234567890abcd7)

static uint64_t multiply(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    uint64_t sum = (uint64_t)(product & PRIME) + (uint64_t)(product >> 61);
    return sum >= PRIME ? sum - PRIME : sum;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    uint64_t sum = a + b;
    return sum >= PRIME ? sum - PRIME : sum;
}

static struct state state_of(const uint8_t *data, size_t size)
{
    struct state state = {.size = size};
    for (size_t i = 0; i < size; i++) {
        state.hash = add(multiply(state.hash, BASE), (uint64_t)data[i] + 1);
    }
    return state;
}

static uint64_t power(uint64_t exponent)
{
    uint64_t result = 1;
    for (uint64_t square = BASE; exponent > 0; exponent >>= 1, square = multiply(square, square)) {
        if ((exponent & 1) != 0) {
            result = multiply(result, square);
        }
    }
    return result;
}

static struct state state_append(struct state a, struct state b)
{
    return (struct state){.size = a.size + b.size,
                          .hash = add(multiply(a.hash, power(b.size)), b.hash)};
}

static bool state_equal(struct state a, struct state b)
{
    return a.size == b.size && a.hash == b.hash;
}

/* ---- history ---- */

struct linear_history *linear_create(bool distinct)
{
    struct linear_history *history = mem_calloc(1, sizeof *history);
    history->distinct = distinct;
    return history;
}

void linear_destroy(struct linear_history *history)
{
    for (size_t i = 0; i < history->count; i++) {
        free(history->operations[i].key);
        free(history->operations[i].text);
    }
    free(history->operations);
    free(history);
}

void linear_add(struct linear_history *history, const char *key, enum linear_kind kind,
                const void *value, size_t size, uint64_t called_ns, uint64_t returned_ns)
{
    if (kind == LINEAR_GET && returned_ns == LINEAR_NEVER) {
        return; /* says nothing */
    }
    if (history->count == history->capacity) {
        history->capacity = history->capacity == 0 ? 1024 : history->capacity * 2;
        history->operations =
            mem_realloc(history->operations, history->capacity * sizeof history->operations[0]);
    }
    history->operations[history->count++] =
        (struct operation){.key = mem_strdup(key),
                           .kind = kind,
                           .value = state_of(value, size),
                           .text = history->distinct ? mem_dup(value, size) : NULL,
                           .called_ns = called_ns,
                           .returned_ns = returned_ns};
}

size_t linear_count(const struct linear_history *history)
{
    return history->count;
}

/* ---- the search, for one key ---- */

struct event {
    struct event *next, *prev;
    struct event *match; /* a call's return; NULL in a return */
    uint64_t at_ns;
    bool is_call;
    size_t operation; /* of this key: 0 .. count-1 */
};

struct memo {
    struct memo *next;
    struct state state;
    uint64_t done_hash;
    uint64_t done[];
};

struct choice {
    struct event *call;
    struct state before;
};

struct search {
    const struct operation *operations;
    size_t count;
    struct event *events;
    struct event head;
    uint64_t *done;
    size_t words;
    struct memo **buckets;
    size_t bucket_count;
    size_t memo_count;
    size_t memo_bytes;
    size_t steps;
    struct choice *choices;
    size_t choice_count;
    size_t deepest;         /* most operations that took effect */
    size_t stuck_operation; /* whose return could not be passed then */
};

static int by_time(const void *a, const void *b)
{
    const struct event *x = a;
    const struct event *y = b;
    if (x->at_ns != y->at_ns) {
        return x->at_ns < y->at_ns ? -1 : 1;
    }
    if (x->is_call != y->is_call) {
        return x->is_call ? -1 : 1; /* at one moment they overlap */
    }
    return x->operation < y->operation ? -1 : x->operation > y->operation;
}

static void make_events(struct search *search)
{
    size_t n = search->count;
    struct event *sorted = mem_calloc(2 * n, sizeof *sorted);
    struct event **calls = mem_calloc(n, sizeof *calls);
    for (size_t i = 0; i < n; i++) {
        sorted[2 * i] = (struct event){
            .at_ns = search->operations[i].called_ns, .is_call = true, .operation = i};
        sorted[2 * i + 1] =
            (struct event){.at_ns = search->operations[i].returned_ns, .operation = i};
    }
    qsort(sorted, 2 * n, sizeof *sorted, by_time);
    struct event *last = &search->head;
    for (size_t i = 0; i < 2 * n; i++) {
        struct event *event = &sorted[i];
        event->prev = last;
        last->next = event;
        last = event;
        if (event->is_call) {
            calls[event->operation] = event;
        } else {
            calls[event->operation]->match = event;
        }
    }
    last->next = NULL;
    free(calls);
    search->events = sorted;
}

static void event_lift(struct event *event)
{
    event->prev->next = event->next;
    if (event->next != NULL) {
        event->next->prev = event->prev;
    }
}

static void event_put_back(struct event *event)
{
    event->prev->next = event;
    if (event->next != NULL) {
        event->next->prev = event;
    }
}

static bool step(const struct operation *operation, struct state before, struct state *after)
{
    switch (operation->kind) {
    case LINEAR_GET:
        *after = before;
        return state_equal(before, operation->value);
    case LINEAR_PUT:
        *after = operation->value;
        return true;
    case LINEAR_APPEND:
        *after = state_append(before, operation->value);
        return true;
    }
    return false;
}

static uint64_t hash_done(const struct search *search)
{
    uint64_t hash = 1469598103934665603ull;
    for (size_t i = 0; i < search->words; i++) {
        hash = (hash ^ search->done[i]) * 1099511628211ull;
        hash ^= hash >> 29;
    }
    return hash;
}

static struct memo **bucket_of(const struct search *search, uint64_t done_hash, struct state state)
{
    return &search->buckets[(done_hash ^ state.hash ^ state.size) % search->bucket_count];
}

static void memo_grow(struct search *search)
{
    struct memo **old = search->buckets;
    size_t old_count = search->bucket_count;
    search->bucket_count = 4 * old_count + 1;
    search->buckets = mem_calloc(search->bucket_count, sizeof(struct memo *));
    for (size_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            struct memo *memo = old[i];
            old[i] = memo->next;
            struct memo **bucket = bucket_of(search, memo->done_hash, memo->state);
            memo->next = *bucket;
            *bucket = memo;
        }
    }
    free(old);
}

/* True when it is new. */
static bool memo_enter(struct search *search, struct state state)
{
    uint64_t hash = hash_done(search);
    struct memo **bucket = bucket_of(search, hash, state);
    size_t bytes = search->words * sizeof(uint64_t);
    for (const struct memo *memo = *bucket; memo != NULL; memo = memo->next) {
        if (memo->done_hash == hash && state_equal(memo->state, state) &&
            memcmp(memo->done, search->done, bytes) == 0) {
            return false;
        }
    }
    struct memo *memo = mem_alloc(sizeof *memo + bytes);
    memo->next = *bucket;
    memo->state = state;
    memo->done_hash = hash;
    memcpy(memo->done, search->done, bytes);
    *bucket = memo;
    search->memo_bytes += sizeof *memo + bytes;
    search->memo_count++;
    if (search->memo_count > search->bucket_count) {
        memo_grow(search);
    }
    return true;
}

static void mark(struct search *search, size_t operation, bool done)
{
    uint64_t bit = UINT64_C(1) << (operation % 64);
    if (done) {
        search->done[operation / 64] |= bit;
    } else {
        search->done[operation / 64] &= ~bit;
    }
}

/* Lets the called operation take effect if that leads somewhere new. */
static bool try_call(struct search *search, struct event *call, struct state *state)
{
    struct state after;
    if (!step(&search->operations[call->operation], *state, &after)) {
        return false;
    }
    mark(search, call->operation, true);
    if (!memo_enter(search, after)) {
        mark(search, call->operation, false);
        return false;
    }
    search->choices[search->choice_count++] = (struct choice){.call = call, .before = *state};
    *state = after;
    event_lift(call);
    event_lift(call->match);
    return true;
}

static enum linear_verdict search_run(struct search *search)
{
    struct state state = {0, 0};
    struct event *at = search->head.next;
    while (search->head.next != NULL) {
        if (search->memo_bytes > MEMO_BYTES_MAX || ++search->steps > STEPS_MAX) {
            return LINEAR_GAVE_UP;
        }
        if (at->is_call) {
            at = try_call(search, at, &state) ? search->head.next : at->next;
            continue;
        }
        if (search->choice_count >= search->deepest) {
            search->deepest = search->choice_count;
            search->stuck_operation = at->operation;
        }
        if (search->choice_count == 0) {
            return LINEAR_BROKEN;
        }
        struct choice *choice = &search->choices[--search->choice_count];
        mark(search, choice->call->operation, false);
        state = choice->before;
        event_put_back(choice->call->match);
        event_put_back(choice->call);
        at = choice->call->next;
    }
    return LINEAR_OK;
}

static void search_deinit(struct search *search)
{
    for (size_t i = 0; i < search->bucket_count; i++) {
        while (search->buckets[i] != NULL) {
            struct memo *memo = search->buckets[i];
            search->buckets[i] = memo->next;
            free(memo);
        }
    }
    free(search->buckets);
    free(search->done);
    free(search->choices);
    free(search->events);
}

static const char *kind_name(enum linear_kind kind)
{
    return kind == LINEAR_GET ? "get" : kind == LINEAR_PUT ? "put" : "append";
}

static enum linear_verdict check_key(const struct operation *operations, size_t count, char *why,
                                     size_t why_size)
{
    struct search search = {.operations = operations, .count = count};
    search.words = (count + 63) / 64;
    search.done = mem_calloc(search.words, sizeof(uint64_t));
    search.bucket_count = 4 * count + 1;
    search.buckets = mem_calloc(search.bucket_count, sizeof(struct memo *));
    search.choices = mem_calloc(count, sizeof(struct choice));
    make_events(&search);
    enum linear_verdict verdict = search_run(&search);
    const struct operation *stuck = &operations[search.stuck_operation];
    if (verdict != LINEAR_OK) {
        (void)snprintf(
            why, why_size,
            "key %s: %s; %zu of %zu operations can be ordered, then not the %s (%llu bytes) "
            "called at %.6f s, returned at %.6f s",
            stuck->key, verdict == LINEAR_BROKEN ? "not linearizable" : "too many orders",
            search.deepest, count, kind_name(stuck->kind), (unsigned long long)stuck->value.size,
            (double)stuck->called_ns / 1e9 - 1000, (double)stuck->returned_ns / 1e9 - 1000);
    }
    search_deinit(&search);
    return verdict;
}

/* ---- unknown outcomes ---- */

static bool shows(const struct operation *get, const struct operation *write)
{
    return memmem(get->text, get->value.size, write->text, write->value.size) != NULL;
}

/* See linear_create. The operations of one key. */
static void settle_unknown(struct operation *operations, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct operation *write = &operations[i];
        if (write->returned_ns != LINEAR_NEVER || write->value.size < TEXT_BYTES_MIN) {
            continue;
        }
        write->dropped = true;
        for (size_t j = 0; j < count; j++) {
            const struct operation *get = &operations[j];
            if (get->kind == LINEAR_GET && get->returned_ns < write->returned_ns &&
                shows(get, write)) {
                write->returned_ns = get->returned_ns;
                write->dropped = false;
            }
        }
    }
}

static size_t remove_dropped(struct operation *operations, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (!operations[i].dropped) { /* those dropped go behind, to be freed with the rest */
            struct operation swapped = operations[kept];
            operations[kept++] = operations[i];
            operations[i] = swapped;
        }
    }
    return kept;
}

static bool has_get(const struct operation *operations, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (operations[i].kind == LINEAR_GET) {
            return true;
        }
    }
    return false;
}

static int by_key(const void *a, const void *b)
{
    const struct operation *x = a;
    const struct operation *y = b;
    int order = strcmp(x->key, y->key);
    if (order != 0) {
        return order;
    }
    return x->called_ns < y->called_ns ? -1 : x->called_ns > y->called_ns;
}

enum linear_verdict linear_check(struct linear_history *history, char *why, size_t why_size)
{
    struct operation *operations = history->operations;
    qsort(operations, history->count, sizeof *operations, by_key);
    enum linear_verdict verdict = LINEAR_OK;
    size_t from = 0;
    while (from < history->count && verdict == LINEAR_OK) {
        size_t to = from;
        while (to < history->count && strcmp(operations[to].key, operations[from].key) == 0) {
            to++;
        }
        size_t count = to - from;
        if (history->distinct) {
            settle_unknown(operations + from, count);
            count = remove_dropped(operations + from, count);
        }
        if (has_get(operations + from, count)) { /* otherwise every order will do */
            verdict = check_key(operations + from, count, why, why_size);
        }
        from = to;
    }
    return verdict;
}
