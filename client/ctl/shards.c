/* join, leave, move, query: what the controllers decide. Thread: main. */
#include "client/ctl/ctl.h"
#include "client/ctl/settle.h"

#include "proto/methods.h"
#include <stdlib.h>
#include <string.h>

/* Flags of every change. */
struct change_flags {
    bool wait;
    uint64_t wait_timeout_ns;
    bool force; /* leave */
};

static struct msg_request_header change_header(struct ctl *ctl)
{
    struct msg_request_header header = {.cluster_id = ctl->cluster_id};
    controller_client_next_ids(ctl->controller, &header.client_id, &header.sequence);
    header.acked_below = header.sequence;
    return header;
}

/* takes `request`'s memory */
static int change(struct ctl *ctl, const char *method, struct buf *request,
                  const struct change_flags *flags)
{
    struct msg_change_response response;
    struct buf reply = {0};
    char text[RPC_ERROR_TEXT_BYTES_MAX];
    int error = ctl_call(ctl, method, request, &reply, text, sizeof text);
    if (error == 0) {
        error = msg_change_response_decode(buf_view(&reply), &response);
    }
    buf_deinit(&reply);
    buf_deinit(request);
    if (error != 0) {
        return ctl_fail_error(ctl, error, false, text);
    }
    if (flags->wait) {
        int code = settle_wait(ctl, flags->wait_timeout_ns, true);
        if (code != CTL_DONE) {
            return code;
        }
    }
    if (ctl->json) {
        ctl_print_json(json_pack("{s:s, s:I}", "outcome", "done", "config",
                                 (json_int_t)response.config_number));
    } else {
        printf("config %llu%s\n", (unsigned long long)response.config_number,
               flags->wait ? ", no shard is moving" : "");
    }
    return CTL_DONE;
}

/* "GID=addr,addr" or with ids "GID=1@addr,2@addr". */
static int parse_group(const struct ctl *ctl, const char *word, struct config_group *out)
{
    char number[32];
    const char *equals = strchr(word, '=');
    size_t size = equals != NULL ? (size_t)(equals - word) : 0;
    if (equals == NULL || size == 0 || size >= sizeof number) {
        return ctl_usage(ctl, "'%s' is not GROUP=HOST:PORT,HOST:PORT,...", word);
    }
    memcpy(number, word, size);
    number[size] = '\0';
    if (!ctl_number(ctl, number, "group", &out->id)) {
        return CTL_USAGE;
    }
    if (out->id == 0) {
        return ctl_usage(ctl, "group 0 is the controllers; groups start at 1");
    }
    for (const char *at = equals + 1;;) {
        char part[ADDRESS_BYTES_MAX + 32];
        size = strcspn(at, ",");
        if (out->replica_count == GROUP_REPLICAS_MAX) {
            return ctl_usage(ctl, "group %llu has more than %d replicas",
                             (unsigned long long)out->id, GROUP_REPLICAS_MAX);
        }
        (void)snprintf(part, sizeof part, "%.*s", (int)(size < sizeof part ? size : 0), at);
        struct config_replica *replica = &out->replicas[out->replica_count++];
        char *sign = strchr(part, '@');
        const char *address = sign != NULL ? sign + 1 : part;
        replica->id = out->replica_count;
        if (sign != NULL) {
            *sign = '\0';
            if (!ctl_number(ctl, part, "replica", &replica->id)) {
                return CTL_USAGE;
            }
        }
        if (parse_address(address) != 0 || strlen(address) >= sizeof replica->address) {
            return ctl_usage(ctl, "'%s' in '%s' is not HOST:PORT", address, word);
        }
        (void)snprintf(replica->address, sizeof replica->address, "%.*s",
                       (int)sizeof replica->address - 1, address);
        if (at[size] == '\0') {
            return CTL_DONE;
        }
        at += size + 1;
    }
}

static int run_join(struct ctl *ctl, char **words, int count, const struct change_flags *flags)
{
    struct msg_join_request join = {.groups =
                                        mem_calloc((size_t)count, sizeof(struct config_group))};
    int code = CTL_DONE;
    for (int i = 0; i < count && code == CTL_DONE; i++) {
        code = parse_group(ctl, words[i], &join.groups[join.group_count++]);
    }
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code == CTL_DONE) {
        struct buf request = {0};
        join.header = change_header(ctl);
        msg_join_request_encode(&join, &request);
        code = change(ctl, METHOD_CONTROLLER_JOIN, &request, flags);
    }
    free(join.groups);
    return code;
}

