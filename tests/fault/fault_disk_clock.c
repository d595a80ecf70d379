/* J12: clocks that disagree. Every server's monotonic clock runs at a rate of its own that changes
 * all the time, and its wall clock jumps, while leaders stand still for a moment or are cut off
 * from the others but not from the clients; reads stay linearizable. See fault_disk.h.
 *
 *   J12          no lease: any rates
 *   J12.Lease    --lease-reads, which assumes that rates differ by less than one part in eight
 *   J12.Planted  --lease-reads and a leader whose clock breaks that: its reads are stale, and it is
 *                seen. Without it, J12.Lease could not be believed. */
#include "fault/fault_disk.h"

#include "base/assert.h"
#include "client/shardkv.h"
#include "cluster/harness_net.h"
#include "proto/messages.h"
#include "proto/methods.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOUR_NS        (3600ll * 1000000000ll)
#define STROBE_SECONDS 0.15

struct rates {
    uint32_t low_per_mille, high_per_mille;
};

static void strobe(struct disk_test *test, struct rates rates)
{
    for (uint32_t i = 0; i < test->fault.cluster.process_count; i++) {
        struct shim *shim = disk_shim(test, &test->fault.cluster.processes[i]);
        double rate =
            (double)rng_between(&test->fault.rng, rates.low_per_mille, rates.high_per_mille) / 1000;
        shim_clock_rate(shim, rate);
        atomic_store(&shim->control->wall_offset_ns,
                     (int64_t)rng_below(&test->fault.rng, 2 * HOUR_NS) - HOUR_NS);
    }
}

static void cut_off(struct disk_test *test, const struct process *leader)
{
    struct cluster *cluster = &test->fault.cluster;
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        const struct process *other = &cluster->processes[i];
        if (other->group == 1 && other != leader) {
            net_cut_both(cluster->net, leader->node, other->node);
        }
    }
    net_apply(cluster->net);
}

static void heal(struct disk_test *test)
{
    net_heal(test->fault.cluster.net);
    net_apply(test->fault.cluster.net);
}

static void strobe_for(struct disk_test *test, struct rates rates, double seconds)
{
    for (double until = now_seconds() + seconds; now_seconds() < until;) {
        strobe(test, rates);
        fault_let_run(STROBE_SECONDS);
    }
}

static void run(const char *name, const char *flag, struct rates rates)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(test, name,
               &(struct disk_options){.shims = true, .group_flag = flag, .own_network = true});
    for (; fault_goes_on(&test->fault); test->fault.rounds++) {
        strobe_for(test, rates, 0.5);
        struct process *leader = disk_leader(test);
        double seconds = 0.2 + (double)rng_below(&test->fault.rng, 1300) / 1000;
        if (rng_below(&test->fault.rng, 2) == 0) {
            process_signal(leader, SIGSTOP);
            strobe_for(test, rates, seconds);
            process_signal(leader, SIGCONT);
            test->fault.pauses++;
        } else {
            cut_off(test, leader);
            strobe_for(test, rates, seconds);
            heal(test);
            test->fault.cuts++;
        }
        fault_expect_progress(&test->fault, 20, 30);
    }
    for (uint32_t i = 0; i < test->fault.cluster.process_count; i++) {
        shim_clock_rate(disk_shim(test, &test->fault.cluster.processes[i]), 1);
    }
    disk_end(test);
    free(test);
}

void j12_clocks(void)
{
    run("J12", NULL, (struct rates){500, 2000});
}

void j12_lease(void)
{
    run("J12-lease", "--lease-reads", (struct rates){950, 1065}); /* 1.065 / 0.95 < 9 / 8 */
}

/* ---- planted ---- */

/* Asks this very process, whoever leads by now. 0: it answered, into `value`. */
static int get_from(struct disk_test *test, const struct process *process, const char *key,
                    char value[32])
{
    struct msg_get_request request = {.key = bytes_of(key, strlen(key))};
    struct msg_get_response *response = mem_calloc(1, sizeof *response);
    struct buf bytes, reply;
    buf_init(&bytes);
    buf_init(&reply);
    msg_get_request_encode(&request, &bytes);
    int error = process_call(&test->fault.cluster, process, METHOD_KV_GET, &bytes, 0.3, &reply);
    if (error == 0) {
        error = msg_get_response_decode(buf_view(&reply), response);
    }
    if (error == 0) {
        error = (int)response->header.error;
        snprintf(value, 32, "%.*s", (int)response->value.size, (const char *)response->value.data);
    }
    buf_deinit(&bytes);
    buf_deinit(&reply);
    free(response);
    return error;
}

static void put(struct disk_test *test, const char *key, const char *value)
{
    struct skv_result result;
    CHECK_EQ(skv_put(test->filler, key, strlen(key), value, strlen(value), 20000, &result), SKV_OK);
    skv_result_free(&result);
}

/* Its clock stands nearly still, so that to itself its lease never ends. */
void j12_planted(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(
        test, "J12-planted",
        &(struct disk_options){
            .shims = true, .group_flag = "--lease-reads", .own_network = true, .no_load = true});
    put(test, "read", "old");
    struct process *leader = disk_leader(test);
    char value[32] = "";
    CHECK_EQ(get_from(test, leader, "read", value), 0);
    CHECK(strcmp(value, "old") == 0);
    shim_clock_rate(disk_shim(test, leader), 0.01);
    cut_off(test, leader);
    put(test, "read", "new"); /* by another leader */
    value[0] = '\0';
    int error = get_from(test, leader, "read", value);
    printf("the cut-off leader answers \"%s\", error %d\n", value, error);
    if (error != 0 || strcmp(value, "old") != 0) {
        FAIL("a lease held by a clock that stands still went unnoticed");
    }
    heal(test);
    shim_clock_rate(disk_shim(test, leader), 1);
    disk_abandon(test);
    free(test);
}
