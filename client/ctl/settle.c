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
        fprintf(stderr, ", groups without a leader: %u", settling->groups_silent);
    }
    fprintf(stderr, "%s", terminal ? "" : "\n");
    (void)fflush(stderr);
}

/* How it stands; CTL_UNREACHABLE when the controllers could not say, which is said only if `loud`.
 */
static int look(struct ctl *ctl, bool loud, struct settling *out)
{
    struct view view;
    ctl->quiet = !loud;
    int code = view_take(ctl, SETTLE_STATUS_NS, &view);
    ctl->quiet = false;
    if (code == CTL_DONE) {
        *out = view_settling(&view);
    }
    view_deinit(&view);
    return code;
}

static int give_up(struct ctl *ctl, bool known, const struct settling *settling)
{
    if (!known) {
        return ctl_fail(ctl, CTL_NOT_SETTLED,
                        "the controllers at %s do not say any more whether "
                        "shards are moving (shardctl wait)",
                        ctl->controllers);
    }
    return ctl_fail(ctl, CTL_NOT_SETTLED,
                    "%u shards are still moving, groups without a leader: %u; they go on by "
                    "themselves (shardctl wait)",
                    settling->shards_moving, settling->groups_silent);
}

int settle_wait(struct ctl *ctl, uint64_t timeout_ns, bool reached)
{
    bool terminal = isatty(STDERR_FILENO) != 0;
    uint64_t deadline_ns = clock_now_ns(ctl->clock) + timeout_ns;
    uint64_t shown_ns = 0;
    for (;;) {
        struct settling settling = {0};
        int code = look(ctl, !reached, &settling);
        bool known = code == CTL_DONE;
        if (!known && (!reached || code != CTL_UNREACHABLE)) {
            return code;
        }
        reached = true; /* from now on, controllers that do not answer are electing a leader */
        uint64_t now_ns = clock_now_ns(ctl->clock);
        bool over = known && settling_is_over(&settling);
        if (known && (terminal || (!over && now_ns - shown_ns >= SETTLE_LINE_NS))) {
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
            return give_up(ctl, known, &settling);
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
            code = settle_wait(ctl, wait_timeout_ns, false);
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
