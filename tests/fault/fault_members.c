/* See members.h; and J5: a membership change proposed to a leader that has lost its majority rolls
 * back. */
#include "fault/members.h"

#include "cluster/harness_net.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- replicas are replaced ---- */

static int member(struct fault *fault, uint64_t group, uint32_t seconds, const char *verb,
                  const char *what)
{
    char number[24] = "controllers", timeout[16];
    if (group != 0) {
        snprintf(number, sizeof number, "%llu", (unsigned long long)group);
    }
    snprintf(timeout, sizeof timeout, "%us", seconds);
    struct buf out;
    buf_init(&out);
    int code = cluster_ctl(&fault->cluster, seconds + 20, &out, "member", "--timeout", timeout,
                           verb, number, what, NULL);
    buf_deinit(&out);
    printf("member %s %s %s: %d\n", verb, number, what, code);
    fflush(stdout);
    return code;
}

static void begin_replacing(struct fault *fault, struct replacing *replacing)
{
    uint64_t drawn = rng_below(&fault->rng, fault->cluster.process_count);
    replacing->process = &fault->cluster.processes[drawn];
    replacing->highest_id = replacing->highest_id == 0 ? 100 : replacing->highest_id;
    replacing->new_id = ++replacing->highest_id;
    replacing->stage = REPLACING_REMOVE;
}

void replacing_step(struct fault *fault, struct replacing *replacing, uint32_t seconds)
{
    if (replacing->stage == REPLACING_NONE) {
        begin_replacing(fault, replacing);
    }
    struct process *process = replacing->process;
    char id[16], address[PROCESS_ADDRESS_BYTES], added[64];
    switch (replacing->stage) {
    case REPLACING_NONE:
        break;
    case REPLACING_REMOVE:
        snprintf(id, sizeof id, "%u", process->id);
        if (member(fault, process->group, seconds, "remove", id) == 0) {
            replacing->stage = REPLACING_START;
        }
        break;
    case REPLACING_START:
        cluster_replace(&fault->cluster, process, replacing->new_id);
        replacing->stage = REPLACING_ADD;
        break;
    case REPLACING_ADD:
        process_address(process, address);
        snprintf(added, sizeof added, "%u=%s", replacing->new_id, address);
        if (member(fault, process->group, seconds, "add", added) == 0) {
            replacing->stage = REPLACING_PROMOTE;
        }
        break;
    case REPLACING_PROMOTE:
        snprintf(id, sizeof id, "%u", replacing->new_id);
        if (member(fault, process->group, seconds, "promote", id) == 0) {
            replacing->stage = REPLACING_NONE;
            fault->changes++;
        }
        break;
    }
}

void replacing_finish(struct fault *fault, struct replacing *replacing)
{
    double deadline = now_seconds() + FAULT_SETTLE_SECONDS;
    while (replacing->stage != REPLACING_NONE) {
        CHECK_CMP(now_seconds(), <, deadline);
        replacing_step(fault, replacing, 20);
    }
}

/* ---- J5 ---- */

/* Asks this very process for a change. */
static int propose(struct fault *fault, const struct process *leader,
                   const struct msg_change_member_request *change, double seconds)
{
    struct buf request, reply;
    buf_init(&request);
    buf_init(&reply);
    msg_change_member_request_encode(change, &request);
    int error = process_call(&fault->cluster, leader, METHOD_ADMIN_CHANGE_MEMBER, &request, seconds,
                             &reply);
    struct msg_admin_response *response = mem_calloc(1, sizeof *response);
    if (error == 0) {
        error = msg_admin_response_decode(buf_view(&reply), response);
        error = error == 0 ? response->header.error : error;
    }
    free(response);
    buf_deinit(&request);
    buf_deinit(&reply);
    return error;
}

static struct msg_change_member_request removal(uint32_t id)
{
    return (struct msg_change_member_request){.kind = MSG_MEMBER_REMOVE, .id = id};
}

/* A change for the leader that will be cut off: one of the other side is removed, or somebody is
 * added who does not exist. */
static struct msg_change_member_request draw_change(struct fault *fault,
                                                    const struct process *outside)
{
    uint64_t drawn = rng_below(&fault->rng, 3);
    if (drawn == 0) {
        return removal(outside->id);
    }
    struct msg_change_member_request change = {.kind = drawn == 1 ? MSG_MEMBER_ADD_LEARNER
                                                                  : MSG_MEMBER_ADD_VOTER,
                                               .id = 1000 + fault->rounds};
    snprintf(change.address, sizeof change.address, "10.77.0.250:1");
    return change;
}

