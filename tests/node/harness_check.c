/* What must hold at every step, whatever the state machine: see harness.h. The watcher sits between
 * a replica and its state machine and passes everything on. */
#include "node/harness_internal.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VIOLATION(slot, ...)                                                                       \
    do {                                                                                           \
        fprintf(stderr, "violation: seed=%" PRIu64 " now_ms=%" PRIu64 " slot=%u: ",                \
                (slot)->harness->options.seed, (uint64_t)((slot)->harness->clock.now_ns / SIM_MS), \
                (slot)->number);                                                                   \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        abort();                                                                                   \
    } while (0)

/* ---- the log as everybody must see it
 * ------------------------------------------------------------------------ */

static struct applied_entry *applied_at(struct harness *harness, uint64_t index)
{
    if (index >= harness->applied_capacity) {
        size_t capacity = harness->applied_capacity == 0 ? 1024 : harness->applied_capacity;
        while (capacity <= index) {
            capacity *= 2;
        }
        harness->applied = mem_realloc(harness->applied, capacity * sizeof(harness->applied[0]));
        memset(harness->applied + harness->applied_capacity, 0,
               (capacity - harness->applied_capacity) * sizeof(harness->applied[0]));
        harness->applied_capacity = capacity;
    }
    return &harness->applied[index];
}

/* Commands of one entry are consecutive in the batch: their checksum stands for the entry. */
static void note_entry(struct slot *slot, struct raft_position position, uint64_t time_ms,
                       uint32_t checksum)
{
    struct applied_entry *entry = applied_at(slot->harness, position.index);
    if (!entry->known) {
        const struct applied_entry *before = entry;
        do {
            before--;
        } while (before > slot->harness->applied && !before->known);
        if (before->known && before->time_ms > time_ms) {
            VIOLATION(slot, "log time goes back at entry %" PRIu64 ": %" PRIu64 " after %" PRIu64,
                      position.index, time_ms, before->time_ms);
        }
        *entry = (struct applied_entry){
            .known = true, .term = position.term, .checksum = checksum, .time_ms = time_ms};
        slot->harness->counters.entries_applied++;
    } else if (entry->term != position.term || entry->checksum != checksum) {
        VIOLATION(slot,
                  "entry %" PRIu64 " applied as term %" PRIu64 " checksum %08x, was %" PRIu64
                  " %08x",
                  position.index, position.term, checksum, entry->term, entry->checksum);
    }
}

static uint32_t command_checksum(uint32_t sum, const struct sm_command *command)
{
    uint8_t time[8];
    uint8_t size[8];
    store_u64(time, command->time_ms);
    store_u64(size, command->payload.size);
    sum = crc32c_extend(sum, time, sizeof(time));
    sum = crc32c_extend(sum, size, sizeof(size));
    return crc32c_extend(sum, command->payload.data, command->payload.size);
}

static void check_batch(struct slot *slot, const struct sm_batch *batch)
{
    if (batch->last.index <= slot->applied.index || batch->last.term < slot->applied.term) {
        VIOLATION(slot, "batch ends at %" PRIu64 ", applied was %" PRIu64, batch->last.index,
                  slot->applied.index);
    }
    uint64_t index = slot->applied.index;
    for (size_t i = 0; i < batch->count;) {
        struct raft_position position = batch->commands[i].position;
        uint32_t sum = 1;
        if (position.index <= index || position.index > batch->last.index) {
            VIOLATION(slot, "command of entry %" PRIu64 " after %" PRIu64, position.index, index);
        }
        if (batch->commands[i].time_ms < slot->time_ms) {
            VIOLATION(slot, "log time goes back at entry %" PRIu64 ": %" PRIu64 " after %" PRIu64,
                      position.index, batch->commands[i].time_ms, slot->time_ms);
        }
        slot->time_ms = batch->commands[i].time_ms;
        while (i < batch->count && batch->commands[i].position.index == position.index) {
            sum = command_checksum(sum, &batch->commands[i]);
            i++;
        }
        note_entry(slot, position, slot->time_ms, sum);
        index = position.index;
    }
    slot->applied = batch->last;
}

/* ---- the watcher ----------------------------------------------------------------------------- */

static int watch_apply(void *sm, const struct sm_batch *batch)
{
    struct slot *slot = sm;
    int error = slot->machine.ops->apply(slot->machine.sm, batch);
    if (error == ERR_OK) {
        check_batch(slot, batch);
    }
    return error;
}

static struct raft_position watch_applied(void *sm)
{
    struct slot *slot = sm;
    return slot->machine.ops->applied(slot->machine.sm);
}

static struct raft_position watch_durable(void *sm)
{
    struct slot *slot = sm;
    return slot->machine.ops->durable(slot->machine.sm);
}

static int watch_flush(void *sm)
{
    struct slot *slot = sm;
    return slot->machine.ops->flush(slot->machine.sm);
}

static int watch_snapshot_open(void *sm, const char *dir, struct raft_position *position,
                               uint64_t *size_bytes, struct sm_snapshot_reader **out)
{
    struct slot *slot = sm;
    return slot->machine.ops->snapshot_open(slot->machine.sm, dir, position, size_bytes, out);
}

