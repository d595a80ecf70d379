/* member and transfer: administration of one replica group, through its leader. Thread: main. */
#include "client/ctl/view.h"

#include "base/rng.h"
#include "proto/methods.h"
#include <stdlib.h>
#include <string.h>

/* "controllers" or a group's number. */
static int parse_group_name(const struct ctl *ctl, const char *word, uint64_t *out)
{
    if (strcmp(word, "controllers") == 0) {
        *out = 0;
        return CTL_DONE;
    }
    if (parse_uint(word, out) != 0) {
        return ctl_usage(ctl, "'%s' is neither a group's number nor 'controllers'", word);
    }
    return CTL_DONE;
}

/* All members anybody knows of: the config names only those the group joined with. */
static int group_addresses(struct ctl *ctl, uint64_t group_id, struct buf *out)
{
    struct view view;
    uint64_t each_ns = ctl->timeout_ns < NS_PER_S ? ctl->timeout_ns : NS_PER_S;
    int code = view_take(ctl, each_ns, &view);
    if (code == CTL_DONE) {
        for (int answered = 1; answered >= 0; answered--) { /* those that answered first */
            for (size_t i = 0; i < view.count; i++) {
                if (view.replicas[i].group_id == group_id &&
                    (view.replicas[i].error == 0) == (answered == 1)) {
                    buf_printf(out, "%s%s", out->size > 0 ? "," : "", view.replicas[i].address);
                }
            }
        }
        if (out->size == 0) {
            code = ctl_fail(ctl, CTL_NOT_FOUND, "there is no group %llu in the config",
                            (unsigned long long)group_id);
        }
    }
    buf_append(out, "", 1);
    view_deinit(&view);
    return code;
}

/* True when the group's leader sees the group as it is to be. */
typedef bool (*reached_fn)(const struct msg_status_response *leader, const void *wanted);

/* Why it cannot be, for people; leaves `why` alone when it does not know. */
typedef void (*explain_fn)(const struct msg_status_response *leader, const void *wanted, char *why,
                           size_t why_size);

/* What one wants a group to be, and how to tell. */
struct wish {
    const void *wanted;
    reached_fn reached;
    explain_fn explain;
};

static bool is_reached(struct ctl *ctl, uint64_t group_id, const struct wish *wish, char *why,
                       size_t why_size)
{
    struct view view;
    uint64_t each_ns = ctl->timeout_ns < NS_PER_S ? ctl->timeout_ns : NS_PER_S;
    bool yes = false;
    ctl->quiet = true;
    if (view_take(ctl, each_ns, &view) == CTL_DONE) {
        const struct view_replica *leader = view_leader(&view, group_id);
        yes = leader != NULL && wish->reached(leader->status, wish->wanted);
        if (leader != NULL && !yes) {
            wish->explain(leader->status, wish->wanted, why, why_size);
        }
    }
    ctl->quiet = false;
    view_deinit(&view);
    return yes;
}

/* takes `request`'s memory. Sends it to the group's leader, again and again until it is answered.
 * These requests have no sequence, so after an answer that was lost the next one may say that there
 * is nothing to do: what counts is whether the group is as it was wanted. That makes them harmless
 * to repeat by hand, too. */
static int call_group(struct ctl *ctl, uint64_t group_id, const char *method, struct buf *request,
                      const struct wish *wish)
{
    struct controller_client *group = NULL;
    struct buf addresses = {0};
    struct buf reply = {0};
    char text[RPC_ERROR_TEXT_BYTES_MAX] = "";
    int code = group_addresses(ctl, group_id, &addresses);
    if (code == CTL_DONE) {
        int error = controller_client_create(ctl->rpc, ctl->clock, (const char *)addresses.data,
                                             ctl->cluster_id, rng_seed_from_system(), &group, text,
                                             sizeof text);
        if (error == 0) {
            error = controller_client_call_wait(group, method, request, ctl_deadline_ns(ctl),
                                                &reply, text, sizeof text);
        }
        bool looks_done = error == ERR_MEMBERSHIP_BAD || error == ERR_TRANSFER_FAILED ||
                          err_outcome(error) == OUTCOME_UNKNOWN;
        bool already = looks_done && is_reached(ctl, group_id, wish, text, sizeof text);
        if (already) {
            error = 0;
        }
        if (error != 0) {
            code = ctl_fail_error(ctl, error, false, text);
        } else if (ctl->json) {
            ctl_print_json(json_pack("{s:s}", "outcome", "done"));
        } else {
            printf(already ? "OK: it is so already\n" : "OK\n");
        }
    }
    controller_client_destroy(group);
    buf_deinit(&addresses);
    buf_deinit(&reply);
    buf_deinit(request);
    return code;
}

static const struct msg_member *find_member(const struct msg_status_response *leader, uint64_t id)
{
    for (uint32_t i = 0; i < leader->member_count; i++) {
        if (leader->members[i].id == id) {
            return &leader->members[i];
        }
    }
    return NULL;
}

