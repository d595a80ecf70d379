/* Shared by the tests of real nodes in one process: real threads, real rpc on loopback, real
 * directories. Four servers, of which the first three are the group's founders; short words that
 * start and stop them and wait for what they answer. Every wait has a deadline but call_wait: a
 * node answers what it took. */
#ifndef TESTS_UNIT_NODE_FIXTURE_H
#define TESTS_UNIT_NODE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/vfs.h"
#include "node/kv_machine.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"
#include <pthread.h>

enum { NODES = 4, MEMBERS = 3 };
#define LIMIT_NS (30 * NS_PER_S)

struct server {
    struct rpc *rpc;
    struct rpc_server *server;
    struct node *node; /* NULL: down */
    struct state_machine sm;
    char dir[256];
    char address[64];
};

struct fixture {
    char root[128];
    /* the real one; a lock lasts as long as the process, which here outlives its nodes */
    struct vfs vfs;
    struct server servers[NODES];
    struct node_member members[NODES];
};

/* For cmocka; nothing runs yet. */
int node_set_up(void **state);
int node_tear_down(void **state);

uint64_t now_ns(void);
void nap(void); /* between looks at a condition that has a deadline */

/* ---- servers, by index ---- */

struct node_options options_of(struct fixture *fixture, uint32_t i);
/* Starts one with these options. Leaves nothing behind on an error. */
int node_up(struct fixture *fixture, uint32_t i, const struct node_options *options, char *why,
            size_t why_size);
void server_start(struct fixture *fixture, uint32_t i); /* must work */
void start_members(struct fixture *fixture);
void server_stop(struct fixture *fixture, uint32_t i); /* nothing when it is down */
int find_leader(struct fixture *fixture);              /* negative: none now */
uint32_t wait_leader(struct fixture *fixture);
void wait_applied(struct fixture *fixture, uint32_t i, uint64_t index);

/* ---- one answer ---- */

struct call {
    pthread_mutex_t lock;
    pthread_cond_t answered_cond;
    bool answered;
    int error;
    int code;
    struct raft_position position; /* of a command that was done */
    struct state_machine *sm;
    const char *key;
    struct buf value;
};

void call_init(struct call *call);
void call_deinit(struct call *call);
void call_wait(struct call *call);
void change_done(void *context, int error); /* of a transfer, of a change of members */

/* ---- commands and reads ---- */

/* `index`, if not NULL: where the command stands in the log once it was done. */
int propose(struct node *node, const struct kv_command *command, uint64_t *index);
/* Appends the value to `out`. */
int read_key(struct server *server, const char *key, struct buf *out);
/* Asks whoever leads until it worked. Gives the command's index: what whoever is to have seen it
 * must have applied. A leader's status may still be that of a moment before its answer. */
uint64_t put(struct fixture *fixture, const char *key, const char *value);
/* As whoever leads reads it. */
void assert_value(struct fixture *fixture, const char *key, const char *value);

#define NODE_TEST(name) cmocka_unit_test_setup_teardown(name, node_set_up, node_tear_down)

#endif