static int watch_receive_open(void *sm, const char *dir, struct sm_snapshot_writer **out)
{
    struct slot *slot = sm;
    return slot->machine.ops->receive_open(slot->machine.sm, dir, out);
}

static int watch_restore(void *sm, const char *dir)
{
    struct slot *slot = sm;
    int error = slot->machine.ops->restore(slot->machine.sm, dir);
    if (error == ERR_OK) {
        struct raft_position now = slot->machine.ops->applied(slot->machine.sm);
        if (now.index < slot->applied.index) {
            VIOLATION(slot, "restored to %" PRIu64 ", applied was %" PRIu64, now.index,
                      slot->applied.index);
        }
        slot->applied = now;
        slot->harness->counters.restores++;
    }
    return error;
}

static int watch_hash(void *sm, uint64_t *hash, struct raft_position *position)
{
    struct slot *slot = sm;
    return slot->machine.ops->hash(slot->machine.sm, hash, position);
}

void harness__watch(struct slot *slot)
{
    /* One table a slot, because the readers' and writers' calls go straight to the state machine's
     * own functions. */
    struct state_machine_ops *ops = &slot->watch_ops;
    const struct state_machine_ops *real = slot->machine.ops;
    *ops = (struct state_machine_ops){
        .apply = watch_apply,
        .applied = watch_applied,
        .durable = watch_durable,
        .flush = watch_flush,
        .snapshot_open = watch_snapshot_open,
        .snapshot_read = real->snapshot_read,
        .snapshot_close = real->snapshot_close,
        .receive_open = watch_receive_open,
        .receive_write = real->receive_write,
        .receive_finish = real->receive_finish,
        .receive_close = real->receive_close,
        .restore = watch_restore,
        .hash = watch_hash,
    };
    slot->checked = (struct state_machine){.ops = ops, .sm = slot};
    slot->applied = real->applied(slot->machine.sm);
    slot->time_ms = 0;
}

/* ---- after every step
 * ----------------------------------------------------------------------------------------- */

static void check_leader(struct slot *slot, const struct raft_status *status)
{
    struct harness *harness = slot->harness;
    if (status->term >= harness->term_capacity) {
        size_t capacity = harness->term_capacity == 0 ? 256 : harness->term_capacity;
        while (capacity <= status->term) {
            capacity *= 2;
        }
        harness->leader_of_term =
            mem_realloc(harness->leader_of_term, capacity * sizeof(harness->leader_of_term[0]));
        memset(harness->leader_of_term + harness->term_capacity, 0,
               (capacity - harness->term_capacity) * sizeof(harness->leader_of_term[0]));
        harness->term_capacity = capacity;
    }
    uint64_t *leader = &harness->leader_of_term[status->term];
    if (*leader != 0 && *leader != status->id) {
        VIOLATION(slot, "second leader of term %" PRIu64 ": %" PRIu64 " and %" PRIu64, status->term,
                  *leader, status->id);
    }
    *leader = status->id;
}

void harness__check_slot(struct slot *slot)
{
    struct node_status status;
    replica_check(slot->replica);
    replica_status(slot->replica, &status);
    if (status.raft.state == RAFT_LEADER) {
        check_leader(slot, &status.raft);
    }
}

void harness__check_deinit(struct harness *harness)
{
    free(harness->applied);
    free(harness->leader_of_term);
}

/* ---- questions ------------------------------------------------------------------------------- */

int harness_leader(struct harness *harness)
{
    int leader = -1;
    uint64_t term = 0;
    for (uint32_t i = 0; i < harness->options.slot_count; i++) {
        struct replica *replica = harness->slots[i].replica;
        struct node_status status;
        if (replica == NULL) {
            continue;
        }
        replica_status(replica, &status);
        if (status.role == NODE_LEADER && status.raft.term >= term) {
            term = status.raft.term;
            leader = (int)i;
        }
    }
    return leader;
}

static bool has_leader(struct harness *harness, void *context)
{
    (void)context;
    return harness_leader(harness) >= 0;
}

int harness_wait_leader(struct harness *harness, uint64_t limit_ns)
{
    (void)harness_run_until(harness, has_leader, NULL, limit_ns);
    return harness_leader(harness);
}

uint64_t harness_applied(struct harness *harness, uint32_t slot)
{
    return harness->slots[slot].replica == NULL ? 0 : harness->slots[slot].applied.index;
}

uint64_t harness_log_time_ms(struct harness *harness, uint32_t slot)
{
    return harness->slots[slot].time_ms;
}

static bool all_applied(struct harness *harness, void *context)
{
    uint64_t least = *(const uint64_t *)context;
    uint64_t common = 0;
    for (uint32_t i = 0; i < harness->options.slot_count; i++) {
        struct slot *slot = &harness->slots[i];
        if (slot->replica == NULL || replica_role(slot->replica) == NODE_LEARNER) {
            continue;
        }
        if (slot->applied.index < least || (common != 0 && slot->applied.index != common)) {
            return false;
        }
        common = slot->applied.index;
    }
    return common != 0;
}

bool harness_wait_applied(struct harness *harness, uint64_t index, uint64_t limit_ns)
{
    return harness_run_until(harness, all_applied, &index, limit_ns);
}
