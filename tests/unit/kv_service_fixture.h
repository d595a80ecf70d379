/* Shared by the tests of a shard replica's services over real calls: one replica that is a group of
 * its own, a client beside it, both over loopback. Short words for the unary calls. */
#ifndef TESTS_UNIT_KV_SERVICE_FIXTURE_H
#define TESTS_UNIT_KV_SERVICE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/messages.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "shardkv/kv_machine.h"
#include "shardkv/move_service.h"
#include "shardkv/service.h"
#include <pthread.h>

enum { SHARDS = 8, GROUP = 1, OTHER = 2, CLUSTER = 99 };
#define LIMIT_NS (20 * NS_PER_S)

/* Answers to things that were started; counted, waited for with a deadline. */
struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t count;
    bool closed; /* the stream it waits for */
    int error;   /* of the last */
    struct buf bytes;
};

struct service_fixture {
    char dir[96];
    char state_dir[128];
    char node_dir[128];
    struct store store;
    struct kv_machine *machine;
    struct rpc *rpc;
    struct rpc_server *server;
    struct node *node;
    struct worker *worker;
    struct kv_service *service;
    struct move_service *moves;
    struct rpc *client_rpc;
    struct rpc_channel *channel;
    struct waiter waiter;
    struct node_member member;
    char address[64];
};

uint64_t now_ns(void);

void waiter_init(struct waiter *waiter);
void waiter_deinit(struct waiter *waiter);
void waiter_add(struct waiter *waiter, int error, struct bytes bytes);
void waiter_wait(struct waiter *waiter, uint32_t count); /* until so many; fails after LIMIT_NS */
void waiter_reset(struct waiter *waiter);

/* For cmocka; config 1 is taken. */
int service_set_up(void **state);
int service_tear_down(void **state);
/* Even shards are ours, odd ones the other group's; `number` 2 gives shard 0 away too. */
int service_take_config(struct service_fixture *fixture, uint64_t number);

/* A key of a shard that is ours (`shard` even) or not; until the next call. */
const char *key_in(uint32_t shard);
/* Must be answered; what the answer says is the caller's to look at. */
void service_call(struct service_fixture *fixture, const char *method, struct buf *request,
                  struct buf *reply);
/* `request` goes to a method that writes. */
struct msg_write_response service_write(struct service_fixture *fixture, const char *method,
                                        struct buf *request);
struct msg_write_response service_put(struct service_fixture *fixture,
                                      const struct msg_request_header *header, const char *key,
                                      const char *value);
struct msg_write_response service_append(struct service_fixture *fixture,
                                         const struct msg_request_header *header, const char *key,
                                         const char *value);
/* The value, of any size, is a view into `reply`, which is empty before. */
struct msg_get_response service_get_view(struct service_fixture *fixture, const char *key,
                                         struct buf *reply);
/* The value as a string in `value`. */
struct msg_get_response service_get(struct service_fixture *fixture, const char *key,
                                    char value[64]);

#define SERVICE_TEST(name) cmocka_unit_test_setup_teardown(name, service_set_up, service_tear_down)

#endif
