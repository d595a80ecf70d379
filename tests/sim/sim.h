/* The deterministic whole-cluster simulator: every server and client of a cluster in one process,
 * on one thread, from one seed, in virtual time. The product's code runs as it is; only what lies
 * below it is replaced, at link time (tests/sim.cmake):
 *
 *     runs unchanged       client/, shardctrler/, shardkv/, raft/core, raft/wal, replica
 *     rpc/rpc.h            sim_rpc*.c over sim_net.c: connections that delay, stall and break
 *     raft/node/node.h     sim_node.c: the same replica.h, driven in virtual time, without threads
 *     vfs, store           tests/lib/fake_vfs, fake_store
 *     clock, system rng    sim_world.c
 *     threads, waiting     sim_threads.c: threads of the product are coroutines; while the test
 *                          itself waits, the world goes on
 *
 * A host is one machine: a disk, a store, at most one process. A crash is: from now on nothing
 * leaves the host and its disk takes nothing (`dying`); then the product's own destructors run,
 * only to give memory back; then the disk loses what it may lose. Events of a process carry its
 * incarnation and die with it.
 *
 * There is one world at a time: what is replaced at link time has no place for a context. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "base/clock.h"
#include "base/rng.h"
#include "lib/fake_vfs.h"
#include "raft/sim_clock.h" /* SIM_S */
#include "sim/sim_events.h"

enum {
    SIM_HOSTS_MAX = 128,
    SIM_NAME_BYTES_MAX = 64,
};

#define SIM_ASLEEP_NS     (100 * SIM_MS)
#define SIM_TEST_LIMIT_NS (120 * SIM_S) /* the course's limit for a single test */

struct rpc_server;
struct node;
struct conn;

struct sim_host {
    uint32_t index;
    char address[SIM_NAME_BYTES_MAX]; /* "g100-1:7000" */
    uint32_t incarnation;             /* grows when a process ends */
    bool up;
    bool dying;
    uint64_t paused_until_ns;       /* as SIGSTOP: nothing of it happens before */
    uint64_t disk_stalled_until_ns; /* a write that begins before ends after */
    uint64_t apply_delay_ns;        /* its store takes so much longer for a batch */
    uint32_t tick_percent;   /* how long its replica's ticks are: 100 is right. Drawn anew at every
                              * start when the world's clocks drift */
    uint64_t wall_offset_ns; /* its wall clock was set: added, modulo 2^64 */
    bool disk_fails;         /* a process that ends itself now has reason to */
    bool damaged;            /* a start found its files not to be what was written */
    struct fake_vfs *disk;   /* NULL for clients */
    struct rpc_server *listener; /* NULL: nothing listens */
    struct node *node;           /* NULL: no replica runs */
};

/* The course's networks. Losses are of requests and of replies; a stream that loses a message
 * breaks or falls silent. */
struct sim_net {
    uint64_t delay_min_ns;
    uint64_t delay_max_ns;
    uint32_t loss_permille;
    uint32_t duplicate_permille; /* of frames between replicas */
    bool long_reordering;        /* two answers in three are held back 200 .. 2200 ms */
};
struct sim_net sim_net_reliable(void);
struct sim_net sim_net_unreliable(void);

struct sim_counters {
    uint64_t rpcs; /* requests sent: frames, unary calls, messages of clients' streams */
    uint64_t bytes;
    uint64_t frames_lost;
    uint64_t frames_duplicated;
    uint64_t conns_broken;
    uint64_t conns_stalled;
    uint64_t crashes;
    uint64_t restarts;
    uint64_t leaders;
    uint64_t snapshots_restored;
    uint64_t shards_installed;
    uint64_t chunks_resumed; /* chunks of a move after its first */
    uint64_t operations;     /* of clients, ended */
    uint64_t cas_refused;    /* compare-and-sets that met another version */
};

struct sim_world {
    struct sim_events clock;
    uint64_t seed;
    struct rng rng;   /* of network, latencies and crashes */
    struct rng seeds; /* what rng_seed_from_system gives */
    struct sim_net net;
    uint32_t drift_percent; /* of replicas' clocks, both ways */
    struct sim_host *hosts[SIM_HOSTS_MAX];
    uint32_t host_count;
    bool cut[SIM_HOSTS_MAX][SIM_HOSTS_MAX]; /* [from][to] */
    /* What is sent before then arrives after it. */
    uint64_t clogged_until_ns[SIM_HOSTS_MAX][SIM_HOSTS_MAX];
    struct sim_host *current; /* whose code runs */
    uint32_t callback_depth;  /* product callbacks on the stack: they must not wait */
    uint64_t limit_ns;
    uint64_t asleep_ns; /* times longer than SIM_ASLEEP_NS in which nothing at all happened, as when
                         * every host stands still for an hour: not counted as simulated */
    struct sim_host *damage_frame_to; /* a bit of the next frame to it that is so large is turned
                                       * over; NULL: none */
    uint64_t damage_frame_bytes_min;
    struct conn *conns; /* all of them */
    struct sim_counters counters;
    uint64_t trace_hash; /* of every event's time and host, and of all that was traced or logged:
                          * equal for two runs of a seed */
};