static int run_leave(struct ctl *ctl, char **words, int count, const struct change_flags *flags)
{
    struct msg_leave_request *leave = mem_calloc(1, sizeof *leave);
    int code = CTL_DONE;
    leave->force = flags->force;
    for (int i = 0; i < count && code == CTL_DONE; i++) {
        code = ctl_number(ctl, words[i], "group", &leave->group_ids[leave->group_count++])
                   ? CTL_DONE
                   : CTL_USAGE;
    }
    if (code == CTL_DONE) {
        code = ctl_connect(ctl);
    }
    if (code == CTL_DONE) {
        struct buf request = {0};
        leave->header = change_header(ctl);
        msg_leave_request_encode(leave, &request);
        code = change(ctl, METHOD_CONTROLLER_LEAVE, &request, flags);
    }
    free(leave);
    return code;
}

static int run_move(struct ctl *ctl, char **words, int count, const struct change_flags *flags)
{
    (void)count;
    struct msg_move_request move = {0};
    uint64_t shard = 0;
    if (!ctl_number(ctl, words[0], "shard", &shard) ||
        !ctl_number(ctl, words[1], "group", &move.group_id)) {
        return CTL_USAGE;
    }
    if (shard >= SHARD_COUNT_MAX) {
        return ctl_usage(ctl, "there is no shard %s: the highest possible is %d", words[0],
                         SHARD_COUNT_MAX - 1);
    }
    int code = ctl_connect(ctl);
    if (code == CTL_DONE) {
        struct buf request = {0};
        move.shard = (uint32_t)shard;
        move.header = change_header(ctl);
        msg_move_request_encode(&move, &request);
        code = change(ctl, METHOD_CONTROLLER_MOVE, &request, flags);
    }
    return code;
}

static int run(struct ctl *ctl, int argc, char **argv, struct ctl_spec spec,
               int (*act)(struct ctl *ctl, char **words, int count,
                          const struct change_flags *flags),
               bool with_force)
{
    struct change_flags flags = {.wait_timeout_ns = SETTLE_TIMEOUT_NS};
    const struct flag rows[] = {
        {"wait", FLAG_BOOL, &flags.wait, 0, 0, false, NULL, NULL,
         "Return only when every shard is where it belongs."},
        SETTLE_TIMEOUT_FLAG(&flags.wait_timeout_ns),
        {"force", FLAG_BOOL, &flags.force, 0, 0, false, NULL, NULL,
         "Also when no group is left; the data waits in the groups that left."},
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    int count = 0;
    int code = CTL_DONE;
    spec.flags = rows;
    spec.flag_count = with_force ? 3 : 2;
    if (ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        code = act(ctl, words, count, &flags);
    }
    free(words);
    return code;
}

int ctl_join(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv,
               (struct ctl_spec){
                   .name = "join",
                   .summary = "add groups; shards move to them by themselves",
                   .usage = "GROUP=ADDR,ADDR,... ...",
                   .details =
                       "Replicas get the ids 1, 2, ... in order; ID@ADDR says another. Groups of "
                       "one command join in "
                       "one config,\nso that shards move once. As few shards as possible move.",
                   .positional_min = 1,
                   .positional_max = GROUPS_MAX},
               run_join, false);
}

int ctl_leave(struct ctl *ctl, int argc, char **argv)
{
    return run(
        ctl, argc, argv,
        (struct ctl_spec){
            .name = "leave",
            .summary = "remove groups; their shards move to the others",
            .usage = "GROUP ...",
            .details = "Stop the group's servers only when wait says that no shard is moving.",
            .positional_min = 1,
            .positional_max = GROUPS_MAX},
        run_leave, true);
}

int ctl_move(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv,
               (struct ctl_spec){.name = "move",
                                 .summary = "give one shard to a group",
                                 .usage = "SHARD GROUP",
                                 .details = "The next join or leave may move it again, to balance.",
                                 .positional_min = 2,
                                 .positional_max = 2},
               run_move, false);
}

