/* Slots, their workers and their time. See harness.h. */
#include "node/harness_internal.h"

#include "base/assert.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char slot_dir[] = "replica";

struct harness_options harness_options_default(uint64_t seed)
{
    struct harness_options options = {
        .seed = seed,
        .slot_count = 3,
        .member_count = 3,
        .net = harness_net_reliable(),
        .latency = {[REPLICA_PERSIST] = {200 * SIM_US, 1000 * SIM_US},
                    [REPLICA_APPLY] = {20 * SIM_US, 200 * SIM_US},
                    [REPLICA_BACKGROUND] = {SIM_MS, 10 * SIM_MS}},
        .tick_ns = 10 * SIM_MS,
        .replica = replica_options_default(),
    };
    options.replica.segment_bytes = 64 * 1024;
    options.replica.flush_log_bytes = 64 * 1024;
    options.replica.cache_bytes_max = 32 * 1024;
    options.replica.chunk_bytes_max = 4096;
    options.replica.prewrite_segments = false;
    return options;
}

/* ---- clock of a slot ------------------------------------------------------------------------- */

static uint64_t slot_now_ns(void *context)
{
    const struct slot *slot = context;
    return slot->harness->clock.now_ns;
}

/* ---- polls ----------------------------------------------------------------------------------- */

static void slot_die(struct slot *slot, enum fake_crash how);

/* After anything that let the replica run: it may have ended itself, or its disk may have gone away
 * under it. */
static void slot_settle(struct slot *slot)
{
    if (slot->fatal && slot->replica != NULL) {
        bool power_lost = fake_vfs_is_halted(slot->disk);
        slot->harness->counters.fatals++;
        slot_die(slot, power_lost ? FAKE_CRASH_ANY : FAKE_CRASH_KEEP);
    }
}

static bool is_current(const struct slot *slot, uint64_t epoch)
{
    return slot->replica != NULL && slot->epoch == epoch;
}

static void run_poll(void *context, void *payload, uint64_t epoch)
{
    struct slot *slot = context;
    (void)payload;
    if (!is_current(slot, epoch)) {
        return;
    }
    slot->poll_planned = false;
    replica_poll(slot->replica);
    slot_settle(slot);
    if (slot->replica != NULL) {
        harness__check_slot(slot);
    }
}

/* All that happens within a few microseconds is one round of the loop, as with a mailbox. */
void harness__plan_poll(struct slot *slot)
{
    if (slot->poll_planned) {
        return;
    }
    slot->poll_planned = true;
    sim_clock_add(&slot->harness->clock,
                  &(struct sim_event){.at_ns = slot->harness->clock.now_ns + 5 * SIM_US,
                                      .run = run_poll,
                                      .context = slot,
                                      .tag = slot->epoch});
}

static void run_tick(void *context, void *payload, uint64_t epoch)
{
    struct slot *slot = context;
    struct harness *harness = slot->harness;
    (void)payload;
    if (!is_current(slot, epoch)) {
        return;
    }
    replica_tick(slot->replica);
    harness__plan_poll(slot);
    sim_clock_add(&harness->clock,
                  &(struct sim_event){.at_ns = harness->clock.now_ns + harness->options.tick_ns,
                                      .run = run_tick,
                                      .context = slot,
                                      .tag = epoch});
}

/* ---- workers --------------------------------------------------------------------------------- */

static void run_jobs(void *context, void *payload, uint64_t epoch);

static void worker_begin(struct slot *slot, enum replica_worker kind)
{
    struct harness *harness = slot->harness;
    struct slot_worker *worker = &slot->workers[kind];
    size_t most = kind == REPLICA_PERSIST ? HARNESS_PERSIST_BATCH_MAX : 1;
    if (worker->running_count > 0 || worker->first == NULL) {
        return;
    }
    while (worker->first != NULL && worker->running_count < most) {
        struct replica_job *job = worker->first;
        worker->first = job->next;
        job->next = NULL;
        worker->running[worker->running_count++] = job;
    }
    const struct harness_latency *latency = &slot->latency[kind];
    uint64_t takes_ns = rng_between(&harness->rng, latency->min_ns, latency->max_ns);
    sim_clock_add(&harness->clock, &(struct sim_event){.at_ns = harness->clock.now_ns + takes_ns,
                                                       .run = run_jobs,
                                                       .context = slot,
                                                       .payload = worker,
                                                       .tag = slot->epoch});
}

