/* J14: no space, and errors of the disk. The process stops, naming what failed; nothing is
 * acknowledged that is not kept; with room, or a good disk, it comes back. See fault_disk.h.
 * Scenarios 48 and 50. */
#include "fault/fault_disk.h"

#include "base/assert.h"
#include "proto/messages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { IMAGE_MIB = 64, EXIT_DISK = 6 };
#define STOP_SECONDS 30.0

/* ---- no space ---- */

static void ballast_path(const struct disk_image *image, char out[400])
{
    snprintf(out, 400, "%s/ballast", image->mount);
}

/* Leaves so much room. */
static void take_space(const struct disk_image *image, uint64_t left_bytes)
{
    char path[400];
    struct statvfs status;
    ballast_path(image, path);
    CHECK_EQ(statvfs(image->mount, &status), 0);
    uint64_t room = (uint64_t)status.f_bavail * status.f_frsize;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    CHECK(fd >= 0);
    if (room > left_bytes) {
        CHECK_EQ(fallocate(fd, 0, 0, (off_t)(room - left_bytes)), 0);
    }
    close(fd);
}

static void give_space(const struct disk_image *image)
{
    char path[400];
    ballast_path(image, path);
    CHECK_EQ(unlink(path), 0);
}

struct victims {
    struct process *processes[CLUSTER_REPLICAS];
    uint32_t count;
    uint32_t stop; /* how many of them will: two stopped of three, and the last is not written to */
};

static bool have_stopped(void *context)
{
    const struct victims *victims = context;
    uint32_t stopped = 0;
    for (uint32_t i = 0; i < victims->count; i++) {
        stopped += !process_is_running(victims->processes[i]);
    }
    return stopped >= victims->stop;
}

static struct victims choose(struct disk_test *test, uint32_t round)
{
    struct victims victims = {.count = 1, .stop = 1};
    victims.processes[0] = round % 3 == 0 ? disk_leader(test) : disk_follower(test);
    if (round % 3 == 2) {
        victims.count = CLUSTER_REPLICAS;
        victims.stop = CLUSTER_REPLICAS - 1;
        for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
            victims.processes[id - 1] = cluster_find(&test->fault.cluster, 1, id);
        }
    }
    return victims;
}

/* The disk of the leader, of a follower, of all is full. */
void j14_no_space(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(test, "J14",
               &(struct disk_options){.replicas_on_images = true, .image_mib = IMAGE_MIB});
    for (; fault_goes_on(&test->fault) || test->fault.rounds < 3; test->fault.rounds++) {
        struct victims victims = choose(test, test->fault.rounds);
        uint64_t room = rng_below(&test->fault.rng, 2u * 1024 * 1024);
        for (uint32_t i = 0; i < victims.count; i++) {
            take_space(&test->images[victims.processes[i]->id], room);
        }
        disk_fill(test, UINT64_MAX, STOP_SECONDS, have_stopped, &victims);
        for (uint32_t i = 0; i < victims.count; i++) {
            if (!process_is_running(victims.processes[i])) {
                disk_expect_stopped(test, victims.processes[i], EXIT_DISK, "space", 1);
                test->fault.kills++;
            }
        }
        if (victims.count == 1) { /* the others go on */
            fault_expect_progress(&test->fault, 20, 30);
        }
        for (uint32_t i = 0; i < victims.count; i++) {
            give_space(&test->images[victims.processes[i]->id]);
            if (!process_is_running(victims.processes[i])) {
                process_start(&test->fault.cluster, victims.processes[i]);
            }
        }
        fault_expect_progress(&test->fault, 20, 30);
        for (uint32_t i = 0; i < victims.count; i++) {
            disk_expect_caught_up(test, victims.processes[i], 30);
        }
    }
    disk_end(test);
    free(test);
}

/* ---- errors ---- */

struct failure {
    uint32_t classes, kinds;
    int error;
    bool lags;         /* comes when the victim is sent a snapshot */
    const char *named; /* what its last words must contain */
    /* When the sync of the store's manifest fails, RocksDB takes back the table whose name it has
     * written there: on a good disk the replica may find its store incomplete, and is replaced. */
    bool may_be_lost;
};

