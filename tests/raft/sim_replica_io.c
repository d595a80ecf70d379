/* The slow side of a simulated replica: disk writes, applying, snapshots, reads from the log. Each
 * is an event in virtual time that belongs to one life of the replica. Thread: one. Invariants:
 * writes complete in order; entries are applied in order, only when committed and durable here; the
 * log is never compacted beyond what the state machine has saved. */
#include "base/assert.h"
#include "raft/sim_cluster.h"
#include "raft/sim_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct sim_replica_options *options_of(const struct sim_replica *replica)
{
    return &replica->cluster->options.replica;
}

/* ---- disk writes ---- */

static uint64_t sync_delay(struct sim_replica *replica)
{
    const struct sim_replica_options *options = options_of(replica);
    if (options->stall_permille > 0 && rng_chance(&replica->rng, options->stall_permille, 1000)) {
        replica->cluster->counters.disk_stalls++;
        return options->stall_ns;
    }
    return rng_between(&replica->rng, options->sync_min_ns, options->sync_max_ns);
}

static void report_installed(struct sim_replica *replica)
{
    replica->installs_pending--;
    if (replica->installs_pending > 0) {
        return; /* a newer one follows */
    }
    sim_replica__restore(replica);
    replica->cluster->counters.snapshots_installed++;
    raft_core_applied(replica->core, replica->sm.applied.index);
    sim_replica__after_input(replica);
    sim_replica__snapshot_saved(replica);
}

static void report_written(struct sim_replica *replica, struct sim_write *write)
{
    if (write->damaged) {
        replica->cluster->counters.snapshots_damaged++;
        replica->installs_pending--;
        raft_core_install_failed(replica->core, write->write.seq);
        sim_replica__after_input(replica);
    }
    if (options_of(replica)->plant != SIM_PLANT_EARLY_PERSISTED) {
        raft_core_persisted(replica->core, write->write.seq);
        sim_replica__after_input(replica);
        for (size_t i = 0; i < write->held_count; i++) {
            sim_replica__send(replica, &write->held[i]->message);
        }
    }
    if (write->write.install != NULL && !write->damaged) {
        report_installed(replica);
    }
}

static void disk_event(void *context, void *payload, uint64_t tag)
{
    (void)payload;
    struct sim_replica *replica = context;
    if (!sim_replica__is_current(replica, tag)) {
        return;
    }
    struct sim_disk_counters before = replica->disk.counters;
    size_t count = replica->writes_in_flight;
    struct sim_write *write = replica->writes;
    for (size_t i = 0; i < count; i++) { /* all are durable before one is reported */
        write->damaged = write->write.install != NULL && options_of(replica)->damage_permille > 0 &&
                         rng_chance(&replica->rng, options_of(replica)->damage_permille, 1000);
        sim_disk_write(&replica->disk, write);
        write = write->next;
    }
    struct sim_counters *counters = &replica->cluster->counters;
    counters->log_truncations += replica->disk.counters.truncations - before.truncations;
    counters->memberships_rolled_back +=
        replica->disk.counters.memberships_rolled_back - before.memberships_rolled_back;
    for (size_t i = 0; i < count; i++) {
        write = replica->writes;
        replica->writes = write->next;
        if (replica->writes == NULL) {
            replica->writes_end = &replica->writes;
        }
        report_written(replica, write);
        sim_write_free(write);
    }
    replica->disk_busy = false;
    sim_replica__disk_plan(replica);
    sim_replica__apply_plan(replica);
}

static void report_early(struct sim_replica *replica)
{
    uint64_t newest = 0;
    for (struct sim_write *write = replica->writes; write != NULL; write = write->next) {
        for (size_t i = 0; i < write->held_count; i++) {
            sim_replica__send(replica, &write->held[i]->message);
            sim_message_free(write->held[i]);
        }
        write->held_count = 0;
        newest = write->write.seq;
    }
    raft_core_persisted(replica->core, newest);
    sim_replica__after_input(replica);
}

void sim_replica__disk_plan(struct sim_replica *replica)
{
    if (replica->writes == NULL) {
        return;
    }
    if (options_of(replica)->plant == SIM_PLANT_EARLY_PERSISTED) {
        report_early(replica);
    }
    if (replica->disk_busy) {
        return;
    }
    bool must_sync = false;
    replica->writes_in_flight = 0;
    for (const struct sim_write *write = replica->writes; write != NULL; write = write->next) {
        must_sync = must_sync || write->write.must_sync;
        replica->writes_in_flight++;
        if (rng_chance(&replica->rng, 1, 4)) {
            break; /* not every sync takes all that waits */
        }
    }
    replica->disk_busy = true;
    uint64_t delay_ns = must_sync ? sync_delay(replica) : 10 * SIM_US;
    sim_replica__plan(replica, delay_ns, disk_event, NULL, NULL);
}

