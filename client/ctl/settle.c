/* wait, and the --wait of join, leave and move: until every shard is where the newest config wants
 * it. Thread: main. */
#include "client/ctl/settle.h"

#include "client/ctl/view.h"
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SETTLE_PAUSE_NS  (250 * NS_PER_MS)
#define SETTLE_STATUS_NS (2 * NS_PER_S) /* for one server's answer */
#define SETTLE_LINE_NS   (5 * NS_PER_S) /* between two lines when there is no terminal */

static void show(const struct settling *settling, bool terminal)
{
    char size[32];
    fprintf(stderr, "%s%u shards moving, %s fetched%s", terminal ? "\r\033[K" : "",
            settling->shards_moving, ctl_size_text(settling->moved_bytes, size),
            settling->groups_behind > 0 ? ", the config is on its way" : "");
    if (settling->groups_silent > 0) {
        fprintf(stderr, ", %u groups without a leader", settling->groups_silent);
    }
    fprintf(stderr, "%s", terminal ? "" : "\n");
    (void)fflush(stderr);
}

int settle_wait(struct ctl *ctl, uint64_t timeout_ns)
{
    bool terminal = isatty(STDERR_FILENO) != 0;
    uint64_t deadline_ns = clock_now_ns(ctl->clock) + timeout_ns;
    uint64_t shown_ns = 0;
    for (;;) {
        struct view view;
        int code = view_take(ctl, SETTLE_STATUS_NS, &view);
        struct settling settling = {0};
        if (code == CTL_DONE) {
            settling = view_settling(&view);
        }
        view_deinit(&view);
        if (code != CTL_DONE) {
            return code;
        }
        uint64_t now_ns = clock_now_ns(ctl->clock);
        bool over = settling_is_over(&settling);
        if (terminal || (!over && now_ns - shown_ns >= SETTLE_LINE_NS)) {
            show(&settling, terminal);
            shown_ns = now_ns;
        }
        if (terminal && (over || now_ns >= deadline_ns)) {
            fprintf(stderr, "\r\033[K");
        }
        if (over) {
            return CTL_DONE;
        }
        if (now_ns >= deadline_ns) {
            return ctl_fail(ctl, CTL_NOT_DONE,
                            "%u shards are still moving, %u groups have no leader; they go on by "
                            "themselves (shardctl wait)",
                            settling.shards_moving, settling.groups_silent);
        }
        struct timespec pause = {.tv_nsec = SETTLE_PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
}

int ctl_wait(struct ctl *ctl, int argc, char **argv)
{
    uint64_t wait_timeout_ns = SETTLE_TIMEOUT_NS;
    const struct flag rows[] = {SETTLE_TIMEOUT_FLAG(&wait_timeout_ns)};
    const struct ctl_spec spec = {
        .name = "wait",
        .summary = "wait until no shard is moving",
        .usage = "",
        .details = "Every group has taken the newest config, serves what it owns and has dropped "
                   "the rest.",
        .flags = rows,
        .flag_count = 1,
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    int count = 0;
    int code = CTL_DONE;
    if (ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        code = ctl_connect(ctl);
        if (code == CTL_DONE) {
            code = settle_wait(ctl, wait_timeout_ns);
        }
        if (code == CTL_DONE) {
            if (ctl->json) {
                ctl_print_json(json_pack("{s:s}", "outcome", "done"));
            } else {
                printf("no shard is moving\n");
            }
        }
    }
    free(words);
    return code;
}
