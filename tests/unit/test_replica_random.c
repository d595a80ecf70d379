/* Replicas in a storm: crashes, partitions, a bad network, failing disks, snapshots, transfers, all
 * drawn from a seed, while clients append with sessions and read. Afterwards every acknowledged
 * append is there once and in its client's order, every read saw at least what was acknowledged
 * before it, and all replicas are equal. (The harness checks the log itself at every step.)
 *
 *     test_replica_random               the seeds of every run
 *     test_replica_random <seed>        that one, with its story */
#include "base/assert.h"
#include "base/log.h"
#include "node/kv_ask.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    CLIENTS = 4,
    SEEDS = 24,
    STORM_S = 20,
};

struct client {
    struct harness *harness;
    uint32_t number;     /* also its id and its key */
    uint64_t sequence;   /* of the append under way, or of the last one */
    uint64_t acked;      /* appends answered with success */
    uint64_t read_floor; /* acked when the read began */
    struct kv_ask ask;
    bool reading;
    bool stopped;
    uint64_t reads;
    uint64_t unknowns;
};

struct storm {
    struct harness *harness;
    struct client clients[CLIENTS];
    uint32_t slots;
    bool over;
};

/* ---- clients --------------------------------------------------------------------------------- */

static void client_key(const struct client *client, char key[16])
{
    snprintf(key, 16, "client-%u", client->number);
}

static uint32_t pick_slot(struct client *client)
{
    int leader = harness_leader(client->harness);
    struct rng *rng = harness_rng(client->harness);
    return leader < 0 || rng_chance(rng, 1, 10) ? (uint32_t)rng_below(rng, 3) : (uint32_t)leader;
}

static void append_again(struct client *client)
{
    char key[16];
    char text[32];
    client_key(client, key);
    snprintf(text, sizeof(text), "%" PRIu64 ";", client->sequence);
    struct kv_command command = {.kind = KV_APPEND,
                                 .client_id = client->number + 1,
                                 .sequence = client->sequence,
                                 .acked_below = client->sequence,
                                 .key = bytes_of_string(key),
                                 .value = bytes_of_string(text)};
    kv_ask_deinit(&client->ask);
    kv_ask_init(&client->ask);
    client->reading = false;
    kv_ask_command(client->harness, pick_slot(client), &command, &client->ask);
}

static void read_again(struct client *client)
{
    char key[16];
    uint32_t slot = pick_slot(client);
    client_key(client, key);
    if (!harness_is_up(client->harness, slot)) {
        append_again(client);
        return;
    }
    kv_ask_deinit(&client->ask);
    kv_ask_init(&client->ask);
    client->reading = true;
    client->read_floor = client->acked;
    kv_ask_get(client->harness, slot, key, &client->ask);
}

/* How many appends the value holds; they must be 1, 2, 3, ... */
static uint64_t count_appends(const struct client *client, struct bytes value)
{
    uint64_t expected = 0;
    size_t at = 0;
    while (at < value.size) {
        uint64_t number = 0;
        while (at < value.size && value.data[at] != ';') {
            number = number * 10 + (uint64_t)(value.data[at] - '0');
            at++;
        }
        at++;
        expected++;
        if (number != expected) {
            fprintf(stderr, "client %u: found append %" PRIu64 " in place of %" PRIu64 "\n",
                    client->number, number, expected);
            ASSERT_CMP(number, ==, expected);
        }
    }
    return expected;
}

static void take_answer(struct client *client)
{
    const struct kv_ask *ask = &client->ask;
    if (client->reading) {
        if (ask->error == ERR_OK) {
            uint64_t seen = count_appends(client, buf_view(&ask->value));
            ASSERT_CMP(seen, >=, client->read_floor);
            client->reads++;
        }
        return;
    }
    if (ask->error == ERR_OK && ask->code == ERR_OK) {
        client->acked = client->sequence;
    } else if (err_outcome(ask->error) == OUTCOME_UNKNOWN) {
        client->unknowns++;
    }
}

static void client_step(void *context)
{
    struct client *client = context;
    struct rng *rng = harness_rng(client->harness);
    if (client->ask.answered) {
        take_answer(client);
        if (client->stopped) {
            return;
        }
        if (client->acked == client->sequence) {
            if (rng_chance(rng, 1, 3)) {
                read_again(client);
                goto again;
            }
            client->sequence++;
        }
        append_again(client);
    }
again:
    harness_at(client->harness, harness_now_ns(client->harness) + rng_between(rng, 1, 20) * SIM_MS,
               client_step, client);
}

/* ---- weather --------------------------------------------------------------------------------- */

static void start_slot(struct storm *storm, uint32_t slot)
{
    if (harness_is_up(storm->harness, slot)) {
        return;
    }
    /* power fails again while it recovers */
    if (!storm->over && rng_chance(harness_rng(storm->harness), 1, 4)) {
        fake_vfs_halt_at(harness_disk(storm->harness, slot),
                         rng_between(harness_rng(storm->harness), 1, 15));
    }
    int error = harness_start(storm->harness, slot);
    if (error != ERR_OK && error != ERR_IO) { /* ERR_IO: a fault struck again during the start */
        fprintf(stderr, "slot %u does not start: %s: %s\n", slot, err_text(error),
                harness_why(storm->harness, slot));
        ASSERT_CMP(error, ==, ERR_OK);
    }
}

static void ignore_change(void *context, int error)
{
    (void)context;
    (void)error;
}

static void calm(struct storm *storm)
{
    struct harness_net net = harness_net_reliable();
    harness_heal(storm->harness);
    harness_set_net(storm->harness, &net);
}

