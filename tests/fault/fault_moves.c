/* J6, J7, J8: shards move while groups go down and processes are killed. */
#include "fault/fault_test.h"

static void j6(void)
{
    struct fault fault;
    fault_begin(&fault, "J6", 3);
    for (; fault_goes_on(&fault); fault.rounds++) {
        fault_move_any(&fault);
        fault_expect_progress(&fault, 50, 30);
    }
    fault_end(&fault);
}

static void j7(void)
{
    struct fault fault;
    fault_begin(&fault, "J7", 3);
    for (; fault_goes_on(&fault); fault.rounds++) {
        uint64_t down = rng_between(&fault.rng, 1, 3);
        fault_move_any(&fault);
        fault_kill_some(&fault, down, CLUSTER_REPLICAS);
        fault_move_any(&fault);
        fault_let_run(2);
        fault_start_all(&fault);
        fault_expect_progress(&fault, 100, 60);
    }
    fault_end(&fault);
}

static void j8(void)
{
    struct fault fault;
    fault_begin(&fault, "J8", 3);
    for (; fault_goes_on(&fault); fault.rounds++) {
        fault_move_any(&fault);
        /* Somewhere in install or drop. */
        fault_let_run((double)rng_below(&fault.rng, 60) / 1000);
        fault_kill(&fault, fault_any_of(&fault, rng_between(&fault.rng, 1, 3)));
        fault_kill(&fault, fault_any_of(&fault, rng_between(&fault.rng, 1, 3)));
        fault_expect_progress(&fault, 20, 60);
        fault_start_all(&fault);
        fault_expect_progress(&fault, 50, 60);
    }
    fault_end(&fault);
}

const struct suite_test fault_moves_tests[] = {
    {"J6", j6},
    {"J7", j7},
    {"J8", j8},
    {NULL, NULL},
};
