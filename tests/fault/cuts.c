/* See cuts.h. */
#include "fault/cuts.h"

#include "cluster/harness_net.h"
#include <stdio.h>

enum { MEMBERS_MAX = 16 };

struct members {
    struct process *list[MEMBERS_MAX];
    uint32_t count;
};

static void members_of(struct fault *fault, uint64_t group, struct members *out)
{
    out->count = 0;
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        if (fault->cluster.processes[i].group == group) {
            CHECK_CMP(out->count, <, MEMBERS_MAX);
            out->list[out->count++] = &fault->cluster.processes[i];
        }
    }
}

static void shuffle(struct fault *fault, struct members *members)
{
    for (uint32_t i = members->count; i > 1; i--) {
        uint32_t other = (uint32_t)rng_below(&fault->rng, i);
        struct process *process = members->list[i - 1];
        members->list[i - 1] = members->list[other];
        members->list[other] = process;
    }
}

/* Servers whose bit is set are on one side, all others on the other. */
static void cut_sides(struct fault *fault, const bool *side)
{
    const struct cluster *cluster = &fault->cluster;
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (side[i] != side[j]) {
                net_cut_both(cluster->net, cluster->processes[i].node, cluster->processes[j].node);
            }
        }
    }
}

static void cut_halves(struct fault *fault, uint64_t group)
{
    bool side[CLUSTER_PROCESSES_MAX] = {false};
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) { /* the other groups' anywhere */
        side[i] = rng_chance(&fault->rng, 1, 2);
    }
    uint64_t both[] = {group, 0}; /* of these, a majority is on one side */
    for (size_t k = 0; k < sizeof both / sizeof both[0]; k++) {
        struct members members;
        members_of(fault, both[k], &members);
        shuffle(fault, &members);
        bool minority = rng_chance(&fault->rng, 1, 2);
        for (uint32_t i = 0; i < members.count; i++) {
            bool few = i < (members.count - 1) / 2;
            side[members.list[i] - fault->cluster.processes] = few == minority;
        }
    }
    cut_sides(fault, side);
}

/* Of 5 in a ring each reaches itself and its two neighbours. */
static void cut_ring(struct fault *fault, const struct members *members)
{
    uint32_t reach = members->count / 4; /* to each side; 3: one link is cut, see below */
    if (members->count == 3) {
        net_cut_both(fault->cluster.net, members->list[0]->node, members->list[1]->node);
        return;
    }
    for (uint32_t i = 0; i < members->count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            uint32_t apart = i - j;
            apart = apart < members->count - apart ? apart : members->count - apart;
            if (apart > reach) {
                net_cut_both(fault->cluster.net, members->list[i]->node, members->list[j]->node);
            }
        }
    }
}

/* From or to all other servers, of any group. */
static void cut_off(struct fault *fault, const struct process *victim, bool hears, bool is_heard)
{
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        const struct process *other = &fault->cluster.processes[i];
        if (other == victim) {
            continue;
        }
        if (!hears) {
            net_cut(fault->cluster.net, other->node, victim->node);
        }
        if (!is_heard) {
            net_cut(fault->cluster.net, victim->node, other->node);
        }
    }
}

const char *cut_name(enum cut_kind kind)
{
    switch (kind) {
    case CUT_HALVES:
        return "halves";
    case CUT_RING:
        return "ring";
    case CUT_ISOLATE_LEADER:
        return "leader isolated";
    case CUT_ISOLATE_ONE:
        return "one isolated";
    case CUT_DEAF_LEADER:
        return "leader deaf";
    case CUT_MUTE_LEADER:
        return "leader mute";
    case CUT_DEAF_ONE:
        return "one deaf";
    case CUT_MUTE_ONE:
        return "one mute";
    case CUT_LEADERS_LINK:
        return "one of the leader's links";
    case CUT_LOSSY:
        return "lossy";
    case CUT_KINDS:
        break;
    }
    return "?";
}

void cut_make(struct fault *fault, uint64_t group, enum cut_kind kind)
{
    struct members members;
    members_of(fault, group, &members);
    shuffle(fault, &members);
    struct process *one = members.list[0];
    struct process *leader = cluster_leader(&fault->cluster, group, 1);
    leader = leader != NULL ? leader : one; /* there need not be one under other faults */
    const struct process *other = leader != members.list[0] ? members.list[0] : members.list[1];
    switch (kind) {
    case CUT_HALVES:
        cut_halves(fault, group);
        break;
    case CUT_RING:
        cut_ring(fault, &members);
        break;
    case CUT_ISOLATE_LEADER:
        cut_off(fault, leader, false, false);
        break;
    case CUT_ISOLATE_ONE:
        cut_off(fault, one, false, false);
        break;
    case CUT_DEAF_LEADER:
        cut_off(fault, leader, false, true);
        break;
    case CUT_MUTE_LEADER:
        cut_off(fault, leader, true, false);
        break;
    case CUT_DEAF_ONE:
        cut_off(fault, one, false, true);
        break;
    case CUT_MUTE_ONE:
        cut_off(fault, one, true, false);
        break;
    case CUT_LEADERS_LINK:
        net_cut_both(fault->cluster.net, leader->node, other->node);
        break;
    case CUT_LOSSY:
        net_set_loss(fault->cluster.net, (uint32_t)rng_between(&fault->rng, 50, 150));
        break;
    case CUT_KINDS:
        FAIL("no kind of cut");
    }
    net_apply(fault->cluster.net);
    fault->cuts++;
    printf("cut: %s, group %llu led by %u\n", cut_name(kind), (unsigned long long)group,
           leader->id);
    fflush(stdout);
}