static void explain_membership(const struct msg_status_response *leader, const void *wanted,
                               char *why, size_t why_size)
{
    const struct msg_change_member_request *change = wanted;
    const struct msg_member *member = find_member(leader, change->id);
    unsigned long long id = change->id;
    if (member == NULL && change->kind == MSG_MEMBER_PROMOTE) {
        (void)snprintf(why, why_size, "replica %llu is not a member; add it first", id);
    } else if (member != NULL && change->address[0] != '\0' &&
               strcmp(member->address, change->address) != 0) {
        (void)snprintf(why, why_size, "replica %llu is a member already, at %s; take a new id", id,
                       member->address);
    } else if (member != NULL && change->kind == MSG_MEMBER_ADD_VOTER) {
        (void)snprintf(why, why_size, "replica %llu is a learner already; promote it", id);
    } else if (member != NULL && change->kind == MSG_MEMBER_REMOVE) {
        (void)snprintf(why, why_size, "replica %llu is the only voter", id);
    }
}

static bool membership_reached(const struct msg_status_response *leader, const void *wanted)
{
    const struct msg_change_member_request *change = wanted;
    const struct msg_member *member = find_member(leader, change->id);
    switch (change->kind) {
    case MSG_MEMBER_ADD_LEARNER:
        return member != NULL && strcmp(member->address, change->address) == 0;
    case MSG_MEMBER_ADD_VOTER:
        return member != NULL && !member->learner && strcmp(member->address, change->address) == 0;
    case MSG_MEMBER_PROMOTE:
        return member != NULL && !member->learner;
    case MSG_MEMBER_REMOVE:
        return member == NULL;
    case MSG_MEMBER_NONE:
        break;
    }
    return false;
}

static bool transfer_reached(const struct msg_status_response *leader, const void *wanted)
{
    const struct msg_transfer_request *transfer = wanted;
    return transfer->target_id != 0 && leader->leader_id == transfer->target_id;
}

static void explain_transfer(const struct msg_status_response *leader, const void *wanted,
                             char *why, size_t why_size)
{
    const struct msg_transfer_request *transfer = wanted;
    const struct msg_member *member = find_member(leader, transfer->target_id);
    unsigned long long id = transfer->target_id;
    if (id != 0 && member == NULL) {
        (void)snprintf(why, why_size, "--to=%llu: there is no such replica in the group", id);
    } else if (id != 0 && member->learner) {
        (void)snprintf(why, why_size, "--to=%llu: that replica is a learner; promote it first", id);
    }
}

static int list_members(struct ctl *ctl, uint64_t group_id)
{
    struct view view;
    uint64_t each_ns = ctl->timeout_ns < 2 * NS_PER_S ? ctl->timeout_ns : 2 * NS_PER_S;
    int code = view_take(ctl, each_ns, &view);
    if (code != CTL_DONE) {
        view_deinit(&view);
        return code;
    }
    const struct view_replica *leader = view_leader(&view, group_id);
    if (leader == NULL) {
        bool known = group_id == 0 || config_find_group(view.config, group_id) != NULL;
        code = known ? ctl_fail(ctl, CTL_UNREACHABLE, "no leader of that group answers")
                     : ctl_fail(ctl, CTL_NOT_FOUND, "there is no group %llu in the config",
                                (unsigned long long)group_id);
    }
    json_t *array = json_array();
    for (uint32_t i = 0; leader != NULL && i < leader->status->member_count; i++) {
        const struct msg_member *member = &leader->status->members[i];
        if (ctl->json) {
            (void)json_array_append_new(
                array, json_pack("{s:I, s:s, s:b, s:b, s:b, s:I}", "id", (json_int_t)member->id,
                                 "address", member->address, "learner", member->learner, "leader",
                                 member->id == leader->status->leader_id, "active", member->active,
                                 "match", (json_int_t)member->match));
        } else {
            printf("%-4llu %-24s %-8s match %-10llu %s\n", (unsigned long long)member->id,
                   member->address,
                   member->id == leader->status->leader_id ? "leader"
                   : member->learner                       ? "learner"
                                                           : "voter",
                   (unsigned long long)member->match,
                   member->active || member->id == leader->status->leader_id ? "active" : "silent");
        }
    }
    if (code == CTL_DONE && ctl->json) {
        ctl_print_json(json_incref(array));
    }
    json_decref(array);
    view_deinit(&view);
    return code;
}

/* "4=host:port" of add, "4" of the others. */
static int parse_member(const struct ctl *ctl, const char *word, bool with_address,
                        struct msg_change_member_request *out)
{
    char number[32];
    size_t size = strcspn(word, "=@");
    const char *address = word[size] != '\0' ? word + size + 1 : "";
    if (size >= sizeof number || (address[0] == '\0') == with_address) {
        return ctl_usage(ctl, "'%s' is not %s", word,
                         with_address ? "ID=HOST:PORT" : "a replica's id");
    }
    memcpy(number, word, size);
    number[size] = '\0';
    if (!ctl_number(ctl, number, "replica id", &out->id)) {
        return CTL_USAGE;
    }
    if (with_address && (parse_address(address) != 0 || strlen(address) >= sizeof out->address)) {
        return ctl_usage(ctl, "'%s' is not HOST:PORT", address);
    }
    (void)snprintf(out->address, sizeof out->address, "%.*s", (int)sizeof out->address - 1,
                   address);
    return CTL_DONE;
}

