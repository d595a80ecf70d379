/* J1, J2: processes that are killed and stopped. */
#include "cluster/harness_net.h"
#include "fault/fault_test.h"

#include <signal.h>

/* ---- J1: kill the leader, a quorum, all; restart ---- */

static void j1(void)
{
    struct fault fault;
    fault_begin(&fault, "J1", 1);
    for (; fault_goes_on(&fault); fault.rounds++) {
        fault_expect_progress(&fault, 50, 30);
        uint32_t count = 1 + fault.rounds % CLUSTER_REPLICAS;
        fault_kill_some(&fault, 1, count);
        if (count == 1) {
            fault_expect_progress(&fault, 50, 30); /* the others elect a leader and go on */
        } else {
            fault_let_run(1);
        }
        fault_start_all(&fault);
    }
    fault_end(&fault);
}

/* ---- J2: stop the leader past its time-out, let it go on ---- */

/* Nobody tells it that there is another leader by now. */
static void cut_from_peers(struct fault *fault, const struct process *leader)
{
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        const struct process *peer = &fault->cluster.processes[i];
        if (peer != leader && peer->group == leader->group) {
            net_cut(fault->cluster.net, peer->node, leader->node);
        }
    }
    net_apply(fault->cluster.net);
    fault->cuts++;
}

static void j2(void)
{
    struct fault fault;
    fault_begin_where_possible(&fault, "J2", 1, (const uint32_t[]){CLUSTER_REPLICAS});
    for (; fault_goes_on(&fault) || fault.rounds < 2; fault.rounds++) {
        fault_expect_progress(&fault, 20, 30);
        struct process *leader = cluster_leader(&fault.cluster, 1, 30);
        CHECK(leader != NULL);
        process_signal(leader, SIGSTOP);
        fault.pauses++;
        if (fault.cluster.net != NULL && fault.rounds % 2 == 0) {
            cut_from_peers(&fault, leader);
        }
        fault_expect_progress(&fault, 50, 30);
        /* It thinks it leads: what it serves now must not be stale. */
        process_signal(leader, SIGCONT);
        fault_expect_progress(&fault, 20, 30);
        fault_heal(&fault);
    }
    fault_end(&fault);
}

const struct suite_test fault_kill_tests[] = {
    {"J1", j1},
    {"J2", j2},
    {NULL, NULL},
};
