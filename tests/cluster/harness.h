/* Real processes for tests: starts controllers and groups on loopback in a directory of its own,
 * kills and restarts them by pid, and speaks to them through shardctl and libshardkv. One thread,
 * unless a function says otherwise.
 *
 * The programs come from $SHARDKV_BIN_DIR (set by ctest to the release build). */
#ifndef TESTS_CLUSTER_HARNESS_H
#define TESTS_CLUSTER_HARNESS_H

#include "base/bytes.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    CLUSTER_PROCESSES_MAX = 64,
    CLUSTER_REPLICAS = 3,
    PROCESS_ARGUMENTS_MAX = 8,
    PROCESS_ENVIRONMENT_MAX = 8,
    PROCESS_ADDRESS_BYTES = 32,
};

struct process {
    uint64_t group; /* 0: a controller */
    uint32_t id;    /* replica id, from 1 */
    uint16_t port;  /* it listens on */
    uint16_t front; /* the one others are told; the same without a proxy */
    uint32_t node;  /* in the test's own network (harness_net.h); 0: loopback */
    bool later;     /* came to a running group: waits to be added */
    pid_t pid;      /* 0: not running */
    uint32_t starts;
    int status; /* as waitpid gave it, of the newest run that ended */
    /* For the next start; NULL ends them. Borrowed: they must stay. */
    const char *arguments[PROCESS_ARGUMENTS_MAX + 1];     /* "--flag", "value", ... */
    const char *environment[PROCESS_ENVIRONMENT_MAX + 1]; /* "NAME=value", added to ours */
    const char *data_root; /* where its data directory is made; NULL: cluster->dir */
};

struct rpc;
struct net;

/* How processes reach each other. Zeroed: on loopback. */
struct cluster_network {
    bool own; /* a namespace for each process, see harness_net.h */
    /* On loopback: the port that others are told instead of `port` of a new process, given by a
     * proxy that sends it there; NULL: none. */
    uint16_t (*front)(void *context, uint16_t port);
    void *context;
};

struct cluster {
    struct cluster_network network;
    struct net *net; /* NULL: on loopback */
    char dir[256];   /* removed by cluster_destroy when the test passed */
    char name[64];
    char bin_dir[1024];
    char controllers[256]; /* "HOST:PORT,HOST:PORT,..." */
    uint32_t shard_count;
    struct process processes[CLUSTER_PROCESSES_MAX];
    uint32_t process_count;
    bool keep;
    struct rpc *rpc; /* for asking the processes their status */
};

/* Picks ports and starts CLUSTER_REPLICAS controllers. Fails the program with a message on any
 * trouble. */
void cluster_create(struct cluster *cluster, const char *name, uint32_t shard_count);
/* The same without starting them: cluster_start_group(cluster, 0) does. */
void cluster_prepare(struct cluster *cluster, const char *name, uint32_t shard_count);
void cluster_prepare_with(struct cluster *cluster, const char *name, uint32_t shard_count,
                          const struct cluster_network *network);
/* Kills what runs and removes the directory (kept, and named, when cluster->keep). */
void cluster_destroy(struct cluster *cluster);

/* Starts a group's replicas; it owns nothing until it is joined. */
void cluster_start_group(struct cluster *cluster, uint64_t group);
/* "GID=addr,addr,addr" as shardctl join takes it. */
void cluster_group_spec(const struct cluster *cluster, uint64_t group, char *out, size_t size);

void process_start(struct cluster *cluster, struct process *process);
/* Adds the group's processes without starting them: what is set on them holds from the first start
 * on. cluster_start_group starts them. */
void cluster_add_group(struct cluster *cluster, uint64_t group);
void cluster_add_group_of(struct cluster *cluster, uint64_t group, uint32_t replicas);
/* Kills `process`; another replica takes its address and place in the table, with an id and a disk
 * of its own. It starts and waits to be added (shardctl member add). */
void cluster_replace(struct cluster *cluster, struct process *process, uint32_t id);
/* Another replica of a running group, with an id, a disk and an address of its own. It starts and
 * waits to be added. Until the next one. */
struct process *cluster_add_replica(struct cluster *cluster, uint64_t group, uint32_t id);
/* "HOST:PORT" as others are told, and the one it listens on. */
void process_address(const struct process *process, char out[PROCESS_ADDRESS_BYTES]);
void process_own_address(const struct process *process, char out[PROCESS_ADDRESS_BYTES]);
/* <data_root>/g<group>-<id>; its log is cluster->dir/g<group>-<id>.log. */
void process_data_dir(const struct cluster *cluster, const struct process *process, char *out,
                      size_t size);
void process_signal(struct process *process, int signal); /* STOP, CONT */
void process_kill(struct process *process); /* SIGKILL and reaped; nothing when not running */
/* SIGTERM; true when it ended with status 0 within `seconds`. */
bool process_stop(struct process *process, double seconds);
/* False when it ended by itself (reaps it). */
bool process_is_running(struct process *process);
struct process *cluster_find(struct cluster *cluster, uint64_t group, uint32_t id);

/* Runs shardctl with --controllers, --cluster and these arguments (NULL ends them). Standard output
 * is appended to `out` (may be NULL); returns the exit code, -1 when it had to be killed after
 * `seconds`. Any thread. */
int cluster_ctl(const struct cluster *cluster, double seconds, struct buf *out, ...)
    __attribute__((sentinel));
/* The same with --json, parsed; NULL when it failed. gives. */
json_t *cluster_ctl_json(const struct cluster *cluster, double seconds, int *exit_code, ...)
    __attribute__((sentinel));

/* The leader's process, waiting up to `seconds`; NULL if there is none. group 0: the controllers.
 */
struct process *cluster_leader(struct cluster *cluster, uint64_t group, double seconds);
/* Waits until every group of the newest config has reached it and no shard is moving. */
bool cluster_wait_settled(struct cluster *cluster, double seconds);

struct msg_status_response;
/* What the process says of itself, within a second. Into a zeroed *out; deinit it on true. */
bool process_status(struct cluster *cluster, const struct process *process, bool with_hash,
                    struct msg_status_response *out);
/* One unary call to this process, past proxies and routing. takes `request`'s memory on OK.
 * 0 or an enum err. */
int process_call(struct cluster *cluster, const struct process *process, const char *method,
                 struct buf *request, double seconds, struct buf *reply);

/* Runs a program with its standard output appended to `out` (NULL: let through to ours). Its exit
 * code; -1 when it ended otherwise or had to be killed after `seconds`. Any thread. */
int program_run(char *const argv[], double seconds, struct buf *out);

/* Waits until all running replicas of the group have applied the same and their states' checksums
 * are equal. */
bool cluster_wait_equal(struct cluster *cluster, uint64_t group, double seconds);

double now_seconds(void); /* monotonic */
/* Runs `condition(context)` until it is true or `seconds` passed; sleeps 20 ms between. */
bool wait_until(bool (*condition)(void *context), void *context, double seconds);
/* Resident bytes and CPU seconds used so far of a running process. */
bool process_usage(const struct process *process, uint64_t *resident_bytes, double *cpu_seconds);

#endif