static void run_jobs(void *context, void *payload, uint64_t epoch)
{
    struct slot *slot = context;
    struct slot_worker *worker = payload;
    if (!is_current(slot, epoch)) {
        return;
    }
    replica_jobs_run(worker->running, worker->running_count);
    slot_settle(slot);
    if (!is_current(slot, epoch)) {
        return;
    }
    size_t count = worker->running_count;
    worker->running_count = 0;
    for (size_t i = 0; i < count; i++) {
        replica_job_done(worker->running[i]);
    }
    slot_settle(slot);
    if (is_current(slot, epoch)) {
        harness__plan_poll(slot);
        worker_begin(slot, (enum replica_worker)(worker - slot->workers));
    }
}

static void env_submit(void *context, struct replica_job *job)
{
    struct slot *slot = context;
    struct slot_worker *worker = &slot->workers[job->worker];
    job->next = NULL;
    if (worker->first == NULL) {
        worker->first = job;
    } else {
        worker->last->next = job;
    }
    worker->last = job;
    worker_begin(slot, job->worker);
}

static void env_send(void *context, uint64_t peer, struct buf *frame)
{
    harness__send(context, peer, frame);
}

static void env_fatal(void *context, const char *what)
{
    struct slot *slot = context;
    slot->fatal = true;
    snprintf(slot->why, sizeof(slot->why), "%s", what);
}

/* ---- life and death -------------------------------------------------------------------------- */

static void discard_jobs(struct slot *slot)
{
    for (size_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
        struct slot_worker *worker = &slot->workers[i];
        for (size_t j = 0; j < worker->running_count; j++) {
            replica_job_discard(worker->running[j]);
        }
        while (worker->first != NULL) {
            struct replica_job *job = worker->first;
            worker->first = job->next;
            replica_job_discard(job);
        }
        memset(worker, 0, sizeof(*worker));
    }
}

static void slot_unmake(struct slot *slot)
{
    const struct harness_machine *machine = &slot->harness->options.machine;
    replica_destroy(slot->replica);
    slot->replica = NULL;
    machine->close(machine->context, slot->number, &slot->machine);
    slot->epoch++;
    slot->poll_planned = false;
    slot->fatal = false;
}

static void slot_die(struct slot *slot, enum fake_crash how)
{
    fake_vfs_halt(slot->disk); /* what the dying process still does reaches nothing */
    discard_jobs(slot);
    slot_unmake(slot);
    fake_vfs_crash_as(slot->disk, how, &slot->harness->rng);
}

static int slot_create_replica(struct slot *slot)
{
    struct harness *harness = slot->harness;
    struct node_member members[HARNESS_SLOTS_MAX];
    for (uint32_t i = 0; i < harness->options.member_count; i++) {
        members[i] = (struct node_member){.id = i + 1, .address = harness->addresses[i]};
    }
    struct replica_options options = harness->options.replica;
    options.cluster_id = 0x5eed;
    options.group_id = 7;
    options.replica_id = slot->number + 1;
    options.dir = slot_dir;
    options.members = slot->waiting ? NULL : members;
    options.member_count = slot->waiting ? 0 : harness->options.member_count;
    options.seed = rng_next(&harness->rng);
    struct replica_env env = {
        .context = slot,
        .clock = &slot->clock,
        .vfs = fake_vfs_vfs(slot->disk),
        .send = env_send,
        .submit = env_submit,
        .fatal = env_fatal,
    };
    return replica_create(&options, &slot->checked, NULL, &env, &slot->replica, slot->why,
                          sizeof(slot->why));
}

