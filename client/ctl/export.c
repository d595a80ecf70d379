/* export: all rows as JSON lines, shard by shard in key order, through Kv.Scan of each shard's
 * leader. Thread: main.
 *
 * A shard that moves meanwhile is read on at its new owner, after the last key that was printed; so
 * every row that was there all the time is printed exactly once. Rows that change meanwhile are
 * printed as they were at some moment. */
#include "client/ctl/ctl.h"
#include "client/ctl/jsonl.h"
#include "client/ctl/progress.h"

#include "base/rng.h"
#include "proto/methods.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT_PAUSE_NS (50 * NS_PER_MS) /* before asking again about a shard that is moving */

struct exporter {
    struct ctl *ctl;
    struct config *config;
    struct controller_client
        *group; /* finds the leader of `group_id`: the rules are those of the controllers */
    uint64_t group_id;
    FILE *out;
    struct bytes prefix;
    bool keys_only;
    uint64_t rows;
    struct progress progress;
};

static int take_config(struct exporter *exporter)
{
    struct config *config = NULL;
    int code = ctl_query(exporter->ctl, UINT64_MAX, &config);
    if (code == CTL_DONE) {
        config_free(exporter->config);
        exporter->config = config;
        controller_client_destroy(exporter->group);
        exporter->group = NULL;
    }
    return code;
}

static int turn_to_group(struct exporter *exporter, uint64_t id)
{
    struct ctl *ctl = exporter->ctl;
    char why[256] = "";
    if (exporter->group != NULL && exporter->group_id == id) {
        return CTL_DONE;
    }
    controller_client_destroy(exporter->group);
    exporter->group = NULL;
    const struct config_group *group = config_find_group(exporter->config, id);
    if (group == NULL) {
        return ctl_fail(ctl, CTL_NOT_FOUND, "group %llu is not in the config",
                        (unsigned long long)id);
    }
    struct buf addresses = {0};
    for (uint32_t i = 0; i < group->replica_count; i++) {
        buf_printf(&addresses, "%s%s", i > 0 ? "," : "", group->replicas[i].address);
    }
    buf_append(&addresses, "", 1);
    int error = controller_client_create(ctl->rpc, ctl->clock, (const char *)addresses.data,
                                         ctl->cluster_id, rng_seed_from_system(), &exporter->group,
                                         why, sizeof why);
    buf_deinit(&addresses);
    exporter->group_id = id;
    return error != 0 ? ctl_fail(ctl, CTL_NOT_DONE, "%s", why) : CTL_DONE;
}

static void pause_a_little(void)
{
    struct timespec time = {.tv_nsec = EXPORT_PAUSE_NS};
    (void)nanosleep(&time, NULL);
}

static int print_rows(struct exporter *exporter, const struct msg_scan_response *response)
{
    for (uint32_t i = 0; i < response->row_count; i++) {
        const struct msg_scan_row *row = &response->rows[i];
        if (!bytes_has_prefix(row->key, exporter->prefix)) {
            continue;
        }
        if (jsonl_print(exporter->out, row->key, exporter->keys_only ? NULL : &row->value) != 0) {
            return ctl_fail(exporter->ctl, CTL_NOT_DONE, "cannot write: %s", strerror(errno));
        }
        exporter->rows++;
    }
    return CTL_DONE;
}

enum step { STEP_MORE, STEP_END, STEP_AGAIN, STEP_ELSEWHERE, STEP_FAILED };

/* One piece of the shard after `after`, which then is the last key. */
static enum step export_piece(struct exporter *exporter, uint32_t shard, struct buf *after,
                              uint64_t deadline_ns, int *code)
{
    struct ctl *ctl = exporter->ctl;
    struct msg_scan_request scan = {.header = {.cluster_id = ctl->cluster_id},
                                    .shard = shard,
                                    .after_key = buf_view(after),
                                    .keys_only = exporter->keys_only};
    struct msg_scan_response response = {0};
    struct buf request = {0};
    struct buf reply = {0};
    char text[RPC_ERROR_TEXT_BYTES_MAX] = "";
    enum step step = STEP_FAILED;
    msg_scan_request_encode(&scan, &request);
    int error = controller_client_call_wait(exporter->group, METHOD_KV_SCAN, &request, deadline_ns,
                                            &reply, text, sizeof text);
    if (error == 0) {
        error = msg_scan_response_decode(buf_view(&reply), &response);
    }
    if (error == 0) {
        *code = print_rows(exporter, &response);
        if (response.row_count > 0) {
            buf_clear(after);
            buf_append_bytes(after, response.rows[response.row_count - 1].key);
        }
        bool stuck = response.row_count == 0 && !response.end;
        step = *code != CTL_DONE ? STEP_FAILED
               : response.end    ? STEP_END
               : stuck           ? STEP_AGAIN
                                 : STEP_MORE;
    } else if (clock_now_ns(ctl->clock) < deadline_ns &&
               (error == ERR_SHARD_MOVING || error == ERR_CONFIG_BEHIND || error == ERR_BUSY)) {
        step = STEP_AGAIN;
    } else if (clock_now_ns(ctl->clock) < deadline_ns && error == ERR_WRONG_GROUP) {
        step = STEP_ELSEWHERE;
    } else {
        *code =
            ctl_fail(ctl, err_outcome(error) == OUTCOME_NOT_DONE ? CTL_NOT_DONE : CTL_UNREACHABLE,
                     "shard %u of group %llu: %s", shard, (unsigned long long)exporter->group_id,
                     text[0] != '\0' ? text : err_text(error));
    }
    msg_scan_response_deinit(&response);
    buf_deinit(&request);
    buf_deinit(&reply);
    return step;
}

