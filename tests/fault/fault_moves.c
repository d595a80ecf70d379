/* J6, J7, J8: shards with data in them move while groups go down and processes are killed. */
#include "fault/ballast.h"
#include "fault/fault_test.h"

#include <stdio.h>

enum { GROUPS = 3 };

static void begin(struct fault *fault, const char *name)
{
    fault_begin(fault, name, GROUPS);
    double from = now_seconds();
    ballast_load(fault);
    fault->until += now_seconds() - from;
}

static void end(struct fault *fault)
{
    CHECK_CMP(fault->moves, >, 0);
    fault_heal(fault);
    ballast_check(fault);
    fault_end(fault);
}

static uint64_t owner_of(struct fault *fault, uint32_t shard)
{
    int code = -1;
    json_t *config =
        cluster_ctl_json(&fault->cluster, 60, &code, "query", "--timeout", "30s", NULL);
    CHECK_EQ(code, 0);
    const json_t *owner = json_array_get(json_object_get(config, "owners"), shard);
    CHECK(json_is_integer(owner));
    uint64_t group = (uint64_t)json_integer_value(owner);
    json_decref(config);
    return group;
}

struct move {
    uint64_t from, to;
};

/* A drawn shard goes to a drawn group that does not own it. It has only begun on return. */
static struct move move_on(struct fault *fault)
{
    uint32_t shard = (uint32_t)rng_below(&fault->rng, FAULT_SHARDS);
    struct move move = {.from = owner_of(fault, shard)};
    move.to = 1 + (move.from - 1 + rng_between(&fault->rng, 1, GROUPS - 1)) % GROUPS;
    fault_move(fault, shard, move.to);
    return move;
}

/* ---- J6: moves, all present, no key ever seen as missing ---- */

static void j6(void)
{
    struct fault fault;
    begin(&fault, "J6");
    for (; fault_goes_on(&fault); fault.rounds++) {
        (void)move_on(&fault);
        fault_expect_progress(&fault, 50, 30);
    }
    end(&fault);
}

/* ---- J7: the source group goes down in the middle: other shards go on ---- */

static void j7(void)
{
    struct fault fault;
    begin(&fault, "J7");
    for (; fault_goes_on(&fault); fault.rounds++) {
        struct move move = move_on(&fault);
        fault_let_run((double)rng_below(&fault.rng, 150) / 1000);
        fault_kill_some(&fault, move.from, CLUSTER_REPLICAS);
        fault_expect_progress(&fault, 20, 30); /* the other two groups' shards */
        fault_move_any(&fault);                /* the next config waits for the first one's moves */
        fault_expect_progress(&fault, 20, 30);
        fault_start_all(&fault);
        fault_expect_progress(&fault, 100, 60);
    }
    end(&fault);
}

/* ---- J8: kills during install or drop ---- */

static void kill_one_of(struct fault *fault, uint64_t group)
{
    struct process *leader =
        rng_chance(&fault->rng, 1, 2) ? cluster_leader(&fault->cluster, group, 1) : NULL;
    fault_kill(fault, leader != NULL ? leader : fault_any_of(fault, group));
}

static void j8(void)
{
    struct fault fault;
    begin(&fault, "J8");
    for (; fault_goes_on(&fault); fault.rounds++) {
        struct move move = move_on(&fault);
        fault_let_run((double)rng_below(&fault.rng, 150) / 1000);
        kill_one_of(&fault, move.to);
        fault_let_run((double)rng_below(&fault.rng, 50) / 1000);
        kill_one_of(&fault, move.from);
        fault_expect_progress(&fault, 20, 60);
        fault_start_all(&fault);
        fault_expect_progress(&fault, 50, 60);
    }
    end(&fault);
}

const struct suite_test fault_moves_tests[] = {
    {"J6", j6},
    {"J7", j7},
    {"J8", j8},
    {NULL, NULL},
};
