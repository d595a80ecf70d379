/* Virtual time, hosts and partitions; and the process-wide functions that the product reaches
 * without a context: the clock and the system's randomness. Waiting is sim_threads.c's. */
#include "sim/sim.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/codec.h"
#include "sim/sim_net.h"
#include "sim/sometimes.h"
#include "sim/sim_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The one place with process-wide state: see sim.h. */
static struct sim_world *the_world;

struct sim_world *sim_world(void)
{
    return the_world;
}

struct sim_net sim_net_reliable(void)
{
    return (struct sim_net){.delay_min_ns = 50 * SIM_US, .delay_max_ns = 500 * SIM_US};
}

/* Delays up to 26 ms and a tenth of requests and of replies lost, as the course's unreliable
 * network. */
struct sim_net sim_net_unreliable(void)
{
    return (struct sim_net){.delay_min_ns = 50 * SIM_US,
                            .delay_max_ns = 26 * SIM_MS,
                            .loss_permille = 100,
                            .duplicate_permille = 20};
}

void sim_world_init(uint64_t seed)
{
    ASSERT(the_world == NULL);
    the_world = mem_calloc(1, sizeof *the_world);
    sim_events_init(&the_world->clock, 1000 * SIM_S); /* no deadline is ever near zero */
    the_world->seed = seed;
    rng_init(&the_world->rng, seed);
    rng_init(&the_world->seeds, seed ^ 0x5eed5eed5eed5eedull);
    the_world->net = sim_net_reliable();
    the_world->limit_ns = the_world->clock.now_ns + SIM_TEST_LIMIT_NS;
}

void sim_world_deinit(void)
{
    sim_events_deinit(&the_world->clock);
    ASSERT(the_world->conns == NULL);
    for (uint32_t i = 0; i < the_world->host_count; i++) {
        struct sim_host *host = the_world->hosts[i];
        ASSERT(!host->up);
        if (host->disk != NULL) {
            fake_vfs_destroy(host->disk);
        }
        free(host);
    }
    free(the_world);
    the_world = NULL;
}

/* ---- what makes two runs the same ---- */

void sim_hash_number(uint64_t number)
{
    uint64_t mixed = (the_world->trace_hash ^ number) * UINT64_C(0x9e3779b97f4a7c15);
    the_world->trace_hash = mixed ^ (mixed >> 29);
}

void sim_hash_bytes(const void *data, size_t size)
{
    const uint8_t *at = data;
    for (; size >= sizeof(uint64_t); at += sizeof(uint64_t), size -= sizeof(uint64_t)) {
        sim_hash_number(load_u64(at));
    }
    uint64_t rest = size;
    for (size_t i = 0; i < size; i++) {
        rest = rest << 8 | at[i];
    }
    sim_hash_number(rest);
}

/* ---- events ---- */

/* One event, if it is due by `limit_ns`. */
static bool step(uint64_t limit_ns)
{
    struct sim_scheduled event;
    uint64_t before_ns = the_world->clock.now_ns;
    if (!sim_events_take(&the_world->clock, limit_ns, &event)) {
        return false;
    }
    if (the_world->clock.now_ns - before_ns > SIM_ASLEEP_NS) {
        the_world->asleep_ns += the_world->clock.now_ns - before_ns;
    }
    if (event.host != NULL && !sim_host_is(event.host, event.incarnation)) {
        if (event.drop != NULL) {
            event.drop(event.context, event.payload);
        }
        return true;
    }
    if (event.host != NULL && sim_host_is_paused(event.host)) { /* in the same order, afterwards */
        sim_events_add(&the_world->clock, event.host->paused_until_ns, &event);
        return true;
    }
    sim_hash_number(the_world->clock.now_ns);
    sim_hash_number(event.host == NULL ? SIM_HOSTS_MAX : event.host->index);
    struct sim_host *former = sim_enter(event.host);
    event.run(event.context, event.payload);
    sim_leave(former);
    return true;
}

void sim_after(struct sim_host *host, uint64_t delay_ns, sim_event_run_fn run,
               sim_event_run_fn drop, void *context, void *payload)
{
    struct sim_scheduled event = {.host = host,
                                  .incarnation = host == NULL ? 0 : host->incarnation,
                                  .run = run,
                                  .drop = drop,
                                  .context = context,
                                  .payload = payload};
    uint64_t now_ns = the_world->clock.now_ns;
    sim_events_add(&the_world->clock,
                   delay_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + delay_ns, &event);
}

uint64_t sim_now_ns(void)
{
    return the_world->clock.now_ns;
}

uint64_t sim_between(uint64_t low, uint64_t high)
{
    return rng_between(&the_world->rng, low, high);
}

static void check_limit(void)
{
    if (the_world->clock.now_ns > the_world->limit_ns) {
        SIM_FAIL("the test has not ended within %.0f s of virtual time",
                 (double)SIM_TEST_LIMIT_NS / 1e9);
    }
}

void sim_run(uint64_t duration_ns)
{
    uint64_t until_ns = the_world->clock.now_ns + duration_ns;
    while (step(until_ns)) {
    }
    check_limit();
}

bool sim_run_until(uint64_t timeout_ns, sim_condition_fn condition, void *context)
{
    uint64_t until_ns = the_world->clock.now_ns + timeout_ns;
    bool more = true;
    while (!condition(context)) {
        if (!more) {
            return false;
        }
        more = step(until_ns);
        check_limit();
    }
    return true;
}

