/* Life, inputs and outputs of a simulated replica. Its disk, state machine and snapshots are in
 * sim_replica_io.c, what is checked after every input and before every message in
 * sim_replica_check.c. Thread: one. Invariant: an event of an earlier life does nothing. */
#include "raft/sim_replica.h"

#include "base/assert.h"
#include "raft/sim_cluster.h"
#include "raft/sim_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void sim_replica_init(struct sim_replica *replica, struct sim_cluster *cluster, uint32_t slot,
                      const struct raft_membership *bootstrap)
{
    *replica = (struct sim_replica){.cluster = cluster, .slot = slot, .id = slot + 1};
    rng_init(&replica->rng, rng_next(&cluster->rng));
    sim_disk_init(&replica->disk, replica->id, bootstrap);
    const struct sim_replica_options *options = &cluster->options.replica;
    replica->tick_ns = options->tick_ns;
    if (options->skew_permille_max > 0) {
        uint64_t span = options->tick_ns * (uint64_t)options->skew_permille_max / 1000;
        replica->tick_ns += rng_below(&replica->rng, 2 * span + 1) - span;
    }
}

static const struct sim_replica_options *options_of(const struct sim_replica *replica)
{
    return &replica->cluster->options.replica;
}

bool sim_replica__is_current(const struct sim_replica *replica, uint64_t tag)
{
    return replica->core != NULL && replica->incarnation == tag;
}

void sim_replica__plan(struct sim_replica *replica, uint64_t delay_ns, sim_event_fn run,
                       void *payload, sim_event_fn drop)
{
    struct sim_clock *clock = &replica->cluster->clock;
    struct sim_event event = {.at_ns = clock->now_ns + delay_ns,
                              .run = run,
                              .drop = drop,
                              .context = replica,
                              .payload = payload,
                              .tag = replica->incarnation};
    sim_clock_add(clock, &event);
}

/* ---- outputs ---- */

static const struct sim_snapshot *snapshot_find(const struct sim_replica *replica, uint64_t id)
{
    for (size_t i = 0; i < replica->snapshot_count; i++) {
        if (replica->snapshots[i].snapshot.id == id) {
            return &replica->snapshots[i];
        }
    }
    return NULL;
}

static struct raft_message fill_chunk(struct sim_replica *replica,
                                      const struct raft_message *message)
{
    struct raft_message filled = *message;
    if (message->snapshot == NULL) {
        sim_fail("replica %" PRIu64 " sends a chunk of no snapshot", replica->id);
    }
    const struct sim_snapshot *held = snapshot_find(replica, message->snapshot->id);
    if (held == NULL || message->chunk_offset >= held->snapshot.size_bytes) {
        sim_fail("replica %" PRIu64 " sends offset %" PRIu64 " of snapshot %" PRIu64
                 ", which it does not have",
                 replica->id, message->chunk_offset, message->snapshot->id);
    }
    struct bytes all = blob_view(held->bytes);
    size_t offset = (size_t)message->chunk_offset;
    size_t size = options_of(replica)->core.chunk_bytes_max;
    if (size > all.size - offset) {
        size = all.size - offset;
    }
    filled.chunk = bytes_of(all.data + offset, size);
    filled.chunk_owner = held->bytes;
    replica->cluster->counters.snapshots_multi_chunk += offset > 0;
    return filled;
}

void sim_replica__send(struct sim_replica *replica, const struct raft_message *message)
{
    sim_replica__check_promise(replica, message);
    struct sim_counters *counters = &replica->cluster->counters;
    if (message->kind == RAFT_MSG_PREVOTE_REPLY && message->reject) {
        counters->prevote_rejections++;
    } else if (message->kind == RAFT_MSG_VOTE_REPLY && !message->reject) {
        sim_checker_vote(&replica->cluster->checker, replica->id, message->term, message->to);
    } else if (message->kind == RAFT_MSG_VOTE) { /* a candidate has voted for itself */
        sim_checker_vote(&replica->cluster->checker, replica->id, message->term, replica->id);
    } else if (message->kind == RAFT_MSG_APPEND_REPLY && message->reject) {
        counters->append_rejections++;
    } else if (message->kind == RAFT_MSG_HEARTBEAT &&
               replica->cluster->options.heartbeat_rate_checked) {
        sim_replica__check_heartbeat_rate(replica, message);
    }
    if (sim_trace_is_on()) {
        sim_trace("%" PRIu64 " -> %" PRIu64 " kind %d term %" PRIu64 " at %" PRIu64 "/%" PRIu64
                  " commit %" PRIu64 " entries %zu%s hint %" PRIu64 "/%" PRIu64 " round %" PRIu64
                  " offset %" PRIu64,
                  message->from, message->to, (int)message->kind, message->term,
                  message->position.index, message->position.term, message->commit,
                  message->entry_count, message->reject ? " REJECT" : "", message->hint.index,
                  message->hint.term, message->read_round, message->chunk_offset);
    }
    if (message->kind == RAFT_MSG_SNAPSHOT) {
        struct raft_message filled = fill_chunk(replica, message);
        sim_net_send(&replica->cluster->net, &filled);
    } else {
        sim_net_send(&replica->cluster->net, message);
    }
}