struct view { /* of one process: who the members are */
    struct fault *fault;
    const struct process *process;
    uint64_t id;
    bool wanted;
};

static bool sees_member(void *context)
{
    const struct view *view = context;
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    bool asked = process_status(&view->fault->cluster, view->process, false, status);
    bool sees = false;
    for (uint32_t i = 0; asked && i < status->member_count; i++) {
        sees = sees || status->members[i].id == view->id;
    }
    if (asked) {
        msg_status_response_deinit(status);
    }
    free(status);
    return asked && sees == view->wanted;
}

static void expect_member(struct fault *fault, const struct process *process, uint64_t id,
                          bool wanted)
{
    struct view view = {fault, process, id, wanted};
    if (!wait_until(sees_member, &view, 30)) {
        FAIL("replica %u %s %llu as a member", process->id, wanted ? "does not see" : "still sees",
             (unsigned long long)id);
    }
}

/* The leader and one other on one side; `outside` gets one of the other side. */
static struct process *cut_leader_into_minority(struct fault *fault, struct process **outside)
{
    struct process *leader = cluster_leader(&fault->cluster, 1, 30);
    CHECK(leader != NULL);
    struct process *members[5];
    uint32_t count = 0;
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        struct process *process = &fault->cluster.processes[i];
        if (process->group == 1 && process != leader) {
            members[count++] = process;
        }
    }
    CHECK_EQ(count, 4);
    uint32_t companion = (uint32_t)rng_below(&fault->rng, count);
    for (uint32_t i = 0; i < count; i++) {
        if (i != companion) {
            net_cut_both(fault->cluster.net, leader->node, members[i]->node);
            net_cut_both(fault->cluster.net, members[companion]->node, members[i]->node);
            *outside = members[i];
        }
    }
    net_apply(fault->cluster.net);
    fault->cuts++;
    return leader;
}

static void expect_member_everywhere(struct fault *fault, uint64_t id, bool wanted)
{
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        if (fault->cluster.processes[i].group == 1) {
            expect_member(fault, &fault->cluster.processes[i], id, wanted);
        }
    }
}

/* True when the change reached the old leader's log before that gave up leading: only then there is
 * something to roll back. */
static bool one_rollback(struct fault *fault, bool change_elsewhere)
{
    struct process *outside = NULL;
    struct process *old = cut_leader_into_minority(fault, &outside);
    struct msg_change_member_request change = draw_change(fault, outside);
    bool is_removal = change.kind == MSG_MEMBER_REMOVE;
    CHECK(propose(fault, old, &change, 3) != 0); /* it cannot have been committed */
    struct view view = {fault, old, change.id, !is_removal};
    bool in_its_log = sees_member(&view);
    struct msg_change_member_request second = removal(old->id);
    CHECK(propose(fault, old, &second, 1) != 0); /* nor can another go in behind it */

    fault_expect_progress(fault, 50, 10); /* the majority has elected another one */
    struct process *leader = cluster_leader(&fault->cluster, 1, 30);
    CHECK(leader != NULL && leader != old);
    expect_member(fault, leader, change.id, is_removal); /* the majority never heard of it */
    printf("%s of %u at leader %u: %s its log\n", is_removal ? "removal" : "addition",
           (unsigned)change.id, old->id, in_its_log ? "in" : "not in");
    uint32_t gone = old->id;
    if (change_elsewhere) { /* takes the index of the one that rolls back, or one near it */
        CHECK_EQ(propose(fault, leader, &second, 20), 0);
        fault->changes++;
    }
    fault_heal(fault);
    fault_expect_progress(fault, 50, 30);
    if (change_elsewhere) { /* a fresh one in its place, so that the next round has five again */
        struct replacing replacing = {.process = old,
                                      .stage = REPLACING_START,
                                      .new_id = 200 + fault->rounds,
                                      .highest_id = 1};
        replacing_finish(fault, &replacing);
    }
    expect_member_everywhere(fault, change.id, is_removal);
    expect_member_everywhere(fault, gone, !change_elsewhere);
    return in_its_log;
}

void fault_j5(void)
{
    struct fault fault;
    fault_begin_in_net(&fault, "J5", 1, (const uint32_t[]){5});
    uint32_t rolled_back = 0;
    for (; fault_goes_on(&fault) || fault.rounds < 2; fault.rounds++) {
        fault_expect_progress(&fault, 20, 30);
        rolled_back += one_rollback(&fault, fault.rounds % 2 == 1);
    }
    printf("%u changes reached the old leader's log and were rolled back\n", rolled_back);
    CHECK_CMP(rolled_back, >, 0);
    fault_end(&fault);
}
