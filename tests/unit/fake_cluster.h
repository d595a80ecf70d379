/* Controllers and one shard group inside the test's process, over the real rpc room: each server
 * listens on a port of its own and answers by its mode. State (config, rows, sessions) is shared by
 * all of them, as if replicated.
 *
 * Threads: handlers run on the servers' rpc thread; the test changes modes through the functions
 * below, under one mutex. */
#ifndef TESTS_FAKE_CLUSTER_H
#define TESTS_FAKE_CLUSTER_H

#include "base/clock.h"
#include "proto/command.h"
#include "proto/messages.h"
#include "rpc/rpc.h"
#include <pthread.h>

enum { FAKE_SERVERS_MAX = 4, FAKE_ROWS_MAX = 4096, FAKE_STREAMS_MAX = 32, FAKE_SHARDS = 16 };

enum fake_mode {
    FAKE_LEADER,
    FAKE_FOLLOWER, /* NOT_LEADER, with the hint if one is set */
    FAKE_SILENT,   /* takes requests and never answers */
    FAKE_REFUSING, /* answers with `error` */
};

struct fake_row {
    struct buf key, value;
    uint64_t version;
};

struct fake_server {
    struct fake_cluster *cluster;
    struct rpc_server *server; /* NULL: down */
    char address[ADDRESS_BYTES_MAX];
    enum fake_mode mode;
    char hint[ADDRESS_BYTES_MAX];
    int error;
    uint32_t refuse_count; /* so many times NOT_LEADER before it leads */
    uint32_t calls;        /* unary ones */
    uint32_t batches;
    bool watch_is_stuck;       /* takes watches and tells nothing */
    struct rpc_call *held[64]; /* of SILENT: answered when the server goes */
    uint32_t held_count;
};

struct fake_watch {
    struct rpc_stream *stream;
    struct fake_server *server;
    uint64_t next;
    bool latest;
    bool asked;
};

struct fake_cluster {
    struct rpc *rpc;
    uint64_t cluster_id;
    pthread_mutex_t mutex;
    struct fake_server servers[FAKE_SERVERS_MAX];
    uint32_t server_count;
    uint64_t config_number;
    char group_addresses[2][ADDRESS_BYTES_MAX]; /* replicas of group 1; "" : no group */
    struct fake_watch watches[FAKE_STREAMS_MAX];
    struct fake_row rows[FAKE_ROWS_MAX];
    uint32_t row_count;
    struct {
        bool executed;
        int error;
        uint64_t version;
    } sessions[65536]; /* by sequence: one client a test */
    uint64_t executions;
    struct buf first_request; /* of a change, to see that a retry is the same */
    uint32_t other_requests;  /* changes that were not */
};

struct fake_cluster *fake_cluster_create(uint64_t cluster_id);
void fake_cluster_destroy(struct fake_cluster *cluster);
/* Starts one more server; returns it. It speaks for the controllers and for the group alike. */
struct fake_server *fake_server_start(struct fake_cluster *cluster, enum fake_mode mode);
void fake_server_stop(struct fake_server *server);    /* its connections break */
void fake_server_restart(struct fake_server *server); /* on the same port */
void fake_server_mode(struct fake_server *server, enum fake_mode mode, const char *hint);
/* A new config: tells the watches. The group's replicas are the servers given (NULL: none). */
void fake_config_push(struct fake_cluster *cluster, const struct fake_server *first,
                      const struct fake_server *second);
uint32_t fake_calls(struct fake_server *server);
uint32_t fake_batches(struct fake_server *server);
uint64_t fake_executions(struct fake_cluster *cluster);

#endif