static void answer_read(struct sim_replica *replica, const struct raft_read_ready *ready)
{
    struct sim_counters *counters = &replica->cluster->counters;
    for (size_t i = 0; i < replica->read_count; i++) {
        struct sim_read read = replica->reads[i];
        if (read.context != ready->context) {
            continue;
        }
        replica->reads[i] = replica->reads[--replica->read_count];
        if (ready->error != 0) {
            counters->reads_failed++;
            return;
        }
        counters->reads_served++;
        if (ready->index < read.floor) {
            sim_fail("replica %" PRIu64 ": a read is served at %" PRIu64 "; %" PRIu64
                     " was acknowledged before it was asked for",
                     replica->id, ready->index, read.floor);
        }
        return;
    }
    sim_fail("replica %" PRIu64 ": read %" PRIu64 " answered twice or never asked", replica->id,
             ready->context);
}

static void take_write(struct sim_replica *replica, const struct raft_ready *ready)
{
    if (ready->write.seq == 0) {
        if (ready->held_count > 0) {
            sim_fail("replica %" PRIu64 " holds messages for no write", replica->id);
        }
        return;
    }
    struct sim_write *write = sim_write_copy(ready);
    replica->installs_pending += write->write.install != NULL;
    *replica->writes_end = write;
    replica->writes_end = &write->next;
}

static void pump_event(void *context, void *payload, uint64_t tag)
{
    (void)payload;
    struct sim_replica *replica = context;
    if (!sim_replica__is_current(replica, tag)) {
        return;
    }
    replica->pump_planned = false;
    struct raft_ready ready;
    while (raft_core_ready(replica->core, &ready)) {
        for (size_t i = 0; i < ready.message_count; i++) {
            sim_replica__send(replica, &ready.messages[i]);
        }
        take_write(replica, &ready);
        for (size_t i = 0; i < ready.read_count; i++) {
            answer_read(replica, &ready.reads[i]);
        }
        for (size_t i = 0; i < ready.load_count; i++) {
            sim_replica__load_plan(replica, &ready.loads[i]);
        }
        raft_core_accept(replica->core);
        sim_replica__observe(replica);
    }
    sim_replica__snapshot_if_wanted(replica);
    sim_replica__snapshots_prune(replica);
    sim_replica__disk_plan(replica);
    sim_replica__apply_plan(replica);
}

void sim_replica__after_input(struct sim_replica *replica)
{
    sim_replica__observe(replica);
    if (!replica->pump_planned) {
        replica->pump_planned = true;
        sim_replica__plan(replica, options_of(replica)->pump_delay_ns, pump_event, NULL, NULL);
    }
}

/* ---- life ---- */

static void tick_event(void *context, void *payload, uint64_t tag)
{
    (void)payload;
    struct sim_replica *replica = context;
    if (sim_replica__is_current(replica, tag)) {
        sim_replica__plan(replica, replica->tick_ns, tick_event, NULL, NULL);
        raft_core_tick(replica->core);
        sim_replica__after_input(replica);
    }
}

static void trace_line(void *context, const char *line)
{
    const struct sim_replica *replica = context;
    sim_trace("[%" PRIu64 "] %s", replica->id, line);
}