/* ---- snapshots ---- */

void sim_replica__restore(struct sim_replica *replica)
{
    const struct raft_snapshot *snapshot = &replica->disk.snapshot;
    struct raft_position before = replica->sm.applied;
    if (snapshot->position.index <= before.index ||
        sim_sm_restore(&replica->sm, blob_view(replica->disk.snapshot_bytes)) != 0 ||
        !raft_position_equal(replica->sm.applied, snapshot->position)) {
        sim_fail("replica %" PRIu64 ": snapshot %" PRIu64 "/%" PRIu64
                 " does not restore over %" PRIu64 " (gives %" PRIu64 "/%" PRIu64 ")",
                 replica->id, snapshot->position.index, snapshot->position.term, before.index,
                 replica->sm.applied.index, replica->sm.applied.term);
    }
    for (size_t i = 0; i < replica->sm.count; i++) {
        sim_checker_restored(&replica->cluster->checker, replica->id,
                             replica->sm.commands[i].position, replica->sm.commands[i].checksum);
    }
    replica->proposal_count = 0; /* what happened to them is not known here */
}

void sim_replica__snapshots_prune(struct sim_replica *replica)
{
    size_t kept = 0;
    for (size_t i = 0; i < replica->snapshot_count; i++) {
        struct sim_snapshot held = replica->snapshots[i];
        bool newest = i + 1 == replica->snapshot_count;
        if (newest || raft_core_snapshot_in_use(replica->core, held.snapshot.id)) {
            replica->snapshots[kept++] = held;
        } else {
            blob_unref(held.bytes);
        }
    }
    replica->snapshot_count = kept;
}

static void offer(struct sim_replica *replica)
{
    const struct raft_snapshot *snapshot = &replica->disk.snapshot;
    for (size_t i = 0; i < replica->snapshot_count; i++) {
        if (replica->snapshots[i].snapshot.id == snapshot->id) {
            return;
        }
    }
    if (replica->snapshot_count == replica->snapshot_capacity) {
        replica->snapshot_capacity =
            replica->snapshot_capacity == 0 ? 4 : replica->snapshot_capacity * 2;
        replica->snapshots = mem_realloc(replica->snapshots,
                                         replica->snapshot_capacity * sizeof replica->snapshots[0]);
    }
    replica->snapshots[replica->snapshot_count++] = (struct sim_snapshot){
        .snapshot = *snapshot, .bytes = blob_ref(replica->disk.snapshot_bytes)};
    raft_core_snapshot_made(replica->core, snapshot);
    sim_replica__after_input(replica);
}

void sim_replica__snapshot_saved(struct sim_replica *replica)
{
    if (!options_of(replica)->snapshot_lazy) {
        offer(replica);
    }
}

struct snapshot_work {
    struct raft_snapshot snapshot;
    struct blob *bytes;
};

static void snapshot_work_free(void *context, void *payload, uint64_t tag)
{
    (void)context;
    (void)tag;
    struct snapshot_work *work = payload;
    blob_unref(work->bytes);
    free(work);
}

static void compact(struct sim_replica *replica, uint64_t saved_index)
{
    uint64_t keep = options_of(replica)->snapshot_keep;
    uint64_t index = saved_index > keep ? saved_index - keep : 0;
    if (index <= replica->disk.base.index) {
        return;
    }
    raft_core_compact(replica->core, index);
    sim_replica__after_input(replica);
    sim_disk_compact(&replica->disk, replica->status.log_start.index); /* the core may keep more */
    replica->cluster->counters.compactions++;
}

static void snapshot_event(void *context, void *payload, uint64_t tag)
{
    struct sim_replica *replica = context;
    struct snapshot_work *work = payload;
    if (sim_replica__is_current(replica, tag)) {
        replica->snapshot_planned = false;
        if (work->snapshot.position.index > replica->disk.snapshot.position.index) {
            replica->cluster->counters.snapshots_made++;
            sim_disk_save(&replica->disk, &work->snapshot, work->bytes);
            sim_replica__snapshot_saved(replica);
            compact(replica, work->snapshot.position.index);
        } /* else one was installed meanwhile */
    }
    snapshot_work_free(NULL, work, 0);
}

