/* Collecting statuses. Main starts all calls and sleeps until the last has ended; each callback
 * writes only its own replica, and the semaphore orders that before main's reading. */
#include "client/ctl/view.h"

#include "base/assert.h"
#include "client/client_rpc.h"
#include "proto/methods.h"
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

struct question {
    struct view_replica *replica;
    struct rpc_channel *channel;
    sem_t *answered;
};

static void answer_came(void *context, const struct rpc_result *result)
{
    struct question *question = context;
    struct view_replica *replica = question->replica;
    replica->error = result->error;
    (void)snprintf(replica->text, sizeof replica->text, "%.200s",
                   result->error != 0 && result->text != NULL ? client__plain_text(result->text)
                                                              : "");
    if (result->error == 0) {
        replica->status = mem_calloc(1, sizeof *replica->status);
        replica->error = msg_status_response_decode(result->reply, replica->status);
        if (replica->error != 0) {
            free(replica->status);
            replica->status = NULL;
        } else if (replica->status->header.error != 0) {
            replica->error = replica->status->header.error;
            (void)snprintf(replica->text, sizeof replica->text, "%s",
                           replica->status->header.message);
        } else {
            replica->id = replica->status->replica_id;
        }
    }
    (void)sem_post(question->answered);
}

void view_ask(struct ctl *ctl, uint64_t timeout_ns, struct view_replica *replicas, size_t count)
{
    struct question *questions = mem_calloc(count + 1, sizeof *questions);
    uint64_t deadline_ns = clock_now_ns(ctl->clock) + timeout_ns;
    struct msg_status_request request = {.cluster_id = ctl->cluster_id};
    size_t started = 0;
    sem_t answered;
    ASSERT(sem_init(&answered, 0, 0) == 0);
    for (size_t i = 0; i < count; i++) {
        struct question *question = &questions[i];
        struct buf bytes = {0};
        *question = (struct question){.replica = &replicas[i], .answered = &answered};
        msg_status_request_encode(&request, &bytes);
        int error = rpc_channel_create(ctl->rpc, replicas[i].address, &question->channel);
        if (error == 0) {
            error = rpc_call_start(question->channel, METHOD_ADMIN_STATUS, &bytes, deadline_ns,
                                   answer_came, question, NULL);
        } else {
            question->channel = NULL;
        }
        if (error == 0) { /* from here on the replica is the callback's */
            started++;
        } else {
            replicas[i].error = error;
        }
        buf_deinit(&bytes);
    }
    for (; started > 0; started--) { /* each ends by the deadline */
        while (sem_wait(&answered) != 0) {
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (questions[i].channel != NULL) {
            rpc_channel_destroy(questions[i].channel);
        }
    }
    (void)sem_destroy(&answered);
    free(questions);
}

void view_replica_deinit(struct view_replica *replica)
{
    if (replica->status != NULL) {
        msg_status_response_deinit(replica->status);
        free(replica->status);
        replica->status = NULL;
    }
}

static bool knows(const struct view *view, uint64_t group_id, const char *address)
{
    for (size_t i = 0; i < view->count; i++) {
        if (view->replicas[i].group_id == group_id &&
            strcmp(view->replicas[i].address, address) == 0) {
            return true;
        }
    }
    return false;
}

static void add(struct view *view, uint64_t group_id, uint64_t id, const char *address)
{
    if (address[0] == '\0' || knows(view, group_id, address)) {
        return;
    }
    view->replicas = mem_realloc(view->replicas, (view->count + 1) * sizeof(struct view_replica));
    struct view_replica *replica = &view->replicas[view->count++];
    *replica = (struct view_replica){.group_id = group_id, .id = id};
    (void)snprintf(replica->address, sizeof replica->address, "%s", address);
}

static void add_controllers(struct view *view, const char *addresses)
{
    for (const char *at = addresses;;) {
        char address[ADDRESS_BYTES_MAX];
        size_t size = strcspn(at, ",");
        if (size < sizeof address) {
            memcpy(address, at, size);
            address[size] = '\0';
            add(view, 0, 0, address);
        }
        if (at[size] == '\0') {
            return;
        }
        at += size + 1;
    }
}

static int compare(const void *a, const void *b)
{
    const struct view_replica *left = a;
    const struct view_replica *right = b;
    if (left->group_id != right->group_id) {
        return left->group_id < right->group_id ? -1 : 1;
    }
    return left->id < right->id ? -1 : left->id > right->id;
}

/* Members that somebody named and nobody asked yet are added; true when there are any. */
static bool find_more(struct view *view)
{
    size_t before = view->count;
    for (size_t i = 0; i < before; i++) {
        const struct msg_status_response *status = view->replicas[i].status;
        for (uint32_t k = 0; status != NULL && k < status->member_count; k++) {
            add(view, view->replicas[i].group_id, status->members[k].id,
                status->members[k].address);
            status = view->replicas[i].status; /* `replicas` may have moved */
        }
    }
    return view->count > before;
}

int view_take(struct ctl *ctl, uint64_t timeout_ns, struct view *out)
{
    *out = (struct view){0};
    int code = ctl_query(ctl, UINT64_MAX, &out->config);
    if (code != CTL_DONE) {
        return code;
    }
    add_controllers(out, ctl->controllers);
    for (uint32_t i = 0; i < out->config->group_count; i++) {
        const struct config_group *group = &out->config->groups[i];
        for (uint32_t k = 0; k < group->replica_count; k++) {
            add(out, group->id, group->replicas[k].id, group->replicas[k].address);
        }
    }
    size_t asked = 0;
    view_ask(ctl, timeout_ns, out->replicas, out->count);
    asked = out->count;
    if (find_more(out)) {
        view_ask(ctl, timeout_ns, out->replicas + asked, out->count - asked);
    }
    qsort(out->replicas, out->count, sizeof(struct view_replica), compare);
    return CTL_DONE;
}

void view_deinit(struct view *view)
{
    for (size_t i = 0; i < view->count; i++) {
        view_replica_deinit(&view->replicas[i]);
    }
    free(view->replicas);
    config_free(view->config);
    *view = (struct view){0};
}

const struct view_replica *view_leader(const struct view *view, uint64_t group_id)
{
    const struct view_replica *leader = NULL;
    for (size_t i = 0; i < view->count; i++) {
        const struct view_replica *replica = &view->replicas[i];
        if (replica->group_id == group_id && replica->error == 0 &&
            strcmp(replica->status->role, "leader") == 0 &&
            (leader == NULL || replica->status->term > leader->status->term)) {
            leader = replica; /* a former one that was cut off has the lower term */
        }
    }
    return leader;
}

bool view_shard_is_settled(const struct config *config, uint64_t group_id,
                           const struct msg_shard_status *shard)
{
    bool owner = shard->shard < config->shard_count && config->owners[shard->shard] == group_id;
    switch (shard->state) {
    case SHARD_ABSENT:
        return !owner;
    case SHARD_SERVING:
        return owner;
    case SHARD_FROZEN:
        /* Kept for whoever comes: when nobody owns it there is nothing to wait for. */
        return shard->shard < config->shard_count && config->owners[shard->shard] == 0;
    case SHARD_PULLING:
    case SHARD_DROPPING:
        return false;
    }
    return false;
}

struct settling view_settling(const struct view *view)
{
    struct settling settling = {0};
    const struct config *config = view->config;
    for (uint32_t i = 0; i < config->group_count; i++) {
        const struct config_group *group = &config->groups[i];
        const struct view_replica *leader = view_leader(view, group->id);
        if (leader == NULL) {
            settling.groups_silent++;
            continue;
        }
        const struct msg_status_response *status = leader->status;
        settling.groups_behind += status->config_number < config->number;
        uint32_t serving = 0;
        uint32_t owned = 0;
        for (uint32_t k = 0; k < status->shard_count; k++) {
            const struct msg_shard_status *shard = &status->shards[k];
            bool settled = view_shard_is_settled(config, group->id, shard);
            serving += settled && shard->state == SHARD_SERVING;
            settling.moved_bytes += shard->state == SHARD_PULLING ? shard->moved_bytes : 0;
            bool leftover = !settled && (shard->shard >= config->shard_count ||
                                         config->owners[shard->shard] != group->id);
            settling.shards_moving += leftover;
        }
        for (uint32_t k = 0; k < config->shard_count; k++) {
            owned += config->owners[k] == group->id;
        }
        settling.shards_moving += owned > serving ? owned - serving : 0;
    }
    return settling;
}
