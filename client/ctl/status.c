/* status and health: what the servers say of themselves. Thread: main. */
#include "client/ctl/view.h"

#include "proto/shard_hash.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint32_t count_owned(const struct config *config, uint64_t owner)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->shard_count; i++) {
        count += config->owners[i] == owner;
    }
    return count;
}

static bool is_moving(const struct config *config, uint64_t group_id,
                      const struct msg_shard_status *shard)
{
    return (shard->state == SHARD_PULLING || shard->state == SHARD_FROZEN ||
            shard->state == SHARD_DROPPING) &&
           !view_shard_is_settled(config, group_id, shard);
}

/* Shards nobody owns, whose data this group keeps for the next one that joins. */
static uint32_t count_kept(const struct config *config, uint64_t group_id,
                           const struct view_replica *leader)
{
    uint32_t count = 0;
    for (uint32_t i = 0; leader != NULL && i < leader->status->shard_count; i++) {
        const struct msg_shard_status *shard = &leader->status->shards[i];
        count += shard->state == SHARD_FROZEN && view_shard_is_settled(config, group_id, shard);
    }
    return count;
}

/* False when the group's leader does not count it: removed, but its server still runs (the config
 * names it for ever). */
static bool is_member(const struct view *view, const struct view_replica *replica)
{
    const struct view_replica *leader = view_leader(view, replica->group_id);
    if (leader == NULL) {
        return true; /* nobody to ask */
    }
    for (uint32_t i = 0; i < leader->status->member_count; i++) {
        if (strcmp(leader->status->members[i].address, replica->address) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- for programs ---- */

static json_t *replica_json(const struct view_replica *replica)
{
    json_t *json =
        json_pack("{s:I, s:s}", "id", (json_int_t)replica->id, "address", replica->address);
    const struct msg_status_response *status = replica->status;
    if (replica->error != 0) {
        (void)json_object_set_new(json, "error", json_string(err_name(replica->error)));
        (void)json_object_set_new(
            json, "message",
            json_string(replica->text[0] != '\0' ? replica->text : err_text(replica->error)));
        return json;
    }
    (void)json_object_update_new(
        json,
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "role", status->role,
                  "version", status->version, "term", (json_int_t)status->term, "leader",
                  (json_int_t)status->leader_id, "commit", (json_int_t)status->commit, "applied",
                  (json_int_t)status->applied, "log_first", (json_int_t)status->log_first,
                  "log_last", (json_int_t)status->log_last, "log_bytes",
                  (json_int_t)status->log_bytes, "config", (json_int_t)status->config_number));
    return json;
}

static json_t *replicas_json(const struct view *view, uint64_t group_id)
{
    json_t *array = json_array();
    for (size_t i = 0; i < view->count; i++) {
        if (view->replicas[i].group_id == group_id) {
            json_t *json = replica_json(&view->replicas[i]);
            (void)json_object_set_new(json, "member",
                                      json_boolean(is_member(view, &view->replicas[i])));
            (void)json_array_append_new(array, json);
        }
    }
    return array;
}

static json_t *moving_json(const struct config *config, uint64_t group_id,
                           const struct view_replica *leader)
{
    json_t *array = json_array();
    for (uint32_t i = 0; leader != NULL && i < leader->status->shard_count; i++) {
        const struct msg_shard_status *shard = &leader->status->shards[i];
        if (is_moving(config, group_id, shard)) {
            (void)json_array_append_new(
                array, json_pack("{s:I, s:s, s:I, s:I}", "shard", (json_int_t)shard->shard, "state",
                                 shard_state_name(shard->state), "config",
                                 (json_int_t)shard->config_number, "moved_bytes",
                                 (json_int_t)shard->moved_bytes));
        }
    }
    return array;
}

static void sizes(const struct view_replica *leader, uint64_t *keys, uint64_t *bytes)
{
    *keys = 0;
    *bytes = 0;
    for (uint32_t i = 0; leader != NULL && i < leader->status->shard_count; i++) {
        *keys += leader->status->shards[i].keys;
        *bytes += leader->status->shards[i].bytes;
    }
}

static void print_json(const struct ctl *ctl, const struct view *view)
{
    const struct config *config = view->config;
    json_t *groups = json_array();
    for (uint32_t i = 0; i < config->group_count; i++) {
        const struct config_group *group = &config->groups[i];
        const struct view_replica *leader = view_leader(view, group->id);
        uint64_t keys;
        uint64_t bytes;
        sizes(leader, &keys, &bytes);
        (void)json_array_append_new(groups,
                                    json_pack("{s:I, s:b, s:I, s:I, s:I, s:s, s:o, s:o, s:I}", "id",
                                              (json_int_t)group->id, "departed", group->departed,
                                              "shards", (json_int_t)count_owned(config, group->id),
                                              "keys", (json_int_t)keys, "bytes", (json_int_t)bytes,
                                              "leader", leader != NULL ? leader->address : "",
                                              "replicas", replicas_json(view, group->id), "moving",
                                              moving_json(config, group->id, leader), "kept",
                                              (json_int_t)count_kept(config, group->id, leader)));
    }
    struct settling settling = view_settling(view);
    ctl_print_json(json_pack(
        "{s:s, s:I, s:I, s:b, s:I, s:o, s:o}", "cluster", ctl->cluster != NULL ? ctl->cluster : "",
        "config", (json_int_t)config->number, "shard_count", (json_int_t)config->shard_count,
        "settled", settling_is_over(&settling), "shards_moving", (json_int_t)settling.shards_moving,
        "controllers", replicas_json(view, 0), "groups", groups));
}

/* ---- for people ---- */

static void print_replicas(const struct view *view, uint64_t group_id, bool controller)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct view_replica *replica = &view->replicas[i];
        char size[32];
        if (replica->group_id != group_id) {
            continue;
        }
        if (replica->error != 0) {
            printf("  %-4llu %-24s %s%s\n", (unsigned long long)replica->id, replica->address,
                   replica->text[0] != '\0' ? replica->text : err_text(replica->error),
                   is_member(view, replica) ? "" : " (not a member any more)");
            continue;
        }
        const struct msg_status_response *status = replica->status;
        printf("  %-4llu %-24s %-10s term %-6llu applied %-10llu log %-10s",
               (unsigned long long)replica->id, replica->address, status->role,
               (unsigned long long)status->term, (unsigned long long)status->applied,
               ctl_size_text(status->log_bytes, size));
        if (!controller) {
            printf(" config %llu", (unsigned long long)status->config_number);
        }
        if (!is_member(view, replica)) {
            printf(" (not a member any more)");
        }
        (void)fputc('\n', stdout);
    }
}

