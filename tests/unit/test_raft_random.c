/* Random histories: crashes, cuts, slow disks, lost, repeated and reordered messages, compaction,
 * snapshots, transfers, reads and membership changes, with the invariants after every input and
 * agreement of what is applied. At the end all faults stop and everything must come together. Each
 * history is named by its seed. */
#include "unit/raft_pump.h"

#include <stdio.h>

enum { HISTORIES = 150, STEPS = 8000, ENTRIES_MAX_PROPOSED = 2000 };

static void small_limits(struct raft_core_options *options)
{
    options->append_bytes_max = 300;
    options->inflight_bytes_max = 900;
    options->inflight_count_max = 4;
    options->cache_bytes_max = 600;
    options->chunk_bytes_max = 7;
    options->lease_reads = false; /* ticks are random here: no clock assumption holds */
}

/* What must have happened now and then, or the histories prove little. */
static const char *const events[] = {
    " leader ",
    " candidate ",
    "transfer=1",
    " truncate ",
    "membership.rolled_back",
    " membership ",
    "snapshot.receiving",
    "snapshot.installed",
    "snapshot.needless",
    "snapshot.damaged",
    "snapshot.refused",
    "snapshot.sent",
    "snapshot.needed",
    "quorum.lost",
    "reject peer",
    "reject.stale",
    "transfer.abandoned",
    "transfer.timeout_now",
    "removed.steps_down",
    "prevote.ignored",
    "vote.ignored",
};
enum { EVENT_COUNT = sizeof(events) / sizeof(events[0]) };
static uint64_t event_counts[EVENT_COUNT];

static void count_event(const char *line)
{
    for (size_t i = 0; i < EVENT_COUNT; i++) {
        event_counts[i] += strstr(line, events[i]) != NULL ? 1 : 0;
    }
}

static uint64_t reads_served;

static void check_events(void)
{
    assert_true(reads_served > 0);
    for (size_t i = 0; i < EVENT_COUNT; i++) {
        if (getenv("RAFT_RANDOM_SHOW") != NULL) {
            fprintf(stderr, "sometimes %-24s %llu\n", events[i],
                    (unsigned long long)event_counts[i]);
        }
        if (event_counts[i] == 0) {
            fail_msg("never seen: %s", events[i]);
        }
    }
}

struct history {
    struct pump *pump;
    struct rng rng;
    uint64_t snapshot_id;
    uint64_t proposed;
    uint64_t installs;
};

static uint64_t pick_alive(struct history *history)
{
    for (size_t i = 0; i < 100; i++) {
        uint64_t id = rng_between(&history->rng, 1, 5);
        if (history->pump->nodes[id].core != NULL) {
            return id;
        }
    }
    return 0;
}

static void disturb_wire(struct history *history)
{
    struct pump_messages *wire = &history->pump->wire;
    if (wire->count < 2) {
        return;
    }
    size_t a = (size_t)rng_below(&history->rng, wire->count);
    size_t b = (size_t)rng_below(&history->rng, wire->count);
    struct pump_message swap = wire->items[a];
    wire->items[a] = wire->items[b];
    wire->items[b] = swap;
}

/* The oldest message arrives, and sometimes stays to arrive again. */
static void deliver(struct history *history)
{
    struct pump *pump = history->pump;
    if (pump->wire.count == 0) {
        return;
    }
    if (rng_chance(&history->rng, 1, 20)) {
        struct raft_message *first = &pump->wire.items[0].message;
        if (pump->nodes[first->to].core != NULL && !pump->cut[first->from][first->to]) {
            struct pump_message again = pump->wire.items[0];
            pump_step(pump, &again.message);
            return;
        }
    }
    pump_deliver_one(pump);
}

static void propose_some(struct history *history, uint64_t id)
{
    struct pump *pump = history->pump;
    char text[64];
    struct raft_position position;
    if (history->proposed >= ENTRIES_MAX_PROPOSED) {
        return;
    }
    snprintf(text, sizeof(text), "value-%llu-%0*d", (unsigned long long)history->proposed++,
             (int)rng_below(&history->rng, 30), 0);
    struct blob *owner = blob_copy(bytes_of_string(text));
    int error = raft_core_propose(pump->nodes[id].core, blob_view(owner), owner, &position);
    assert_true(error == ERR_OK || error == ERR_NOT_LEADER || error == ERR_BUSY);
    blob_unref(owner);
    pump_collect(pump, id);
}