void sim_step(void)
{
    if (the_world->callback_depth > 0) {
        SIM_FAIL("something waits inside a callback of the product");
    }
    if (!step(UINT64_MAX - 1)) {
        SIM_FAIL("something waits for what never comes");
    }
    check_limit();
}

/* ---- hosts ---- */

struct sim_host *sim_host_create(const char *address, bool with_disk)
{
    ASSERT_CMP(the_world->host_count, <, SIM_HOSTS_MAX);
    ASSERT(sim_host_find(address) == NULL);
    struct sim_host *host = mem_calloc(1, sizeof *host);
    host->index = the_world->host_count;
    (void)snprintf(host->address, sizeof host->address, "%s", address);
    if (with_disk) {
        host->disk = fake_vfs_create(rng_next(&the_world->rng));
    }
    the_world->hosts[the_world->host_count++] = host;
    return host;
}

struct sim_host *sim_host_find(const char *address)
{
    for (uint32_t i = 0; i < the_world->host_count; i++) {
        if (strcmp(the_world->hosts[i]->address, address) == 0) {
            return the_world->hosts[i];
        }
    }
    return NULL;
}

bool sim_host_is(const struct sim_host *host, uint32_t incarnation)
{
    return host->up && host->incarnation == incarnation;
}

struct sim_host *sim_enter(struct sim_host *host)
{
    struct sim_host *former = the_world->current;
    the_world->current = host;
    return former;
}

void sim_leave(struct sim_host *former)
{
    the_world->current = former;
}

struct sim_host *sim_callback_enter(struct sim_host *host)
{
    the_world->callback_depth++;
    return sim_enter(host);
}

void sim_callback_leave(struct sim_host *former)
{
    ASSERT_CMP(the_world->callback_depth, >, 0);
    the_world->callback_depth--;
    sim_leave(former);
}

void sim_host_boot(struct sim_host *host)
{
    ASSERT(!host->up);
    host->up = true;
    host->dying = false;
    host->paused_until_ns = 0;
    host->tick_percent =
        (uint32_t)sim_between(100 - the_world->drift_percent, 100 + the_world->drift_percent);
}

void sim_host_pause(struct sim_host *host, uint64_t duration_ns)
{
    host->paused_until_ns = the_world->clock.now_ns + duration_ns;
}

bool sim_host_is_paused(const struct sim_host *host)
{
    return host->paused_until_ns > the_world->clock.now_ns;
}

void sim_host_die(struct sim_host *host)
{
    ASSERT(host->up);
    host->dying = true;
    host->paused_until_ns = 0; /* its destructors must run */
    conns_abandon(host);
    if (host->node != NULL) {
        sim_node_kill(host->node);
    }
    if (host->disk != NULL) {
        fake_vfs_halt(host->disk);
    }
}

void sim_host_doom(struct sim_host *host, const char *what)
{
    if (host->dying) {
        return;
    }
    if (!host->disk_fails) {
        SIM_FAIL("%s ended itself: %s", host->address, what);
    }
    sim_trace("%s ends itself: %s", host->address, what);
    if (!host->damaged) {
        bool store = strstr(what, "state machine") != NULL || strstr(what, "applying") != NULL;
        sim_sometimes(strstr(what, "no space") != NULL ? S_STOPPED_DISK_FULL
                      : store                          ? S_STOPPED_STORE_FAILED
                                                       : S_STOPPED_SYNC_FAILED);
    }
    host->dying = true;
    fake_vfs_halt(host->disk);
}

void sim_host_dead(struct sim_host *host, enum fake_crash lose)
{
    ASSERT(host->dying);
    ASSERT(host->listener == NULL);
    ASSERT(host->node == NULL);
    conns_abandon(host);
    host->up = false;
    host->dying = false;
    host->incarnation++;
    if (host->disk != NULL) {
        fake_vfs_crash_as(host->disk, lose, &the_world->rng);
    }
}

/* ---- partitions ---- */

void sim_cut(const struct sim_host *from, const struct sim_host *to, bool cut)
{
    the_world->cut[from->index][to->index] = cut;
}

void sim_cut_both(const struct sim_host *a, const struct sim_host *b, bool cut)
{
    sim_cut(a, b, cut);
    sim_cut(b, a, cut);
}

bool sim_is_cut(const struct sim_host *from, const struct sim_host *to)
{
    return the_world->cut[from->index][to->index];
}

void sim_clog(const struct sim_host *from, const struct sim_host *to, uint64_t duration_ns)
{
    the_world->clogged_until_ns[from->index][to->index] = the_world->clock.now_ns + duration_ns;
}

void sim_heal(void)
{
    memset(the_world->cut, 0, sizeof the_world->cut);
    memset(the_world->clogged_until_ns, 0, sizeof the_world->clogged_until_ns);
}

/* ---- what is replaced at link time (-Wl,--wrap) ---- */

static uint64_t virtual_monotonic_ns(void *context)
{
    (void)context;
    return the_world->clock.now_ns;
}

static uint64_t virtual_wall_ns(void *context)
{
    (void)context;
    if (the_world == NULL) {
        return 0;
    }
    uint64_t offset_ns = the_world->current == NULL ? 0 : the_world->current->wall_offset_ns;
    return 1700000000 * SIM_S + the_world->clock.now_ns + offset_ns;
}

const struct clock *__wrap_clock_system(void);
const struct clock *__wrap_clock_system(void)
{
    static const struct clock clock = {virtual_monotonic_ns, virtual_wall_ns, NULL};
    return &clock;
}

uint64_t __wrap_rng_seed_from_system(void);
uint64_t __wrap_rng_seed_from_system(void)
{
    return rng_next(&the_world->seeds);
}