static void print_moving(const struct config *config, uint64_t group_id,
                         const struct view_replica *leader)
{
    enum { SHOWN_MAX = 8 };
    uint32_t shown = 0;
    uint32_t more = 0;
    for (uint32_t i = 0; leader != NULL && i < leader->status->shard_count; i++) {
        const struct msg_shard_status *shard = &leader->status->shards[i];
        char size[32];
        if (!is_moving(config, group_id, shard)) {
            continue;
        }
        if (shown == SHOWN_MAX) {
            more++;
            continue;
        }
        shown++;
        printf("  shard %u is %s", shard->shard, shard_state_name(shard->state));
        if (shard->state == SHARD_PULLING) {
            printf(", %s so far", ctl_size_text(shard->moved_bytes, size));
        }
        (void)fputc('\n', stdout);
    }
    if (more > 0) {
        printf("  and %u more shards are moving\n", more);
    }
    uint32_t kept = count_kept(config, group_id, leader);
    if (kept > 0) {
        printf("  keeps %u shards that nobody owns, frozen, until a group is joined\n", kept);
    }
}

static void print_tables(const struct ctl *ctl, const struct view *view)
{
    const struct config *config = view->config;
    struct settling settling = view_settling(view);
    printf("cluster %s, config %llu, %u shards, %u groups: ",
           ctl->cluster != NULL ? ctl->cluster : "(unnamed)", (unsigned long long)config->number,
           config->shard_count, config->group_count);
    if (settling_is_over(&settling)) {
        printf("settled\n");
    } else {
        printf("%u shards moving, groups without a leader: %u\n", settling.shards_moving,
               settling.groups_silent);
    }
    printf("controllers\n");
    print_replicas(view, 0, true);
    for (uint32_t i = 0; i < config->group_count; i++) {
        const struct config_group *group = &config->groups[i];
        const struct view_replica *leader = view_leader(view, group->id);
        uint64_t keys;
        uint64_t bytes;
        char size[32];
        sizes(leader, &keys, &bytes);
        printf("group %llu, %u shards, ", (unsigned long long)group->id,
               count_owned(config, group->id));
        if (leader != NULL) {
            printf("about %llu keys, %s", (unsigned long long)keys, ctl_size_text(bytes, size));
        } else {
            printf("no leader answers");
        }
        printf("%s\n", group->departed ? ", has left" : "");
        print_replicas(view, group->id, false);
        print_moving(config, group->id, leader);
    }
}