static void compact_some(struct history *history, uint64_t id)
{
    struct pump *pump = history->pump;
    struct pump_node *node = &pump->nodes[id];
    if (node->applied > node->snapshot.position.index) {
        pump_snapshot(pump, id, ++history->snapshot_id, rng_below(&history->rng, 60));
        pump_compact(pump, id,
                     rng_between(&history->rng, node->snapshot.position.index, node->applied));
    }
}

static void change_some(struct history *history, uint64_t id)
{
    struct pump *pump = history->pump;
    struct raft_change change = {.kind = (enum raft_change_kind)rng_between(&history->rng, 1, 4),
                                 .id = rng_between(&history->rng, 1, 5),
                                 .address = "somewhere:1"};
    struct raft_position position;
    if (change.kind == RAFT_REMOVE && pump_voter_count(pump, id) <= 2) {
        return;
    }
    (void)!raft_core_propose_change(pump->nodes[id].core, &change, &position);
    pump_collect(pump, id);
}

static void cut_some(struct history *history)
{
    uint64_t a = rng_between(&history->rng, 1, 5);
    uint64_t b = rng_between(&history->rng, 1, 5);
    history->pump->cut[a][b] = !history->pump->cut[a][b];
}

static void rare_step(struct history *history, uint64_t id)
{
    struct pump *pump = history->pump;
    switch (rng_below(&history->rng, 12)) {
    case 0:
        pump_crash(pump, id);
        break;
    case 8:
    case 9:
        memset(pump->cut, 0, sizeof(pump->cut));
        break;
    case 10:
    case 1:
        for (uint64_t other = 1; other <= 5; other++) {
            if (pump->nodes[other].core == NULL) {
                pump_restart(pump, other);
            }
        }
        break;
    case 2:
        cut_some(history);
        break;
    case 3:
        memset(pump->cut, 0, sizeof(pump->cut));
        break;
    case 4:
        pump->nodes[id].disk_waits = !pump->nodes[id].disk_waits;
        break;
    case 5:
        (void)!raft_core_transfer(pump->nodes[id].core, rng_between(&history->rng, 0, 5));
        pump_collect(pump, id);
        break;
    case 6:
        change_some(history, id);
        break;
    case 7:
        raft_core_unreachable(pump->nodes[id].core, rng_between(&history->rng, 1, 5));
        pump_collect(pump, id);
        break;
    default:
        pump->nodes[id].installs_damaged = rng_chance(&history->rng, 1, 4) ? 1 : 0;
        break;
    }
}

/* A read's context is what had been applied anywhere when it was asked: its index must not be
 * older. */
static void check_reads(struct history *history)
{
    for (uint64_t id = 1; id <= 5; id++) {
        struct pump_node *node = &history->pump->nodes[id];
        for (size_t i = 0; i < node->read_count; i++) {
            if (node->reads[i].error == ERR_OK) {
                assert_true(node->reads[i].index >= node->reads[i].context);
                reads_served++;
            }
        }
        node->read_count = 0;
    }
}

static void one_step(struct history *history)
{
    struct pump *pump = history->pump;
    uint64_t id = pick_alive(history);
    uint64_t dice = rng_below(&history->rng, 100);
    if (id == 0) {
        pump_restart(pump, 1);
    } else if (dice < 50) {
        deliver(history);
    } else if (dice < 70) {
        pump_sync(pump, id, (size_t)rng_below(&history->rng, 4));
    } else if (dice < 85) {
        pump_tick(pump, id);
    } else if (dice < 91) {
        propose_some(history, id);
    } else if (dice < 93) {
        disturb_wire(history);
    } else if (dice < 95) {
        compact_some(history, id);
    } else if (dice < 97) {
        (void)!raft_core_read(pump->nodes[id].core, pump->truth_last);
        pump_collect(pump, id);
    } else {
        rare_step(history, id);
    }
    check_reads(history);
}

