/* J3, J4: the network is cut, alone and together with kills, pauses, moves and membership changes.
 * (J5 is in fault_members.c.) */
#include "cluster/harness_net.h"
#include "fault/cuts.h"
#include "fault/members.h"

#include <signal.h>
#include <stdio.h>

/* A leader finds out within two election timeouts (0.6 s) that it has lost its majority, the others
 * elect within a few more, and a client moves on when its call has ended, 5 s at the latest. */
#define SERVES_SECONDS 10.0

/* ---- J3: halves, majority ring, isolate one, one way: the majority serves ---- */

static void j3(void)
{
    struct fault fault;
    fault_begin_in_net(&fault, "J3", 1, (const uint32_t[]){5});
    double slowest = 0;
    uint32_t first = (uint32_t)rng_below(&fault.rng, CUT_KINDS);
    /* Each way at least once, whatever the time says. */
    for (; fault_goes_on(&fault) || fault.rounds < CUT_KINDS; fault.rounds++) {
        fault_expect_progress(&fault, 20, 30);
        enum cut_kind kind = (enum cut_kind)((first + fault.rounds) % CUT_KINDS);
        struct process *before = cluster_leader(&fault.cluster, 1, 1);
        cut_make(&fault, 1, kind);
        double from = now_seconds();
        fault_expect_progress(&fault, 50, SERVES_SECONDS);
        double took = now_seconds() - from;
        slowest = took > slowest ? took : slowest;
        fault_let_run((double)rng_below(&fault.rng, 500) / 1000);
        fault_expect_progress(&fault, 50, SERVES_SECONDS); /* and goes on */
        /* The commands may all have gone by within a heartbeat; and one link alone carries nothing
         * any more once neither end of it leads. */
        for (uint32_t i = 0; i < 60 && net_dropped(fault.cluster.net) == 0; i++) {
            fault_let_run(0.05);
        }
        struct process *after = cluster_leader(&fault.cluster, 1, 1);
        if (after == before || kind != CUT_LEADERS_LINK) {
            CHECK_CMP(net_dropped(fault.cluster.net), >, 0);
        }
        fault_heal(&fault);
    }
    printf("50 commands took at most %.1f s after a cut\n", slowest);
    fault_end(&fault);
}

/* ---- J4: J3 with kills, pauses, moves and membership changes ---- */

enum { GROUPS = 2 };

static struct process *any_process(struct fault *fault)
{
    return &fault->cluster.processes[rng_below(&fault->rng, fault->cluster.process_count)];
}

static void kill_or_pause(struct fault *fault, bool pause)
{
    uint64_t group = rng_between(&fault->rng, 0, GROUPS);
    bool leads = rng_chance(&fault->rng, 1, 2);
    struct process *victim = leads ? cluster_leader(&fault->cluster, group, 1) : NULL;
    victim = victim != NULL ? victim : any_process(fault);
    if (!pause) {
        fault_kill(fault, victim);
    } else if (victim->pid != 0) {
        process_signal(victim, SIGSTOP);
        fault->pauses++;
    }
}

/* Under faults a move may be refused or its outcome be unknown. */
static void try_move(struct fault *fault)
{
    char shard[16], group[16];
    snprintf(shard, sizeof shard, "%u", (unsigned)rng_below(&fault->rng, FAULT_SHARDS));
    snprintf(group, sizeof group, "%u", (unsigned)rng_between(&fault->rng, 1, GROUPS));
    struct buf out;
    buf_init(&out);
    fault->moves +=
        cluster_ctl(&fault->cluster, 20, &out, "move", "--timeout", "2s", shard, group, NULL) == 0;
    buf_deinit(&out);
}

static void one_fault(struct fault *fault, struct replacing *replacing)
{
    switch (rng_below(&fault->rng, 6)) {
    case 0:
    case 1:
        cut_make(fault, rng_between(&fault->rng, 1, GROUPS),
                 (enum cut_kind)rng_below(&fault->rng, CUT_KINDS));
        break;
    case 2:
        kill_or_pause(fault, false);
        break;
    case 3:
        kill_or_pause(fault, true);
        break;
    case 4:
        try_move(fault);
        break;
    case 5:
        replacing_step(fault, replacing, 2);
        break;
    }
}

static void j4(void)
{
    struct fault fault;
    fault_begin_in_net(&fault, "J4", GROUPS, (const uint32_t[]){5, 3});
    struct replacing replacing = {0};
    for (; fault_goes_on(&fault); fault.rounds++) {
        for (uint64_t left = rng_between(&fault.rng, 2, 4); left > 0; left--) {
            one_fault(&fault, &replacing);
            fault_let_run((double)rng_below(&fault.rng, 700) / 1000);
        }
        fault_heal(&fault);
        fault_expect_progress(&fault, 50, 60);
        if (rng_chance(&fault.rng, 1, 2)) {
            replacing_step(&fault, &replacing, 30);
        }
    }
    fault_heal(&fault);
    replacing_finish(&fault, &replacing);
    fault_end(&fault);
}

const struct suite_test fault_net_tests[] = {
    {"J3", j3},
    {"J4", j4},
    {"J5", fault_j5},
    {NULL, NULL},
};