static void make_snapshot(struct sim_replica *replica)
{
    if (replica->snapshot_planned) {
        return;
    }
    struct snapshot_work *work = mem_calloc(1, sizeof *work);
    work->snapshot.position = replica->sm.applied;
    struct raft_membership on_disk;
    sim_disk_membership_at(&replica->disk, replica->sm.applied.index, &on_disk);
    if (!raft_core_membership_at(replica->core, replica->sm.applied.index,
                                 &work->snapshot.membership) ||
        on_disk.count == 0 || work->snapshot.membership.count != on_disk.count ||
        memcmp(work->snapshot.membership.members, on_disk.members,
               on_disk.count * sizeof on_disk.members[0]) != 0) {
        sim_fail("replica %" PRIu64 " does not know the membership at %" PRIu64, replica->id,
                 replica->sm.applied.index);
    }
    work->bytes = sim_sm_encode(&replica->sm);
    work->snapshot.size_bytes = blob_view(work->bytes).size;
    work->snapshot.id = rng_next(&replica->rng) | 1;
    replica->snapshot_planned = true;
    uint64_t delay_max_ns = options_of(replica)->snapshot_delay_max_ns;
    if (delay_max_ns == 0) {
        snapshot_event(replica, work, replica->incarnation);
    } else {
        sim_replica__plan(replica, rng_below(&replica->rng, delay_max_ns + 1), snapshot_event, work,
                          snapshot_work_free);
    }
}

void sim_replica__snapshot_if_wanted(struct sim_replica *replica)
{
    uint64_t wanted = replica->status.snapshot_wanted;
    uint64_t applied = replica->sm.applied.index;
    if (wanted == 0 || replica->installs_pending > 0) {
        return;
    }
    if (replica->disk.snapshot.position.index >= wanted) {
        replica->cluster->counters.snapshots_wanted++;
        offer(replica);
    } else if (applied >= wanted && applied <= sim_disk_last(&replica->disk).index) {
        make_snapshot(replica); /* looked at again when it is there */
    }
}

/* ---- applying ---- */

static void count_membership(struct sim_replica *replica, const struct raft_entry *entry)
{
    struct raft_membership before;
    struct raft_membership after;
    if (raft_membership_decode(entry->data, &after) != 0) {
        sim_fail("replica %" PRIu64 ": membership entry %" PRIu64 " does not decode", replica->id,
                 entry->position.index);
    }
    struct sim_counters *counters = &replica->cluster->counters;
    counters->changes_committed += entry->position.index > 1; /* the first is the bootstrap one */
    if (raft_core_membership_at(replica->core, entry->position.index - 1, &before)) {
        counters->removals += after.count < before.count;
        counters->promotions +=
            after.count == before.count &&
            raft_membership_voter_count(&after) > raft_membership_voter_count(&before);
    }
}

static void settle_proposals(struct sim_replica *replica, struct raft_position applied)
{
    size_t done = 0;
    while (done < replica->proposal_count && replica->proposals[done].index <= applied.index) {
        if (raft_position_equal(replica->proposals[done], applied)) {
            if (applied.index > replica->cluster->acknowledged) {
                replica->cluster->acknowledged = applied.index;
            }
        } else {
            replica->cluster->counters.proposals_lost++;
        }
        done++;
    }
    replica->proposal_count -= done;
    for (size_t i = 0; done > 0 && i < replica->proposal_count; i++) {
        replica->proposals[i] = replica->proposals[i + done];
    }
}

static void apply_entry(struct sim_replica *replica, const struct raft_entry *entry)
{
    struct sim_cluster *cluster = replica->cluster;
    if (entry->position.index != replica->sm.applied.index + 1) {
        sim_fail("replica %" PRIu64 " is given entry %" PRIu64 " to apply after %" PRIu64,
                 replica->id, entry->position.index, replica->sm.applied.index);
    }
    bool first = entry->position.index >= cluster->checker.table_capacity ||
                 !cluster->checker.table[entry->position.index].content_known;
    sim_checker_applied(&cluster->checker, replica->id, entry);
    if (first && entry->kind == RAFT_ENTRY_MEMBERSHIP) {
        count_membership(replica, entry);
    }
    if (options_of(replica)->plant == SIM_PLANT_SKIPPED_APPLY && replica->id == 2 &&
        entry->kind == RAFT_ENTRY_COMMAND && entry->position.index > 20) {
        struct raft_entry other = *entry;
        other.kind = RAFT_ENTRY_NOOP;
        sim_sm_apply(&replica->sm, &other);
    } else {
        sim_sm_apply(&replica->sm, entry);
    }
    settle_proposals(replica, entry->position);
}

