/* J11 and what a stalled disk does (J14.Stall, scenario 53). See fault_disk.h. */
#include "fault/fault_disk.h"

#include "base/assert.h"
#include "proto/messages.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CATCH_UP_SECONDS 20.0
#define STEP_BYTES       (256u * 1024u)
#define IN_FLIGHT_BYTES                                                                            \
    (9u * 1024u * 1024u) /* the core's window of one follower, and an append                       \
                          */

/* ---- J11: a follower is away past compaction ---- */

static uint64_t log_first_of(struct disk_test *test, const struct process *process, uint64_t *last)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    CHECK(process_status(&test->fault.cluster, process, false, status));
    uint64_t first = status->log_first;
    *last = status->log_last;
    msg_status_response_deinit(status);
    free(status);
    return first;
}

static uint32_t snapshots_made(const struct disk_test *test)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < test->fault.cluster.process_count; i++) {
        char path[400], line[2048];
        const struct process *process = &test->fault.cluster.processes[i];
        snprintf(path, sizeof path, "%s/g%llu-%u.log", test->fault.cluster.dir,
                 (unsigned long long)process->group, process->id);
        FILE *file = fopen(path, "re");
        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            count += strstr(line, " snapshot.made ") != NULL;
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    return count;
}

/* `leader` leads, most likely: asking everybody would wait for the one that stands still. */
static void write_until_cut(struct disk_test *test, const struct process *leader, uint64_t behind)
{
    double from = now_seconds();
    uint64_t last = 0, first = 0;
    for (uint32_t steps = 1; first <= behind; steps++) {
        CHECK_CMP(now_seconds(), <, from + 60);
        disk_fill(test, STEP_BYTES, 30, NULL, NULL);
        first = log_first_of(test, leader, &last);
        if (first > behind) {
            printf("the log was cut after %u KiB, in %.1f s\n", steps * (STEP_BYTES / 1024),
                   now_seconds() - from);
        }
    }
}

void j11_lag(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(test, "J11", &(struct disk_options){.shims = false});
    double slowest = 0;
    uint32_t killed_rounds = 0, made_for_killed = 0, made_for_paused = 0;
    for (; fault_goes_on(&test->fault); test->fault.rounds++) {
        const struct process *leader = disk_leader(test);
        struct process *follower = disk_follower(test);
        if (follower == leader) {
            continue; /* it has just changed */
        }
        bool killed = rng_below(&test->fault.rng, 2) == 0; /* otherwise it only stands still */
        uint64_t last = 0;
        (void)log_first_of(test, follower, &last);
        uint32_t made = snapshots_made(test);
        if (killed) {
            fault_kill(&test->fault, follower);
        } else {
            process_signal(follower, SIGSTOP);
        }
        if (!killed) {
            /* What the leader has sent ahead of acknowledgements lies in the sockets and will be
             * read: the cut must come behind it. */
            disk_fill(test, IN_FLIGHT_BYTES, 30, NULL, NULL);
            (void)log_first_of(test, leader, &last);
        }
        write_until_cut(test, leader, last + 1);
        double from = now_seconds();
        if (killed) {
            process_start(&test->fault.cluster, follower);
        } else {
            process_signal(follower, SIGCONT);
        }
        disk_expect_caught_up(test, follower, CATCH_UP_SECONDS);
        double took = now_seconds() - from;
        slowest = took > slowest ? took : slowest;
        made = snapshots_made(test) - made;
        CHECK_CMP(made, >=, 1); /* it was behind the log */
        killed_rounds += killed;
        *(killed ? &made_for_killed : &made_for_paused) += made;
        fault_expect_progress(&test->fault, 20, 30);
    }
    printf(
        "the slowest caught up in %.1f s; %u snapshots were made for %u that were killed, %u for "
        "%u that stood still\n",
        slowest, made_for_killed, killed_rounds, made_for_paused,
        test->fault.rounds - killed_rounds);
    /* One each, unless the log ran on meanwhile, or the leader changed; not two, always. For one
     * that stands still the log surely runs on: it is offered a snapshot at the first cut, and the
     * cut that it cannot bridge comes 9 MiB later. */
    uint32_t paused_rounds = test->fault.rounds - killed_rounds;
    CHECK_CMP(made_for_killed, <=, killed_rounds + killed_rounds / 3 + 1);
    CHECK_CMP(made_for_paused, <=, 2 * paused_rounds + paused_rounds / 3 + 1);
    disk_end(test);
    free(test);
}

/* ---- scenario 53: the leader's disk stalls ---- */

enum { STALL_MS = 3000 };
#define SERVED_WITHIN_SECONDS 2.8 /* two election timeouts, an election, and a busy machine */

struct stalled {
    struct cluster *cluster;
    const struct process *leader;
};

static bool another_leads(void *context)
{
    const struct stalled *stalled = context;
    const struct process *leader = cluster_leader(stalled->cluster, 1, 0);
    return leader != NULL && leader != stalled->leader;
}

/* A sync that takes 3 s at the leader. The other two hold what it sends, but it answers nobody
 * before its own log does; after two election timeouts it hands leadership to one of them, long
 * before its disk is back. */
void j14_stall(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(test, "J14-stall", &(struct disk_options){.shims = true});
    for (; fault_goes_on(&test->fault); test->fault.rounds++) {
        struct process *leader = disk_leader(test);
        shim_arm(disk_shim(test, leader), 0,
                 &(struct shim_order){.classes = SHIM_BIT(SHIM_WAL_SEGMENT),
                                      .kinds = SHIM_BIT(SHIM_SYNC),
                                      .action = SHIM_DELAY_ONCE,
                                      .delay_ms = STALL_MS,
                                      .nth = 1});
        double from = now_seconds();
        fault_expect_progress(&test->fault, 30, SERVED_WITHIN_SECONDS);
        double served = now_seconds() - from;
        struct stalled stalled = {&test->fault.cluster, leader};
        CHECK(wait_until(another_leads, &stalled, STALL_MS / 1000.0));
        double handed = now_seconds() - from;
        CHECK_EQ(shim_hits(disk_shim(test, leader), 0), 1);
        CHECK_CMP(1000 * handed, <, STALL_MS); /* not because the disk was back */
        printf("stalled: 30 commands after %.2f s, another leads after %.2f s\n", served, handed);
        fault_let_run(STALL_MS / 1000.0 - handed + 0.2);
        CHECK(process_is_running(leader));
        fault_expect_progress(&test->fault, 20, 30);
    }
    disk_end(test);
    free(test);
}