static void offer_wanted(struct history *history, uint64_t id)
{
    uint64_t wanted = pump_status(history->pump, id).snapshot_wanted;
    if (wanted != 0 && history->pump->nodes[id].applied >= wanted) {
        pump_snapshot(history->pump, id, ++history->snapshot_id, 20);
        pump_collect(history->pump, id);
    }
}

static bool all_caught_up(const struct pump *pump, uint64_t leader)
{
    struct raft_status status = pump_status(pump, leader);
    bool all = status.commit == status.last.index;
    for (uint32_t m = 0; m < status.membership.count; m++) {
        all = all && pump->nodes[status.membership.members[m].id].applied == status.last.index;
    }
    return all;
}

/* Faults end; then a leader comes, a value is committed, and every member applies it. */
static void come_together(struct history *history)
{
    struct pump *pump = history->pump;
    memset(pump->cut, 0, sizeof(pump->cut));
    for (uint64_t id = 1; id <= 5; id++) {
        pump->nodes[id].disk_waits = false;
        pump->nodes[id].installs_damaged = 0;
        if (pump->nodes[id].core == NULL) {
            pump_restart(pump, id);
        }
    }
    pump_settle(pump);
    bool together = false;
    uint64_t leader = 0;
    for (size_t i = 0; i < 1000 && !together; i++) {
        pump_tick_all(pump, 1);
        leader = 0;
        for (uint64_t id = 1; id <= 5; id++) {
            offer_wanted(history, id);
            leader = pump_status(pump, id).read_ready ? id : leader;
        }
        together = leader != 0 && all_caught_up(pump, leader);
    }
    assert_true(together);
    pump_commit(pump, leader, "the last one");
}

static void show(struct history *history)
{
    struct pump *pump = history->pump;
    fprintf(stderr, "applied=%llu messages=%llu snapshots=%llu wire=%zu\n",
            (unsigned long long)pump->truth_last, (unsigned long long)pump->sent_count,
            (unsigned long long)pump->sent_of_kind[RAFT_MSG_SNAPSHOT], pump->wire.count);
    for (uint64_t id = 1; id <= 5; id++) {
        if (pump->nodes[id].core == NULL) {
            continue;
        }
        struct raft_status status = pump_status(pump, id);
        fprintf(stderr,
                "%llu: state=%d term=%llu last=%llu,%llu commit=%llu durable=%llu start=%llu "
                "applied=%llu writes=%zu members=",
                (unsigned long long)id, (int)status.state, (unsigned long long)status.term,
                (unsigned long long)status.last.index, (unsigned long long)status.last.term,
                (unsigned long long)status.commit, (unsigned long long)status.durable,
                (unsigned long long)status.log_start.index,
                (unsigned long long)pump->nodes[id].applied, pump->nodes[id].write_count);
        for (uint32_t m = 0; m < status.membership.count; m++) {
            fprintf(stderr, "%llu%s,", (unsigned long long)status.membership.members[m].id,
                    status.membership.members[m].role == RAFT_VOTER ? "" : "L");
        }
        fprintf(stderr, "\n");
    }
}

static void run_history(uint64_t seed)
{
    struct history history = {.pump = pump_create(5, small_limits)};
    rng_init(&history.rng, seed);
    history.pump->seed = seed * 1000;
    history.pump->on_trace = count_event;
    for (size_t i = 0; i < STEPS; i++) {
        one_step(&history);
    }
    if (getenv("RAFT_RANDOM_SHOW") != NULL) {
        show(&history);
    }
    come_together(&history);
    pump_destroy(history.pump);
}

static void test_random_histories_stay_safe_and_come_together(void **state)
{
    (void)state;
    const char *only = getenv("RAFT_RANDOM_SEED");
    if (only != NULL) {
        run_history(strtoull(only, NULL, 10));
        return;
    }
    const char *more = getenv("RAFT_RANDOM_HISTORIES");
    uint64_t histories = more == NULL ? HISTORIES : strtoull(more, NULL, 10);
    for (uint64_t seed = 1; seed <= histories; seed++) {
        fprintf(stderr, "RAFT_RANDOM_SEED=%llu\r", (unsigned long long)seed);
        run_history(seed);
    }
    check_events();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_histories_stay_safe_and_come_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
