/* A simulated cluster: controllers, groups of shard servers and clients, and the vocabulary of the
 * course's tests. The servers are put together as shardctrler/main.c and shardkv/main.c do. */
#ifndef TESTS_SIM_CLUSTER_H
#define TESTS_SIM_CLUSTER_H

#include "client/shardkv.h"
#include "proto/config.h"
#include "shardkv/kv_table.h"
#include "sim/sim.h"

enum {
    CLUSTER_GROUPS_MAX = 8,
    CLUSTER_REPLICAS_MAX = 7, /* a group begins with */
    CLUSTER_SERVERS_MAX = 15, /* of one group, in its whole life: ids are never used again */
    CLUSTER_CLIENTS_MAX = 24,
};

/* One server: a host, and what runs on it. */
struct server {
    struct sim_host *host;
    struct cluster *cluster;
    uint64_t group_id; /* CONTROLLER_GROUP: a controller */
    uint64_t replica_id;
    struct fake_store *store; /* survives crashes, as far as it was flushed; NULL: a controller */
    struct controller_process *controller; /* NULL: not running */
    struct kv_process *kv;
    bool retired; /* gone for good: never started again, and no oracle waits for it */
};

struct group {
    uint64_t id;
    struct server servers[CLUSTER_SERVERS_MAX]; /* by replica id, from 1 */
    uint32_t server_count;
    uint32_t founder_count; /* the first; the others were added empty */
};

struct cluster_options {
    uint32_t controllers; /* replicas */
    uint32_t groups;
    uint32_t replicas; /* of a group */
    uint32_t shards;
    bool unreliable;
    uint64_t flush_log_bytes; /* 0: no snapshots */
    bool lease_reads;
    bool joined; /* the first group is joined before the test begins */
};

struct cluster {
    struct cluster_options options;
    struct group controllers;
    struct group groups[CLUSTER_GROUPS_MAX];
    uint32_t group_count;
    char controller_addresses[CLUSTER_SERVERS_MAX * SIM_NAME_BYTES_MAX]; /* those not retired */
    struct admin *admin;
    struct sim_host *client_hosts[CLUSTER_CLIENTS_MAX];
    uint32_t client_host_count;
    struct oracle *oracle;
};

#define CLUSTER_NAME     "course"
#define CONTROLLER_GROUP 0u /* as shardctrler/main.c */

/* Every server is started and, on return, every group has a leader. gives */
struct cluster *cluster_create(const struct cluster_options *options);
/* Heals, waits until all is quiet, lets the oracle compare the replicas, ends everything. takes */
void cluster_destroy(struct cluster *cluster);

/* ---- servers ---- */

bool server_is_up(const struct server *server);
void server_start(struct server *server);
/* As the course's Kill or ShutdownServer: the process is gone without a word, and the machine loses
 * what the disk may lose. */
void server_crash(struct server *server);
/* As SIGKILL: the process is gone, the machine and all that was written stay. */
void server_kill(struct server *server);
/* Ends what has ended itself (sim_host_doom); nothing otherwise. */
void server_reap(struct server *server);
void cluster_reap(struct cluster *cluster);
/* In order, as after SIGTERM. */
void server_stop(struct server *server);
void group_crash(struct group *group);
void group_start(struct group *group); /* those that are down */
/* Another server of the group, empty and not running; nobody has made it a member yet. */
struct server *group_add_server(struct group *group);
/* The same on the machine of a retired one, with a new disk: another id at the same address. */
struct server *group_add_server_at(struct group *group, const struct server *retired);
/* The machine is taken away, with its disk. */
void server_retire(struct server *server);
/* The machine gets a new disk. It is down, before and after. */
void server_wipe(struct server *server);
/* Every machine of the group gets a new disk. They are down, before and after. */
void group_wipe(struct group *group);
/* Every machine stands still for so long, as when their host is suspended; then all go on. */
void cluster_suspend(struct cluster *cluster, uint64_t duration_ns);
/* NULL: nobody leads. */
struct server *group_leader(const struct group *group);
struct server *group_wait_leader(struct group *group);
struct kv_machine *server_machine(const struct server *server); /* NULL: down, or a controller */
struct node *server_node(const struct server *server);          /* NULL: down */
struct state_machine server_state(const struct server *server);
uint32_t group_server_count(const struct group *group); /* without those retired */
uint32_t group_up_count(const struct group *group);
/* Bytes of the log's files; and of the store's rows. */
uint64_t server_log_bytes(const struct server *server);
uint64_t server_store_bytes(const struct server *server);
struct group *cluster_group(struct cluster *cluster, uint64_t id);

/* ---- partitions, among the servers of one group ---- */

/* Servers whose bit is set see each other only, and so do the others. */
void group_partition(struct group *group, uint32_t mask);
void group_heal(struct group *group);
/* Off the whole network, or back. */
void server_isolate(struct cluster *cluster, struct server *server, bool isolated);

/* ---- administration: the real controller client, on hosts of its own (cluster_admin.c) ---- */

struct admin;
struct admin *admin_create(struct cluster *cluster, const char *name); /* gives */
void admin_destroy(struct admin *admin);
struct sim_host *admin_host(struct admin *admin);

/* A change under way; `error` and `number` once it has ended. */
struct admin_change {
    bool ended;
    int error; /* as controller_client.h says */
    uint64_t number;
    char text[256];
};
void admin_begin_join(struct admin *admin, const uint64_t *ids, size_t count,
                      struct admin_change *change);
void admin_begin_leave(struct admin *admin, const uint64_t *ids, size_t count,
                       struct admin_change *change);
void admin_begin_move(struct admin *admin, uint32_t shard, uint64_t id,
                      struct admin_change *change);
bool admin_wait(struct admin_change *change, uint64_t timeout_ns) MUST_USE;

/* Blocking, by the cluster's own administrator: the number of the config that was made. Any error
 * fails the test. */
uint64_t cluster_join(struct cluster *cluster, const uint64_t *ids, size_t count);
uint64_t cluster_leave(struct cluster *cluster, const uint64_t *ids, size_t count);
uint64_t cluster_move(struct cluster *cluster, uint32_t shard, uint64_t id);
uint64_t cluster_join_one(struct cluster *cluster, uint64_t id);
uint64_t cluster_leave_one(struct cluster *cluster, uint64_t id);
struct config *cluster_query(struct cluster *cluster); /* gives: config_free */
/* Every group has taken the newest config and settled all its shards. Fails the test after
 * `timeout_ns`. */
void cluster_wait_settled(struct cluster *cluster, uint64_t timeout_ns);

/* ---- clients ---- */

/* A host for a client; and libshardkv opened on it. */
struct sim_host *cluster_client_host(struct cluster *cluster);
struct skv_client *cluster_client_open(struct cluster *cluster, struct sim_host *host);
void cluster_client_close(struct sim_host *host, struct skv_client *client);

#endif