void sim_replica_start(struct sim_replica *replica)
{
    ASSERT(replica->core == NULL);
    const struct sim_replica_options *options = options_of(replica);
    bool base_form = options->recovery_base_form && rng_chance(&replica->rng, 1, 2);
    struct sim_recovery recovery;
    sim_disk_recover(&replica->disk, options->recovery_tail_max, base_form, &recovery);
    struct raft_core_options core_options = options->core;
    core_options.id = replica->id;
    core_options.seed = rng_next(&replica->rng);
    char why[256] = "";
    int error = raft_core_create(&core_options, &recovery.state, &replica->core, why, sizeof why);
    sim_recovery_free(&recovery);
    if (error != 0) {
        sim_fail("replica %" PRIu64 " does not start: %s (%s)", replica->id, err_name(error), why);
    }
    if (sim_trace_is_on()) {
        raft_core_set_trace(replica->core, trace_line, replica);
        sim_trace("[%" PRIu64 "] starts, base %" PRIu64 " last %" PRIu64 " snapshot %" PRIu64,
                  replica->id, replica->disk.base.index, sim_disk_last(&replica->disk).index,
                  replica->disk.snapshot.position.index);
    }
    replica->incarnation++;
    replica->writes_end = &replica->writes;
    sim_sm_init(&replica->sm);
    raft_core_status(replica->core, &replica->status);
    if (replica->disk.snapshot.id != 0) {
        replica->cluster->counters.restarts_from_snapshot++;
        sim_replica__restore(replica);
        sim_replica__snapshot_saved(replica);
    }
    uint64_t phase_ns = rng_below(&replica->rng, replica->tick_ns);
    sim_replica__plan(replica, phase_ns, tick_event, NULL, NULL);
    sim_replica__after_input(replica);
}

/* What the power cut leaves: a prefix of the unfinished writes may have reached the platter. */
static void crash_disk(struct sim_replica *replica)
{
    struct sim_counters *counters = &replica->cluster->counters;
    size_t count = 0;
    for (const struct sim_write *write = replica->writes; write != NULL; write = write->next) {
        count++;
    }
    size_t kept = (size_t)rng_below(&replica->rng, count + 1);
    counters->crashes_losing_writes += kept < count;
    counters->crashes_keeping_writes += kept > 0;
    for (size_t i = 0; i < count; i++) {
        struct sim_write *write = replica->writes;
        replica->writes = write->next;
        if (i < kept) {
            sim_disk_write(&replica->disk, write);
        }
        sim_write_free(write);
    }
    sim_disk_crash(&replica->disk, rng_chance(&replica->rng, 1, 2));
}

static void plant_on_disk(struct sim_replica *replica)
{
    struct sim_disk *disk = &replica->disk;
    enum sim_plant plant = options_of(replica)->plant;
    if (plant == SIM_PLANT_FORGOTTEN_VOTE) {
        disk->hard_state.voted_for = 0;
    } else if (plant == SIM_PLANT_LOST_TAIL && disk->count > 0 &&
               sim_disk_last(disk).index > disk->snapshot.position.index) {
        blob_unref(disk->entries[--disk->count].owner);
        if (disk->hard_state.commit > sim_disk_last(disk).index) {
            disk->hard_state.commit = sim_disk_last(disk).index;
        }
    } else if (plant == SIM_PLANT_WIPED) {
        struct raft_membership bootstrap = disk->base_membership;
        sim_disk_deinit(disk);
        bootstrap.position = (struct raft_position){0, 0};
        sim_disk_init(disk, replica->id, &bootstrap);
    }
    disk->synced = disk->hard_state;
}

void sim_replica_crash(struct sim_replica *replica)
{
    ASSERT(replica->core != NULL);
    sim_trace("[%" PRIu64 "] crashes", replica->id);
    replica->cluster->counters.crashes++;
    crash_disk(replica);
    plant_on_disk(replica);
    raft_core_destroy(replica->core);
    replica->core = NULL;
    sim_sm_deinit(&replica->sm);
    replica->pump_planned = false;
    replica->apply_planned = false;
    replica->disk_busy = false;
    replica->snapshot_planned = false;
    replica->installs_pending = 0;
    replica->writes_in_flight = 0;
    replica->proposal_count = 0;
    replica->read_count = 0;
    for (size_t i = 0; i < replica->snapshot_count; i++) {
        blob_unref(replica->snapshots[i].bytes);
    }
    replica->snapshot_count = 0;
    replica->status = (struct raft_status){0};
}

void sim_replica_deinit(struct sim_replica *replica)
{
    if (replica->core != NULL) {
        replica->cluster->options.replica.plant = SIM_PLANT_NONE;
        sim_replica_crash(replica);
    }
    sim_disk_deinit(&replica->disk);
    free(replica->snapshots);
    free(replica->proposals);
    free(replica->reads);
}

/* ---- inputs ---- */