static void print_trace(void *context, const char *line)
{
    const struct slot *slot = context;
    fprintf(stderr, "%10.3f ms slot=%u %s\n", (double)slot->harness->clock.now_ns / 1e6,
            slot->number, line);
}

int harness_start(struct harness *harness, uint32_t number)
{
    struct slot *slot = &harness->slots[number];
    const struct harness_machine *machine = &harness->options.machine;
    const struct vfs *vfs = fake_vfs_vfs(slot->disk);
    ASSERT(slot->replica == NULL);
    slot->why[0] = '\0';
    int error = vfs_make_dirs(vfs, slot_dir);
    if (error == ERR_OK) {
        error = machine->open(machine->context, number, vfs, slot_dir, &slot->machine);
    }
    if (error != ERR_OK) {
        snprintf(slot->why, sizeof(slot->why), "state machine: %s", err_text(error));
    } else {
        harness__watch(slot);
        error = slot_create_replica(slot);
        if (error != ERR_OK) {
            machine->close(machine->context, number, &slot->machine);
        }
    }
    if (error != ERR_OK) {
        slot->replica = NULL;
        if (fake_vfs_is_halted(slot->disk)) { /* a crash that was asked for during the start */
            fake_vfs_crash_as(slot->disk, FAKE_CRASH_ANY, &harness->rng);
        }
        return error;
    }
    if (getenv("HARNESS_TRACE") != NULL) {
        replica_set_trace(slot->replica, print_trace, slot);
    }
    harness->counters.starts++;
    uint64_t phase_ns = rng_below(&harness->rng, harness->options.tick_ns);
    sim_clock_add(&harness->clock, &(struct sim_event){.at_ns = harness->clock.now_ns + phase_ns,
                                                       .run = run_tick,
                                                       .context = slot,
                                                       .tag = slot->epoch});
    harness__plan_poll(slot);
    return ERR_OK;
}

void harness_start_all(struct harness *harness)
{
    for (uint32_t i = 0; i < harness->options.member_count; i++) {
        if (harness->slots[i].replica == NULL) {
            int error = harness_start(harness, i);
            if (error != ERR_OK) {
                fprintf(stderr, "slot %u does not start: %s: %s\n", i, err_text(error),
                        harness->slots[i].why);
            }
            ASSERT_CMP(error, ==, ERR_OK);
        }
    }
}

void harness_crash(struct harness *harness, uint32_t number, enum fake_crash how)
{
    struct slot *slot = &harness->slots[number];
    if (slot->replica != NULL) {
        slot_die(slot, how);
    }
}

static bool slot_is_idle(struct harness *harness, void *context)
{
    const struct slot *slot = context;
    (void)harness;
    return slot->replica == NULL || replica_is_idle(slot->replica);
}

void harness_stop(struct harness *harness, uint32_t number)
{
    struct slot *slot = &harness->slots[number];
    if (slot->replica == NULL) {
        return;
    }
    replica_stop(slot->replica);
    bool ended = harness_run_until(harness, slot_is_idle, slot, 10 * SIM_S);
    ASSERT(ended);
    if (slot->replica != NULL) {
        slot_unmake(slot);
        /* locks and handles of the process end */
        fake_vfs_crash_as(slot->disk, FAKE_CRASH_KEEP, &harness->rng);
    }
}

void harness_set_latency(struct harness *harness, uint32_t slot, enum replica_worker worker,
                         struct harness_latency latency)
{
    harness->slots[slot].latency[worker] = latency;
}

void harness_swap_disk(struct harness *harness, uint32_t number, struct fake_vfs *disk)
{
    struct slot *slot = &harness->slots[number];
    ASSERT(slot->replica == NULL);
    fake_vfs_destroy(slot->disk);
    slot->disk = disk;
}

void harness_wipe(struct harness *harness, uint32_t number)
{
    harness_swap_disk(harness, number, fake_vfs_create(rng_next(&harness->rng)));
}