static int export_shard(struct exporter *exporter, uint32_t shard)
{
    struct ctl *ctl = exporter->ctl;
    struct buf after = {0};
    int code = CTL_DONE;
    bool over = false;
    uint64_t deadline_ns = ctl_deadline_ns(ctl); /* for the next piece */
    while (!over && code == CTL_DONE) {
        uint64_t owner = exporter->config->owners[shard];
        enum step step = STEP_ELSEWHERE;
        if (owner == 0 && exporter->config->sources[shard] == 0) {
            break; /* nobody ever had it, so it is empty */
        }
        if (owner != 0) {
            code = turn_to_group(exporter, owner);
            if (code != CTL_DONE) {
                break;
            }
            step = export_piece(exporter, shard, &after, deadline_ns, &code);
        } else if (clock_now_ns(ctl->clock) >= deadline_ns) {
            code = ctl_fail(ctl, CTL_UNREACHABLE, "shard %u has no owner: join a group", shard);
            break;
        }
        switch (step) {
        case STEP_MORE:
            deadline_ns = ctl_deadline_ns(ctl);
            break;
        case STEP_END:
            over = true;
            break;
        case STEP_ELSEWHERE:
            pause_a_little();
            code = take_config(exporter);
            break;
        case STEP_AGAIN:
            pause_a_little();
            break;
        case STEP_FAILED:
            break;
        }
        progress_show(&exporter->progress, exporter->rows, shard, exporter->config->shard_count,
                      clock_now_ns(ctl->clock));
    }
    buf_deinit(&after);
    return code;
}

static int export_all(struct exporter *exporter)
{
    struct ctl *ctl = exporter->ctl;
    int code = ctl_connect(ctl);
    if (code == CTL_DONE) {
        code = take_config(exporter);
    }
    exporter->progress = progress_start("rows", clock_now_ns(ctl->clock));
    for (uint32_t i = 0; code == CTL_DONE && i < exporter->config->shard_count; i++) {
        code = export_shard(exporter, i);
    }
    progress_end(&exporter->progress);
    controller_client_destroy(exporter->group);
    config_free(exporter->config);
    return code;
}

/* Into a file beside it first, so that `path` holds a whole export or what it held before. */
static int export_to_file(struct exporter *exporter, const char *path)
{
    struct ctl *ctl = exporter->ctl;
    struct buf temporary = {0};
    buf_printf(&temporary, "%s.tmp", path);
    buf_append(&temporary, "", 1);
    const char *name = (const char *)temporary.data;
    int code = CTL_DONE;
    exporter->out = fopen(name, "we");
    if (exporter->out == NULL) {
        code = ctl_usage(ctl, "cannot write %s: %s", name, strerror(errno));
    } else {
        code = export_all(exporter);
        bool written = fflush(exporter->out) == 0 && fsync(fileno(exporter->out)) == 0;
        written = fclose(exporter->out) == 0 && written;
        if (code == CTL_DONE && (!written || rename(name, path) != 0)) {
            code = ctl_fail(ctl, CTL_NOT_DONE, "cannot write %s: %s", path, strerror(errno));
        }
        if (code != CTL_DONE) {
            (void)remove(name);
        }
    }
    buf_deinit(&temporary);
    return code;
}

int ctl_export(struct ctl *ctl, int argc, char **argv)
{
    const char *output = NULL;
    const char *prefix = "";
    bool keys_only = false;
    const char *format = "jsonl";
    const struct flag rows[] = {
        {"output", FLAG_STRING, &output, 0, 0, false, NULL, "FILE",
         "Write there, and only when all was read, instead of to standard output."},
        {"prefix", FLAG_STRING, &prefix, 0, 0, false, NULL, "TEXT",
         "Only keys that begin with it."},
        {"keys-only", FLAG_BOOL, &keys_only, 0, 0, false, NULL, NULL, "Print no values."},
        {"format", FLAG_STRING, &format, 0, 0, false, NULL, "jsonl", "jsonl is the only one."},
    };
    const struct ctl_spec spec = {
        .name = "export",
        .summary = "print all rows as JSON lines",
        .usage = "",
        .details = "Lines as load takes them. Every row that is there all the time is printed "
                   "once, even while shards "
                   "move;\nrows that change meanwhile are printed as they were at some moment.",
        .flags = rows,
        .flag_count = sizeof rows / sizeof rows[0],
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    int count = 0;
    int code = CTL_DONE;
    ctl->timeout_ns = 30 * NS_PER_S; /* for each piece */
    if (ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        struct exporter exporter = {
            .ctl = ctl, .out = stdout, .prefix = bytes_of_string(prefix), .keys_only = keys_only};
        if (strcmp(format, "jsonl") != 0) {
            code = ctl_usage(ctl, "--format=%s: only jsonl is known", format);
        } else if (output != NULL) {
            code = export_to_file(&exporter, output);
        } else {
            code = export_all(&exporter);
        }
        if (code == CTL_DONE && (output != NULL || exporter.progress.terminal)) {
            fprintf(stderr, "%llu rows\n", (unsigned long long)exporter.rows);
        }
    }
    free(words);
    return code;
}