static void count_stale_rejection(struct sim_replica *replica, const struct raft_message *message)
{
    struct raft_progress progress[RAFT_MEMBERS_MAX];
    size_t count = raft_core_progress(replica->core, progress);
    for (size_t i = 0; i < count; i++) {
        if (progress[i].id == message->from && message->term == replica->status.term &&
            message->position.index <= progress[i].match) {
            replica->cluster->counters.stale_rejections++;
        }
    }
}

void sim_replica_receive(struct sim_replica *replica, const struct raft_message *message)
{
    struct sim_counters *counters = &replica->cluster->counters;
    if (message->kind == RAFT_MSG_APPEND_REPLY && message->reject) {
        count_stale_rejection(replica, message);
    } else if (message->kind == RAFT_MSG_SNAPSHOT && message->chunk_offset == 0 &&
               replica->disk.staging && replica->disk.staged.id != message->snapshot->id) {
        counters->snapshots_restarted++;
    } else if (message->kind == RAFT_MSG_TIMEOUT_NOW) {
        replica->timeout_now_term = message->term;
    }
    raft_core_step(replica->core, message);
    sim_replica__after_input(replica);
}

void sim_replica_unreachable(struct sim_replica *replica, uint64_t peer)
{
    raft_core_unreachable(replica->core, peer);
    sim_replica__after_input(replica);
}

static void remember_proposal(struct sim_replica *replica, struct raft_position position)
{
    if (replica->proposal_count == replica->proposal_capacity) {
        replica->proposal_capacity =
            replica->proposal_capacity == 0 ? 64 : replica->proposal_capacity * 2;
        replica->proposals = mem_realloc(replica->proposals,
                                         replica->proposal_capacity * sizeof replica->proposals[0]);
    }
    replica->proposals[replica->proposal_count++] = position;
}

int sim_replica_propose(struct sim_replica *replica, struct blob *payload,
                        struct raft_position *position)
{
    int error = raft_core_propose(replica->core, blob_view(payload), payload, position);
    sim_replica__after_input(replica);
    struct sim_counters *counters = &replica->cluster->counters;
    if (error == 0) {
        counters->proposals++;
        remember_proposal(replica, *position);
        if (position->term != replica->status.term ||
            position->index != replica->status.last.index) {
            sim_fail("replica %" PRIu64 " took a proposal at %" PRIu64 "/%" PRIu64, replica->id,
                     position->index, position->term);
        }
    } else if (error == ERR_BUSY) {
        counters->proposals_busy++;
    } else if (error != ERR_NOT_LEADER) {
        sim_fail("replica %" PRIu64 " answers a proposal with %s", replica->id, err_name(error));
    }
    return error;
}

int sim_replica_change(struct sim_replica *replica, const struct raft_change *change,
                       struct raft_position *position)
{
    bool may_change = replica->status.read_ready;
    int error = raft_core_propose_change(replica->core, change, position);
    if (error == 0 && !may_change) {
        sim_fail("replica %" PRIu64 " changes the membership before it committed in its term",
                 replica->id);
    }
    sim_replica__after_input(replica);
    if (error == 0) {
        replica->cluster->counters.changes_started++;
        remember_proposal(replica, *position);
    } else {
        replica->cluster->counters.changes_refused++;
    }
    return error;
}

int sim_replica_transfer(struct sim_replica *replica, uint64_t target)
{
    int error = raft_core_transfer(replica->core, target);
    sim_replica__after_input(replica);
    replica->cluster->counters.transfers_started += error == 0;
    return error;
}

int sim_replica_read(struct sim_replica *replica)
{
    struct sim_cluster *cluster = replica->cluster;
    struct sim_read read = {.context = ++cluster->read_contexts,
                            .floor = cluster->acknowledged,
                            .asked_ns = cluster->clock.now_ns};
    bool planted = options_of(replica)->plant == SIM_PLANT_READ_AT_ONCE;
    int error = planted ? (replica->status.read_ready ? 0 : ERR_NOT_LEADER)
                        : raft_core_read(replica->core, read.context);
    if (error == 0) {
        cluster->counters.reads_asked++;
        if (replica->read_count == replica->read_capacity) {
            replica->read_capacity = replica->read_capacity == 0 ? 16 : replica->read_capacity * 2;
            replica->reads =
                mem_realloc(replica->reads, replica->read_capacity * sizeof replica->reads[0]);
        }
        replica->reads[replica->read_count++] = read;
        if (planted) {
            struct raft_read_ready ready = {.context = read.context,
                                            .index = replica->status.commit};
            answer_read(replica, &ready);
        }
    } else {
        cluster->counters.reads_refused++;
    }
    sim_replica__after_input(replica);
    return error;
}