int ctl_status(struct ctl *ctl, int argc, char **argv)
{
    bool watch = false;
    uint64_t interval_ns = NS_PER_S;
    const struct flag rows[] = {
        {"watch", FLAG_BOOL, &watch, 0, 0, false, NULL, NULL, "Show it again and again."},
        {"interval", FLAG_DURATION, &interval_ns, 100 * NS_PER_MS, 3600 * NS_PER_S, false, NULL,
         "TIME", "With --watch: between two."},
    };
    const struct ctl_spec spec = {
        .name = "status",
        .summary = "show controllers, groups, replicas and moving shards",
        .usage = "",
        .flags = rows,
        .flag_count = 2,
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    int count = 0;
    int code = CTL_DONE;
    if (!ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        free(words);
        return code;
    }
    free(words);
    bool shown = false; /* then --watch goes on without an answer: a leader is being elected */
    code = ctl_connect(ctl);
    while (code == CTL_DONE) {
        struct view view;
        uint64_t each_ns = ctl->timeout_ns < 2 * NS_PER_S ? ctl->timeout_ns : 2 * NS_PER_S;
        int taken = view_take(ctl, each_ns, &view);
        code = watch && shown && taken == CTL_UNREACHABLE ? CTL_DONE : taken;
        if (taken == CTL_DONE) {
            shown = true;
            if (watch && !ctl->json && isatty(STDOUT_FILENO)) {
                printf("\033[H\033[2J");
            }
            if (ctl->json) {
                print_json(ctl, &view);
            } else {
                print_tables(ctl, &view);
            }
        }
        view_deinit(&view);
        if (code != CTL_DONE || !watch || fflush(stdout) != 0) {
            break;
        }
        struct timespec pause = {.tv_sec = (time_t)(interval_ns / NS_PER_S),
                                 .tv_nsec = (long)(interval_ns % NS_PER_S)};
        (void)nanosleep(&pause, NULL);
    }
    return code;
}

int ctl_health(struct ctl *ctl, int argc, char **argv)
{
    const struct ctl_spec spec = {
        .name = "health",
        .summary = "ask one server whether it is well",
        .usage = "ADDR",
        .details = "Exit code 0 when it answers and knows a leader, 1 when it answers and knows "
                   "none, 6 when it does "
                   "not answer.\nNeeds no controllers.",
        .positional_min = 1,
        .positional_max = 1,
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    int count = 0;
    int code = CTL_DONE;
    if (!ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        free(words);
        return code;
    }
    struct view_replica replica = {0};
    if (parse_address(words[0]) != 0 || strlen(words[0]) >= sizeof replica.address) {
        code = ctl_usage(ctl, "'%s' is not HOST:PORT", words[0]);
        free(words);
        return code;
    }
    (void)snprintf(replica.address, sizeof replica.address, "%s", words[0]);
    free(words);
    ctl->controllers = replica.address; /* for the connection only */
    code = ctl_connect(ctl);
    if (code == CTL_DONE) {
        view_ask(ctl, ctl->timeout_ns, &replica, 1);
        if (replica.error != 0) {
            bool stranger = replica.error == ERR_WRONG_CLUSTER && ctl->cluster != NULL;
            code =
                stranger
                    ? ctl_fail_error(ctl, replica.error, true, NULL)
                    : ctl_fail(ctl,
                               replica.error == ERR_WRONG_CLUSTER ? CTL_NOT_DONE : CTL_UNREACHABLE,
                               "%s: %s", replica.address,
                               replica.text[0] != '\0' ? replica.text : err_text(replica.error));
        } else if (replica.status->leader_id == 0) {
            code = ctl_fail(ctl, CTL_NOT_DONE, "%s is a %s and knows no leader", replica.address,
                            replica.status->role);
        } else if (ctl->json) {
            ctl_print_json(replica_json(&replica));
        } else {
            printf("%s: %s, term %llu, applied %llu\n", replica.address, replica.status->role,
                   (unsigned long long)replica.status->term,
                   (unsigned long long)replica.status->applied);
        }
    }
    view_replica_deinit(&replica);
    return code;
}
