/* J9: the power of all servers goes at once. They share one small ext4, which is shut down so that
 * what was not synced is gone, journal included. See fault_disk.h.
 *
 * J9.Planted shows that the test can fail: with syncs that do nothing, what was acknowledged is
 * lost. */
#include "fault/fault_disk.h"

#include "base/assert.h"
#include "proto/messages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IMAGE_MIB = 512, WITHOUT_FLUSHING_THE_JOURNAL = 2 };
#define EXT4_SHUTDOWN _IOR('X', 125, __u32) /* EXT4_IOC_SHUTDOWN of the kernel's ext4.h */

static void power_loss(struct disk_test *test)
{
    int fd = open(test->images[0].mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fd >= 0);
    __u32 how = WITHOUT_FLUSHING_THE_JOURNAL;
    if (ioctl(fd, EXT4_SHUTDOWN, &how) != 0) {
        fault_skip("this kernel's ext4 cannot be shut down: %s", strerror(errno));
    }
    close(fd);
    for (uint32_t i = 0; i < test->fault.cluster.process_count; i++) {
        fault_kill(&test->fault, &test->fault.cluster.processes[i]);
    }
    disk_unmount(&test->images[0]);
    disk_mount(&test->images[0]);
}

void j9_power_loss(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(test, "J9",
               &(struct disk_options){.all_on_one_image = true, .image_mib = IMAGE_MIB});
    for (; fault_goes_on(&test->fault); test->fault.rounds++) {
        fault_expect_progress(&test->fault, 50, 30);
        disk_fill(test, rng_below(&test->fault.rng, 2u * 1024 * 1024), 60, NULL, NULL);
        fault_let_run((double)rng_below(&test->fault.rng, 50) / 1000);
        power_loss(test);
        fault_start_all(&test->fault);
        fault_expect_progress(&test->fault, 50, 60);
    }
    disk_end(test);
    free(test);
}

/* ---- planted ---- */

/* The largest index that any replica's log ends with. */
static uint64_t longest_log(struct disk_test *test)
{
    uint64_t longest = 0;
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        struct process *process = cluster_find(&test->fault.cluster, 1, id);
        struct msg_status_response *status = mem_calloc(1, sizeof *status);
        if (process_is_running(process) &&
            process_status(&test->fault.cluster, process, false, status)) {
            longest = status->log_last > longest ? status->log_last : longest;
            msg_status_response_deinit(status);
        }
        free(status);
    }
    return longest;
}

static uint32_t refused(struct disk_test *test)
{
    uint32_t count = 0;
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        struct process *process = cluster_find(&test->fault.cluster, 1, id);
        count += !process_is_running(process) && WIFEXITED(process->status) &&
                 WEXITSTATUS(process->status) == 6;
    }
    return count;
}

struct evidence {
    struct disk_test *test;
    uint64_t acknowledged; /* an index that all logs held, by their word durably */
    uint64_t longest;
    uint32_t refused;
};

/* All replicas have answered or refused. */
static bool is_in(void *context)
{
    struct evidence *evidence = context;
    evidence->refused = refused(evidence->test);
    evidence->longest = longest_log(evidence->test);
    return evidence->longest > 0 || evidence->refused == CLUSTER_REPLICAS;
}

void j9_planted(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(
        test, "J9-planted",
        &(struct disk_options){
            .all_on_one_image = true, .image_mib = IMAGE_MIB, .shims = true, .no_load = true});
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        atomic_store(
            &disk_shim(test, cluster_find(&test->fault.cluster, 1, id))->control->syncs_are_lies,
            1);
    }
    disk_fill(test, 4u * 1024 * 1024, 30, NULL, NULL);
    struct evidence evidence = {.test = test, .acknowledged = longest_log(test)};
    CHECK_CMP(evidence.acknowledged, >, 16);
    power_loss(test);
    fault_start_all(&test->fault);
    CHECK(wait_until(is_in, &evidence, 60));
    fault_let_run(1);
    (void)is_in(&evidence);
    printf("acknowledged up to %llu; after the loss the longest log ends at %llu, %u replicas "
           "refuse to start\n",
           (unsigned long long)evidence.acknowledged, (unsigned long long)evidence.longest,
           evidence.refused);
    if (evidence.longest >= evidence.acknowledged && evidence.refused < 2) {
        FAIL("syncs that do nothing went unnoticed");
    }
    disk_abandon(test);
    free(test);
}
