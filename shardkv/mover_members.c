/* Who the group's replicas are, told to the controllers: the group's own log decides it, and
 * clients and other groups look for it where the newest config says. The leader's driver compares
 * the two. Learners are not listed: they cannot lead, and one that is promoted becomes a voter,
 * which is another membership.
 *
 * A group that has left is in no config any more once another one was made, although a group that
 * is behind may still have to ask it. While the group's own config, which is that group's too,
 * lists it, it asks to be listed again if its replicas are others since.
 *
 * Only what is committed comes in here (mover_set_members), with its index in the log, and the
 * controllers take nothing that is not newer than what they have: a leader of former times may say
 * what it knows, and brings nothing back. */
#include "base/assert.h"
#include "shardkv/mover_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The voters. Of two at one address (a machine was given to a new replica before the old one was
 * removed) the newer one is there. */
static void list_voters(const struct raft_membership *members, struct config_group *out)
{
    for (uint32_t i = 0; i < members->count; i++) {
        const struct raft_member *member = &members->members[i];
        if (member->role != RAFT_VOTER) {
            continue;
        }
        uint32_t place = 0;
        while (place < out->replica_count &&
               strcmp(out->replicas[place].address, member->address) != 0) {
            place++;
        }
        if (place == out->replica_count) {
            out->replica_count++;
        }
        struct config_replica *replica = &out->replicas[place];
        replica->id = member->id;
        (void)snprintf(replica->address, sizeof replica->address, "%s", member->address);
    }
}

/* True when others look for this group at other and older replicas than `out`. */
static bool find_news(const struct mover *mover, struct config_group *out)
{
    if (mover->newest == NULL) {
        return false;
    }
    uint64_t id = mover->options.group_id;
    const struct config_group *listed = config_find_group(config_share_get(mover->newest), id);
    *out = (struct config_group){
        .id = id, .departed = listed == NULL, .members_index = mover->members.position.index};
    if (listed == NULL && mover->table->config != NULL) {
        listed = config_find_group(config_share_get(mover->table->config), id);
    }
    if (listed == NULL || out->members_index <= listed->members_index) {
        return false;
    }
    list_voters(&mover->members, out);
    return out->replica_count > 0 && !config_same_replicas(listed, out);
}

void mover__run_members(struct mover *mover, struct task *task)
{
    struct config_group members;
    if (!find_news(mover, &members)) {
        task->failures = 0;
        return;
    }
    if (members.members_index == mover->told_index &&
        config_share_get(mover->newest)->number < mover->told_number) {
        return; /* taken, and the config that came of it is on its way here */
    }
    struct mover_action *action = mover__action_add(mover, task, MOVER_UPDATE_MEMBERS);
    action->members = mem_dup(&members, sizeof members);
    task->number = members.members_index;
}

void mover_set_members(struct mover *mover, const struct raft_membership *members)
{
    if (members->position.index <= mover->members.position.index) {
        return;
    }
    mover->members = *members;
    for (uint32_t i = 0; i < MOVER_TASKS_MAX; i++) {
        if (mover->tasks[i].kind == TASK_MEMBERS) {
            mover->tasks[i].failures = 0;
            mover->tasks[i].not_before_ns = 0;
        }
    }
}

void mover_updated(struct mover *mover, uint64_t id, int error, uint64_t config_number,
                   uint64_t now_ns)
{
    struct task *task = mover__task_waiting_for(mover, id);
    if (task == NULL) {
        return;
    }
    task->waiting_id = 0;
    if (error != 0) {
        mover__task_back_off(mover, task, now_ns);
        return;
    }
    task->failures = 0;
    mover->told_index = task->number;
    mover->told_number = config_number;
}