static bool snapshot_due(const struct sim_replica *replica)
{
    uint64_t interval = options_of(replica)->snapshot_interval;
    return interval > 0 && (replica->sm.applied.index + 1) % interval == 0;
}

/* Committed and durable here. */
static uint64_t apply_limit(const struct sim_replica *replica)
{
    uint64_t durable = sim_disk_last(&replica->disk).index;
    if (replica->status.durable < durable) {
        durable = replica->status.durable;
    }
    return replica->status.commit < durable ? replica->status.commit : durable;
}

/* Applies a run of entries that lie side by side, up to a snapshot's place. False when nothing was
 * to be done. */
static bool apply_run(struct sim_replica *replica)
{
    uint64_t limit = apply_limit(replica);
    uint64_t index = replica->sm.applied.index + 1;
    if (index > limit) {
        return false;
    }
    const struct raft_entry *entries;
    size_t count =
        raft_core_entries(replica->core, index, options_of(replica)->apply_bytes_max, &entries);
    if (count == 0) {
        entries = sim_disk_entry(&replica->disk, index);
        if (entries == NULL) {
            sim_fail("replica %" PRIu64 ": entry %" PRIu64
                     " to apply is neither in memory nor on disk",
                     replica->id, index);
        }
        replica->cluster->counters.applied_from_disk++;
        count = 1;
    }
    for (size_t i = 0; i < count && index + i <= limit; i++) {
        apply_entry(replica, &entries[i]);
        if (snapshot_due(replica)) {
            break;
        }
    }
    raft_core_applied(replica->core, replica->sm.applied.index);
    sim_replica__after_input(replica);
    if (snapshot_due(replica)) {
        make_snapshot(replica);
    }
    return true;
}

static void apply_event(void *context, void *payload, uint64_t tag)
{
    (void)payload;
    struct sim_replica *replica = context;
    if (!sim_replica__is_current(replica, tag)) {
        return;
    }
    replica->apply_planned = false;
    if (replica->installs_pending == 0) {
        (void)apply_run(replica);
        sim_replica__apply_plan(replica);
    }
}

void sim_replica__apply_plan(struct sim_replica *replica)
{
    if (replica->apply_planned || replica->installs_pending > 0 ||
        apply_limit(replica) <= replica->sm.applied.index) {
        return;
    }
    replica->apply_planned = true;
    uint64_t delay_ns = rng_below(&replica->rng, options_of(replica)->apply_delay_max_ns + 1);
    sim_replica__plan(replica, delay_ns, apply_event, NULL, NULL);
}

/* ---- reads from the log ---- */

static void load_free(void *context, void *payload, uint64_t tag)
{
    (void)context;
    (void)tag;
    free(payload);
}

static void load_event(void *context, void *payload, uint64_t tag)
{
    struct sim_replica *replica = context;
    const struct raft_load *load = payload;
    if (sim_replica__is_current(replica, tag)) {
        const struct raft_entry *first = sim_disk_entry(&replica->disk, load->index);
        size_t count = 0;
        uint64_t bytes = 0;
        uint64_t available = sim_disk_last(&replica->disk).index + 1;
        while (first != NULL && load->index + count < available) {
            bytes += raft_entry_bytes(&first[count]);
            if (count > 0 && bytes > load->bytes_max) {
                break;
            }
            count++;
            if (rng_chance(&replica->rng, 1, 16)) {
                break; /* fewer than asked is allowed */
            }
        }
        replica->cluster->counters.loads_served += count > 0;
        replica->cluster->counters.loads_compacted += count == 0;
        raft_core_entries_loaded(replica->core, load->peer, first, count);
        sim_replica__after_input(replica);
    }
    free(payload);
}

void sim_replica__load_plan(struct sim_replica *replica, const struct raft_load *load)
{
    uint64_t delay_ns = rng_below(&replica->rng, options_of(replica)->load_delay_max_ns + 1);
    sim_replica__plan(replica, delay_ns, load_event, mem_dup(load, sizeof *load), load_free);
}