struct harness *harness_create(const struct harness_options *options)
{
    ASSERT_CMP(options->slot_count, <=, HARNESS_SLOTS_MAX);
    ASSERT_CMP(options->member_count, <=, options->slot_count);
    struct harness *harness = mem_calloc(1, sizeof(*harness));
    harness->options = *options;
    harness->net = options->net;
    sim_clock_init(&harness->clock);
    harness->clock.now_ns = SIM_S; /* no real clock starts at 0 */
    rng_init(&harness->rng, options->seed);
    rng_init(&harness->net_rng, options->seed ^ 0x6e6574);
    for (uint32_t i = 0; i < options->slot_count; i++) {
        struct slot *slot = &harness->slots[i];
        slot->harness = harness;
        slot->number = i;
        slot->connected = true;
        memcpy(slot->latency, options->latency, sizeof(slot->latency));
        slot->disk = fake_vfs_create(rng_next(&harness->rng));
        slot->clock = (struct clock){slot_now_ns, slot_now_ns, slot};
        snprintf(harness->addresses[i], sizeof(harness->addresses[i]), "slot-%u:1", i);
    }
    return harness;
}

void harness_destroy(struct harness *harness)
{
    for (uint32_t i = 0; i < harness->options.slot_count; i++) {
        harness_crash(harness, i, FAKE_CRASH_KEEP);
    }
    sim_clock_deinit(&harness->clock);
    for (uint32_t i = 0; i < harness->options.slot_count; i++) {
        fake_vfs_destroy(harness->slots[i].disk);
    }
    harness__check_deinit(harness);
    free(harness);
}

/* ---- looking --------------------------------------------------------------------------------- */

uint64_t harness_now_ns(const struct harness *harness)
{
    return harness->clock.now_ns;
}

struct rng *harness_rng(struct harness *harness)
{
    return &harness->rng;
}

const struct harness_counters *harness_counters(const struct harness *harness)
{
    return &harness->counters;
}

const char *harness_why(const struct harness *harness, uint32_t slot)
{
    return harness->slots[slot].why;
}

bool harness_is_up(const struct harness *harness, uint32_t slot)
{
    return harness->slots[slot].replica != NULL;
}

struct replica *harness_replica(struct harness *harness, uint32_t slot)
{
    return harness->slots[slot].replica;
}

struct state_machine *harness_machine_of(struct harness *harness, uint32_t slot)
{
    return &harness->slots[slot].machine;
}

struct fake_vfs *harness_disk(struct harness *harness, uint32_t slot)
{
    return harness->slots[slot].disk;
}

void harness_set_waiting(struct harness *harness, uint32_t slot, bool waiting)
{
    harness->slots[slot].waiting = waiting;
}

/* ---- time ------------------------------------------------------------------------------------ */

void harness_run_for(struct harness *harness, uint64_t duration_ns)
{
    uint64_t limit_ns = harness->clock.now_ns + duration_ns;
    while (sim_clock_step(&harness->clock, limit_ns)) {
    }
}

bool harness_run_until(struct harness *harness, harness_condition_fn condition, void *context,
                       uint64_t limit_ns)
{
    uint64_t end_ns = harness->clock.now_ns + limit_ns;
    while (!condition(harness, context)) {
        if (!sim_clock_step(&harness->clock, end_ns)) {
            return condition(harness, context);
        }
    }
    return true;
}

struct appointment {
    void (*run)(void *context);
    void *context;
};

static void appointment_run(void *context, void *payload, uint64_t tag)
{
    struct appointment appointment = *(struct appointment *)payload;
    (void)context;
    (void)tag;
    free(payload);
    appointment.run(appointment.context);
}

static void payload_free(void *context, void *payload, uint64_t tag)
{
    (void)context;
    (void)tag;
    free(payload);
}

void harness_at(struct harness *harness, uint64_t at_ns, void (*run)(void *context), void *context)
{
    struct appointment appointment = {run, context};
    sim_clock_add(&harness->clock,
                  &(struct sim_event){.at_ns = at_ns,
                                      .run = appointment_run,
                                      .drop = payload_free,
                                      .payload = mem_dup(&appointment, sizeof(appointment))});
}