static const struct failure failures[] = {
    {SHIM_BIT(SHIM_WAL_SEGMENT), SHIM_BIT(SHIM_WRITE), EIO, false, "log", false},
    {SHIM_BIT(SHIM_WAL_SEGMENT), SHIM_BIT(SHIM_SYNC), EIO, false, "log", false},
    {SHIM_BIT(SHIM_WAL_SEGMENT), SHIM_BIT(SHIM_WRITE), ENOSPC, false, "space", false},
    {SHIM_BIT(SHIM_WAL_BASE), SHIM_BIT(SHIM_WRITE), EIO, false, "log", false},
    {SHIM_BIT(SHIM_WAL_BASE), SHIM_BIT(SHIM_SYNC), EIO, false, "log", false},
    {SHIM_BIT(SHIM_WAL_BASE), SHIM_BIT(SHIM_RENAME), ENOSPC, false, "space", false},
    {SHIM_BIT(SHIM_WAL_DIR), SHIM_BIT(SHIM_SYNC), EIO, false, "log", false},
    {SHIM_BIT(SHIM_STATE_TABLE), SHIM_BIT(SHIM_WRITE), EIO, false, "input/output error", false},
    {SHIM_BIT(SHIM_STATE_TABLE), SHIM_BIT(SHIM_SYNC), EIO, false, "input/output error", false},
    {SHIM_BIT(SHIM_STATE_TABLE), SHIM_BIT(SHIM_WRITE), ENOSPC, false, "space", false},
    {SHIM_BIT(SHIM_STATE_MANIFEST), SHIM_BIT(SHIM_WRITE), EIO, false, "input/output error", false},
    {SHIM_BIT(SHIM_STATE_MANIFEST), SHIM_BIT(SHIM_SYNC), EIO, false, "input/output error", true},
    {SHIM_BIT(SHIM_SNAPSHOT_IN), SHIM_BIT(SHIM_WRITE), EIO, true, "snapshot", false},
    {SHIM_BIT(SHIM_SNAPSHOT_IN), SHIM_BIT(SHIM_SYNC), EIO, true, "snapshot", false},
    {SHIM_BIT(SHIM_SNAPSHOT_IN), SHIM_BIT(SHIM_WRITE), ENOSPC, true, "space", false},
    {SHIM_BIT(SHIM_SNAPSHOT_READY), SHIM_BIT(SHIM_RENAME), EIO, true, "snapshot", false},
};
enum { FAILURES = sizeof failures / sizeof failures[0] };

static uint64_t log_last_of(struct disk_test *test, const struct process *process)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    CHECK(process_status(&test->fault.cluster, process, false, status));
    uint64_t last = status->log_last;
    msg_status_response_deinit(status);
    free(status);
    return last;
}

static bool leader_has_cut(struct disk_test *test, uint64_t behind)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    bool cut = false;
    if (process_status(&test->fault.cluster, disk_leader(test), false, status)) {
        cut = status->log_first > behind;
        msg_status_response_deinit(status);
    }
    free(status);
    return cut;
}

/* Each kind of failing call, at a follower or at the leader. */
static void fail_one(struct disk_test *test, const struct failure *failure)
{
    bool at_leader = !failure->lags && rng_below(&test->fault.rng, 3) == 0;
    struct victims victims = {.count = 1, .stop = 1};
    struct process *victim = at_leader ? disk_leader(test) : disk_follower(test);
    victims.processes[0] = victim;
    struct shim_order order = {.classes = failure->classes,
                               .kinds = failure->kinds,
                               .action = SHIM_FAIL_ALWAYS,
                               .error = failure->error,
                               .nth = (int64_t)rng_between(&test->fault.rng, 1, 2)};
    printf("%s at the %s: %s of class bits 0x%x, kind bits 0x%x\n", strerrorname_np(failure->error),
           at_leader ? "leader" : "follower", order.nth == 1 ? "first" : "second", failure->classes,
           failure->kinds);
    fflush(stdout);
    if (failure->lags) {
        uint64_t behind = log_last_of(test, victim) + 1;
        fault_kill(&test->fault, victim);
        do {
            disk_fill(test, 256u * 1024, 30, NULL, NULL);
        } while (!leader_has_cut(test, behind));
        order.nth = 1;
        shim_arm(disk_shim(test, victim), 0, &order);
        process_start(&test->fault.cluster, victim);
        CHECK(wait_until(have_stopped, &victims, STOP_SECONDS));
    } else {
        shim_arm(disk_shim(test, victim), 0, &order);
        disk_fill(test, UINT64_MAX, STOP_SECONDS, have_stopped, &victims);
    }
    CHECK_CMP(shim_hits(disk_shim(test, victim), 0), >, 0);
    disk_expect_stopped(test, victim, EXIT_DISK, failure->named, 1);
    fault_expect_progress(&test->fault, 10, 30);
    shim_disarm(disk_shim(test, victim), 0);
    process_start(&test->fault.cluster, victim);
    if (failure->may_be_lost && disk_is_refused(test, victim, "/state")) {
        printf("its store is incomplete: a new one takes its place\n");
        disk_replace(test, victim);
    }
    disk_expect_caught_up(test, victim, 30);
}

/* As many as there is time for, in a drawn order; all of them with FAULT_SECONDS=120. */
void j14_errors(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(test, "J14-errors", &(struct disk_options){.shims = true});
    uint32_t order[FAILURES];
    for (uint32_t i = 0; i < FAILURES; i++) {
        uint32_t place = (uint32_t)rng_below(&test->fault.rng, i + 1);
        order[i] = order[place];
        order[place] = i;
    }
    for (; fault_goes_on(&test->fault); test->fault.rounds++) {
        fail_one(test, &failures[order[test->fault.rounds % FAILURES]]);
    }
    disk_end(test);
    free(test);
}