/* Makes the one world. */
void sim_world_init(uint64_t seed);
/* Every process must have ended. */
void sim_world_deinit(void);
struct sim_world *sim_world(void);

/* Into the world's trace_hash. */
void sim_hash_bytes(const void *data, size_t size);
void sim_hash_number(uint64_t number);

/* Ends the process, saying where and how to replay it. */
_Noreturn void sim_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Names the run for sim_fail and for aborts inside the product. */
void sim_report_begin(const char *test, uint64_t seed);
/* Runs when sim_fail does, before the process ends. */
void sim_report_on_failure(void (*run)(void));
void sim_trace_on(void);
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define SIM_FAIL(...) sim_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SIM_CHECK(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            SIM_FAIL("%s does not hold", #condition);                                              \
        }                                                                                          \
    } while (0)
/* Integers of any width, as signed. */
#define SIM_CHECK_CMP(a, operator, b)                                                              \
    do {                                                                                           \
        long long check_a_ = (long long)(a);                                                       \
        long long check_b_ = (long long)(b);                                                       \
        if (!(check_a_ operator check_b_)) {                                                       \
            SIM_FAIL("%s %s %s does not hold: %lld and %lld", #a, #operator, #b, check_a_,         \
                     check_b_);                                                                    \
        }                                                                                          \
    } while (0)
#define SIM_CHECK_EQ(a, b) SIM_CHECK_CMP(a, ==, b)

/* ---- time ---- */

uint64_t sim_now_ns(void);
uint64_t sim_between(uint64_t low, uint64_t high); /* drawn from the world's rng, both included */

/* Runs `run(context, payload)` on `host` (NULL: on none) after `delay_ns`, unless its process ends
 * before; then, and at the end of the world, `drop` instead (NULL: nothing to give back). */
void sim_after(struct sim_host *host, uint64_t delay_ns, sim_event_run_fn run,
               sim_event_run_fn drop, void *context, void *payload);

/* The test's own time. Never from an event. */
void sim_run(uint64_t duration_ns);
/* Until the condition holds; false when `timeout_ns` passed first. */
typedef bool (*sim_condition_fn)(void *context);
bool sim_run_until(uint64_t timeout_ns, sim_condition_fn condition, void *context) MUST_USE;
/* One event, whenever it is: for whoever waits. */
void sim_step(void);

/* ---- hosts ---- */

struct sim_host *sim_host_create(const char *address, bool with_disk); /* the world's */
struct sim_host *sim_host_find(const char *address);                   /* NULL: none */
bool sim_host_is(const struct sim_host *host,
                 uint32_t incarnation); /* the same process still runs */

/* Whose code runs from here on; gives the former one. */
struct sim_host *sim_enter(struct sim_host *host);
void sim_leave(struct sim_host *former);
/* The same around a callback into the product, which must not wait. */
struct sim_host *sim_callback_enter(struct sim_host *host);
void sim_callback_leave(struct sim_host *former);

/* From now on nothing leaves the host and nothing reaches it. What the product's destructors do
 * then is only memory. */
void sim_host_die(struct sim_host *host);
/* After them: events and connections of the process are gone, its disk loses what `lose` allows. */
void sim_host_dead(struct sim_host *host, enum fake_crash lose);
void sim_host_boot(struct sim_host *host);

/* The process ends itself, from inside the product: nothing leaves it and nothing reaches it any
 * more, and it is to be ended (server_reap) when the product is not on the stack. Fails the run
 * unless its disk was made to fail. */
void sim_host_doom(struct sim_host *host, const char *what);

/* Nothing of the host's happens for so long; what comes for it waits. */
void sim_host_pause(struct sim_host *host, uint64_t duration_ns);
bool sim_host_is_paused(const struct sim_host *host);

/* ---- partitions ---- */

void sim_cut(const struct sim_host *from, const struct sim_host *to, bool cut); /* one way */
void sim_cut_both(const struct sim_host *a, const struct sim_host *b, bool cut);
bool sim_is_cut(const struct sim_host *from, const struct sim_host *to);
/* One way: what is sent in the next `duration_ns` arrives only afterwards, all of it. */
void sim_clog(const struct sim_host *from, const struct sim_host *to, uint64_t duration_ns);
void sim_heal(void);

#endif
