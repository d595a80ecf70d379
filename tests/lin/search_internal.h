/* What search_prepare.c makes and search.c walks.
 *
 * A task is an operation in the words of the model. Required tasks returned, so each must get its
 * place; open ones have an unknown outcome and may. What is still to be placed stands in doubly
 * linked lists; placing a task takes it out of all of them, and undoing in the opposite order puts
 * everything back (Knuth's dancing links). */
#ifndef TESTS_LIN_SEARCH_INTERNAL_H
#define TESTS_LIN_SEARCH_INTERNAL_H

#include "lin/memo.h"
#include "lin/model.h"
#include "lin/reading.h"
#include "lin/search.h"

#define AT_NEVER UINT32_MAX
#define NO_TASK  UINT32_MAX

enum task_kind {
    TASK_OBSERVE, /* get, seen */
    TASK_WRITE,   /* put, delete: whatever was there, `argument` is */
    TASK_APPEND,
    TASK_CAS,
};

struct task {
    enum task_kind kind;
    bool open;
    bool loose;  /* its effect is seen by nobody and it claims nothing: may be placed whenever that
                    disturbs nobody */
    bool claims; /* required, and not every state or order would do */
    uint32_t argument; /* WRITE, CAS: a value; APPEND: a token */
    uint32_t want;     /* OBSERVE, CAS: a value; LIN_VALUE_NONE: any that is present */
    uint32_t result;   /* APPEND: what it must make, see reading.h; LIN_VALUE_NONE: not known */
    /* Required: the only WRITE or CAS after which, and before any other, it can be placed; NO_TASK:
     * not known. Those with one base, and the base, are its cluster: they come together in every
     * order. */
    uint32_t base;
    uint32_t cluster_returned_at,
        cluster_called_at;           /* WRITE, CAS: first return and last call of its cluster */
    uint32_t bit;                    /* its number among the required or among the open, by call */
    uint32_t called_at, returned_at; /* its events' places in the order of all */
    uint32_t twin;     /* open: the one before it, by call, with the same effect; NO_TASK: none */
    uint64_t version;  /* OBSERVE: the one seen; else the one made; 0: not claimed */
    uint64_t expected; /* CAS */
    uint64_t hash;     /* its share in the hash of the set of those placed */
    size_t source;     /* the operation */
};

/* Circular lists over numbered nodes; a list is known by its sentinel. */
struct links {
    uint32_t *previous, *next;
};

struct search {
    struct lin_model model;
    bool plain;
    bool cautious;      /* some observer tells no value, so that no write is surely unseen */
    struct task *tasks; /* the required by call, then the open by call */
    uint32_t required_count, task_count;

    struct links events;    /* 0: sentinel; of required task i: call 1 + 2i, return 2 + 2i */
    struct links opens;     /* 0: sentinel; task required_count + i is node 1 + i */
    struct links by_return; /* 0: sentinel; required observers, node 1 + task */
    struct links
        readers; /* the same for each wanted value; value v's sentinel is 1 + required_count + v */
    struct links by_version; /* 0: sentinel; required tasks that claim a version, node 1 + task */
    struct links
        clusters; /* 0: sentinel; bases yet to be placed by cluster_returned_at, node 1 + task */
    uint32_t reader_value_count;
    uint32_t *dependents; /* by task: of its cluster, those yet to be placed */

    uint64_t *done, *open_done; /* bits by task.bit */
    uint64_t set_hash;
    uint32_t claims_left;
    uint32_t *trail; /* tasks in the order they were placed */
    uint32_t trail_count;
    uint32_t bits_end, open_bits_end; /* one more than the highest bit set */
    struct lin_memo memo;
    uint64_t fixed_bytes; /* all of the above that does not grow */
};

/* False: it is broken already, and `info` says why. Deinit either way. */
bool search__prepare(struct search *search, const struct lin_op *ops, size_t count, bool plain,
                     struct lin_search_info *info, bool *pointless);
void search__deinit(struct search *search);

static inline uint32_t call_node(uint32_t task)
{
    return 1 + 2 * task;
}
static inline uint32_t return_node(uint32_t task)
{
    return 2 + 2 * task;
}
static inline bool node_is_call(uint32_t node)
{
    return node % 2 == 1;
}
static inline uint32_t node_task(uint32_t node)
{
    return (node - 1) / 2;
}
static inline uint32_t reader_sentinel(const struct search *search, uint32_t value)
{
    return 1 + search->required_count + value;
}
static inline bool task_observes(const struct task *task)
{
    return task->kind == TASK_OBSERVE || task->kind == TASK_CAS;
}

#endif