/* One server cannot be two replicas. */
static int check_address(struct ctl *ctl, uint64_t group_id,
                         const struct msg_change_member_request *change)
{
    struct view view;
    uint64_t each_ns = ctl->timeout_ns < NS_PER_S ? ctl->timeout_ns : NS_PER_S;
    int code = view_take(ctl, each_ns, &view);
    const struct view_replica *leader = code == CTL_DONE ? view_leader(&view, group_id) : NULL;
    for (uint32_t i = 0; leader != NULL && i < leader->status->member_count; i++) {
        const struct msg_member *member = &leader->status->members[i];
        if (member->id != change->id && strcmp(member->address, change->address) == 0) {
            code = ctl_fail(ctl, CTL_NOT_DONE, "%s is the address of replica %llu already",
                            change->address, (unsigned long long)member->id);
        }
    }
    view_deinit(&view);
    return code;
}

static int change_member(struct ctl *ctl, char **words, int count, bool voter)
{
    struct msg_change_member_request change = {0};
    uint64_t group_id = 0;
    const char *verb = words[0];
    bool add = strcmp(verb, "add") == 0;
    if (add) {
        change.kind = voter ? MSG_MEMBER_ADD_VOTER : MSG_MEMBER_ADD_LEARNER;
    } else if (strcmp(verb, "promote") == 0) {
        change.kind = MSG_MEMBER_PROMOTE;
    } else if (strcmp(verb, "remove") == 0) {
        change.kind = MSG_MEMBER_REMOVE;
    } else if (strcmp(verb, "list") != 0) {
        return ctl_usage(ctl, "'%s': want add, promote, remove or list", verb);
    }
    bool list = change.kind == MSG_MEMBER_NONE;
    if (count != (list ? 2 : 3)) {
        return ctl_usage(ctl, "want: shardctl member %s GROUP|controllers%s", verb,
                         list  ? ""
                         : add ? " ID=HOST:PORT"
                               : " ID");
    }
    int code = parse_group_name(ctl, words[1], &group_id);
    if (code == CTL_DONE && !list) {
        code = parse_member(ctl, words[2], add, &change);
    }
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code == CTL_DONE && list) {
        return list_members(ctl, group_id);
    }
    if (code == CTL_DONE && add) {
        code = check_address(ctl, group_id, &change);
    }
    if (code == CTL_DONE) {
        struct buf request = {0};
        change.cluster_id = ctl->cluster_id;
        msg_change_member_request_encode(&change, &request);
        const struct wish wish = {&change, membership_reached, explain_membership};
        code = call_group(ctl, group_id, METHOD_ADMIN_CHANGE_MEMBER, &request, &wish);
    }
    return code;
}

int ctl_member(struct ctl *ctl, int argc, char **argv)
{
    bool voter = false;
    const struct flag rows[] = {
        {"voter", FLAG_BOOL, &voter, 0, 0, false, NULL, NULL,
         "add: as a voter at once, instead of a learner to be promoted once it has caught up."},
    };
    const struct ctl_spec spec = {
        .name = "member",
        .summary = "add, promote, remove or list replicas of a group",
        .usage = "add|promote|remove|list GROUP|controllers [ID=HOST:PORT|ID]",
        .details =
            "member add 2 4=10.0.0.7:7000    a learner: gets everything, has no vote\n"
            "member promote 2 4              gives it a vote\n"
            "member remove 2 1               takes replica 1 out; its server may then be stopped\n"
            "member list 2                   as the leader sees them",
        .flags = rows,
        .flag_count = 1,
        .positional_min = 2,
        .positional_max = 3,
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    int count = 0;
    int code = CTL_DONE;
    if (ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        code = change_member(ctl, words, count, voter);
    }
    free(words);
    return code;
}

int ctl_transfer(struct ctl *ctl, int argc, char **argv)
{
    struct msg_transfer_request transfer = {0};
    const struct flag rows[] = {
        {"to", FLAG_UINT, &transfer.target_id, 0, 0, false, NULL, "ID",
         "The replica that is to lead; without it the most up-to-date one."},
    };
    const struct ctl_spec spec = {
        .name = "transfer",
        .summary = "hand a group's leadership to another replica",
        .usage = "GROUP|controllers",
        .flags = rows,
        .flag_count = 1,
        .positional_min = 1,
        .positional_max = 1,
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    uint64_t group_id = 0;
    int count = 0;
    int code = CTL_DONE;
    if (ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        code = parse_group_name(ctl, words[0], &group_id);
        if (code == CTL_DONE) {
            code = ctl_connect(ctl);
        }
        if (code == CTL_DONE) {
            struct buf request = {0};
            transfer.cluster_id = ctl->cluster_id;
            msg_transfer_request_encode(&transfer, &request);
            const struct wish wish = {&transfer, transfer_reached, explain_transfer};
            code = call_group(ctl, group_id, METHOD_ADMIN_TRANSFER, &request, &wish);
        }
    }
    free(words);
    return code;
}