static void weather_step(void *context)
{
    struct storm *storm = context;
    struct harness *harness = storm->harness;
    struct rng *rng = harness_rng(harness);
    if (storm->over) {
        return;
    }
    uint32_t slot = (uint32_t)rng_below(rng, storm->slots);
    struct harness_net bad = harness_net_unreliable();
    switch (rng_below(rng, 12)) {
    case 0:
    case 1:
        harness_crash(harness, slot, FAKE_CRASH_ANY);
        break;
    case 2: /* in the middle of something */
        if (harness_is_up(harness, slot)) {
            fake_vfs_halt_at(harness_disk(harness, slot), rng_between(rng, 1, 30));
        }
        break;
    case 3:
        if (harness_is_up(harness, slot)) {
            fake_vfs_fail(harness_disk(harness, slot),
                          rng_chance(rng, 1, 2) ? FAKE_SYNC : FAKE_WRITE, rng_between(rng, 1, 10),
                          ERR_IO);
        }
        break;
    case 4:
        harness_partition(harness, (uint32_t)rng_below(rng, 1u << storm->slots));
        break;
    case 5:
        harness_cut(harness, slot, (uint32_t)rng_below(rng, storm->slots), true);
        break;
    case 6:
        harness_set_net(harness, &bad);
        break;
    case 7:
        harness_transfer(harness, slot, 0, ignore_change, NULL);
        break;
    case 8: /* all at once */
        for (uint32_t i = 0; rng_chance(rng, 1, 3) && i < storm->slots; i++) {
            harness_crash(harness, i, FAKE_CRASH_ANY);
        }
        break;
    case 9:
        calm(storm);
        break;
    default:
        for (uint32_t i = 0; i < storm->slots; i++) {
            start_slot(storm, i);
        }
        break;
    }
    harness_at(harness, harness_now_ns(harness) + rng_between(rng, 20, 600) * SIM_MS, weather_step,
               storm);
}

/* ---- a run ----------------------------------------------------------------------------------- */

static bool clients_done(struct harness *harness, void *context)
{
    struct storm *storm = context;
    (void)harness;
    for (size_t i = 0; i < CLIENTS; i++) {
        if (!storm->clients[i].ask.answered) {
            return false;
        }
    }
    return true;
}

static bool all_equal_and_up(struct harness *harness, void *context)
{
    struct storm *storm = context;
    for (uint32_t slot = 0; slot < storm->slots; slot++) {
        if (!harness_is_up(harness, slot)) {
            start_slot(storm, slot); /* a fault that was asked for before may still have struck */
            return false;
        }
    }
    return kv_all_equal(harness);
}

static void run_seed(uint64_t seed, bool tell)
{
    struct harness_options options = harness_options_default(seed);
    struct storm storm = {0};
    struct rng rng;
    rng_init(&rng, seed);
    options.machine = kv_machine_for_harness();
    options.slot_count = options.member_count = storm.slots = rng_chance(&rng, 1, 3) ? 5 : 3;
    /* A few commands already fill what is flushed, compacted and sent in chunks. */
    options.replica.flush_log_bytes = rng_between(&rng, 2, 32) * 1024;
    options.replica.cache_bytes_max = rng_between(&rng, 1, 16) * 1024;
    options.replica.chunk_bytes_max = (uint32_t)rng_between(&rng, 16, 4096);
    struct harness *harness = harness_create(&options);
    storm.harness = harness;
    harness_start_all(harness);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        storm.clients[i] = (struct client){.harness = harness, .number = i, .sequence = 1};
        append_again(&storm.clients[i]);
        client_step(&storm.clients[i]);
    }
    weather_step(&storm);
    harness_run_for(harness, STORM_S * SIM_S);

    storm.over = true;
    calm(&storm);
    for (uint32_t slot = 0; slot < storm.slots; slot++) {
        harness_crash(harness, slot, FAKE_CRASH_ANY); /* what faults are still armed go with it */
        start_slot(&storm, slot);
    }
    uint64_t acked = 0;
    harness_run_for(harness, 5 * SIM_S);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        storm.clients[i].stopped = true;
    }
    ASSERT(harness_run_until(harness, clients_done, &storm, 30 * SIM_S));
    harness_run_for(harness, SIM_S);
    ASSERT(harness_run_until(harness, all_equal_and_up, &storm, 30 * SIM_S));
    uint64_t reads = 0;
    uint64_t unknowns = 0;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct client *client = &storm.clients[i];
        struct buf value;
        char key[16];
        buf_init(&value);
        client_key(client, key);
        ASSERT(kv_get(harness, key, &value, 30 * SIM_S));
        uint64_t count = count_appends(client, buf_view(&value));
        ASSERT_CMP(count, >=, client->acked);
        ASSERT_CMP(count, <=, client->sequence);
        acked += client->acked;
        reads += client->reads;
        unknowns += client->unknowns;
        buf_deinit(&value);
        kv_ask_deinit(&client->ask);
    }
    ASSERT_CMP(acked, >, CLIENTS * 10); /* the calm at the end alone allows more */
    if (tell) {
        const struct harness_counters *counters = harness_counters(harness);
        fprintf(stderr,
                "seed=%" PRIu64 " acked=%" PRIu64 " reads=%" PRIu64 " unknown=%" PRIu64
                " starts=%" PRIu64 " fatals=%" PRIu64 " restores=%" PRIu64 " frames=%" PRIu64 "\n",
                seed, acked, reads, unknowns, counters->starts, counters->fatals,
                counters->restores, counters->frames_delivered);
    }
    harness_destroy(harness);
}

static void test_replica_random_storms_lose_and_double_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        run_seed(seed, true);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replica_random_storms_lose_and_double_nothing),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? (enum log_level)(LOG_ERROR + 1) : LOG_INFO);
    if (argc > 1) {
        run_seed(strtoull(argv[1], NULL, 10), true);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