/* ---- query ---- */

static json_t *config_json(const struct config *config)
{
    json_t *owners = json_array();
    json_t *groups = json_array();
    for (uint32_t i = 0; i < config->shard_count; i++) {
        (void)json_array_append_new(owners, json_integer((json_int_t)config->owners[i]));
    }
    for (uint32_t i = 0; i < config->group_count; i++) {
        const struct config_group *group = &config->groups[i];
        json_t *replicas = json_array();
        for (uint32_t k = 0; k < group->replica_count; k++) {
            (void)json_array_append_new(replicas, json_pack("{s:I, s:s}", "id",
                                                            (json_int_t)group->replicas[k].id,
                                                            "address", group->replicas[k].address));
        }
        (void)json_array_append_new(groups,
                                    json_pack("{s:I, s:b, s:o}", "id", (json_int_t)group->id,
                                              "departed", group->departed, "replicas", replicas));
    }
    return json_pack("{s:I, s:I, s:o, s:o}", "number", (json_int_t)config->number, "shard_count",
                     (json_int_t)config->shard_count, "owners", owners, "groups", groups);
}

/* "0-3 7 9-11" */
static void print_ranges(const struct config *config, uint64_t owner)
{
    const char *before = "";
    for (uint32_t i = 0; i < config->shard_count; i++) {
        if (config->owners[i] != owner) {
            continue;
        }
        uint32_t last = i;
        while (last + 1 < config->shard_count && config->owners[last + 1] == owner) {
            last++;
        }
        if (last > i) {
            printf("%s%u-%u", before, i, last);
        } else {
            printf("%s%u", before, i);
        }
        before = " ";
        i = last;
    }
    (void)fputc('\n', stdout);
}

static uint32_t count_owned(const struct config *config, uint64_t owner)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->shard_count; i++) {
        count += config->owners[i] == owner;
    }
    return count;
}

static void print_config(const struct config *config)
{
    printf("config %llu, %u shards, %u groups\n", (unsigned long long)config->number,
           config->shard_count, config->group_count);
    if (config->group_count > 0) {
        printf("%7s %7s  %s\n", "GROUP", "COUNT", "SHARDS");
    }
    for (uint32_t i = 0; i < config->group_count; i++) {
        const struct config_group *group = &config->groups[i];
        printf("%7llu %7u  ", (unsigned long long)group->id, count_owned(config, group->id));
        if (group->departed) {
            printf("has left; some of its data is still to be fetched\n");
        } else {
            print_ranges(config, group->id);
        }
        for (uint32_t k = 0; k < group->replica_count; k++) {
            printf("%16s %llu@%s\n", "replica", (unsigned long long)group->replicas[k].id,
                   group->replicas[k].address);
        }
    }
    if (count_owned(config, 0) > 0) {
        printf("%7s %7u  ", "nobody", count_owned(config, 0));
        print_ranges(config, 0);
    }
}

int ctl_query_command(struct ctl *ctl, int argc, char **argv)
{
    uint64_t number = UINT64_MAX;
    const char *wanted = "newest";
    const struct flag rows[] = {
        {"config", FLAG_STRING, &wanted, 0, 0, false, NULL, "N", "The number of an earlier one."},
    };
    const struct ctl_spec spec = {
        .name = "query",
        .summary = "show a config: which group owns which shard",
        .usage = "",
        .flags = rows,
        .flag_count = 1,
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    struct config *config = NULL;
    int count = 0;
    int code = CTL_DONE;
    if (ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        if (strcmp(wanted, "newest") != 0 && parse_uint(wanted, &number) != 0) {
            code = ctl_usage(ctl, "--config=%s: must be a decimal number", wanted);
        }
        if (code == CTL_DONE) {
            code = ctl_connect(ctl);
        }
        if (code == CTL_DONE) {
            code = ctl_query(ctl, number, &config);
        }
        if (code == CTL_DONE && ctl->json) {
            ctl_print_json(config_json(config));
        } else if (code == CTL_DONE) {
            print_config(config);
        }
        config_free(config);
    }
    free(words);
    return code;
}
