/* What the tests of rpc/ share: a server and a channel on the loopback, gates to wait at, and unary
 * results that can be waited for. Every wait has a deadline; reaching it fails the test. */
#ifndef TESTS_RPC_WORLD_H
#define TESTS_RPC_WORLD_H

#include "base/bytes.h"
#include "base/clock.h"
#include "rpc/rpc.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* cmocka.h wants these four before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { WORLD_WAIT_S = 30 };

/* A count that rises, from any thread. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t count;
};
void gate_init(struct gate *gate);
void gate_deinit(struct gate *gate);
void gate_pass(struct gate *gate);
void gate_reset(struct gate *gate, uint64_t count);
uint64_t gate_count(struct gate *gate);
void gate_wait(struct gate *gate, uint64_t count); /* fails the test when it takes too long */
/* Waits until `condition(context)` holds, for things nobody announces. */
void wait_for(bool (*condition)(void *context), void *context);

uint64_t now_ns(void);
uint64_t soon_ns(void); /* a deadline that no healthy call reaches */

struct world {
    struct rpc *server_rpc;
    struct rpc *client_rpc;
    struct rpc_server_options options;
    struct rpc_server *server;
    struct rpc_channel *channel;
    char address[64];
};

/* Two rpc's and a server to which methods may be added. Then world_start listens and makes the
 * channel. */
void world_init(struct world *world, uint32_t queue_count, const struct rpc_tls *tls);
void world_server(struct world *world);
void world_start(struct world *world);
void world_deinit(struct world *world);

/* The last result of some unary calls. */
struct outcome {
    struct gate done;
    int error;
    bool not_sent;
    char text[RPC_ERROR_TEXT_BYTES_MAX];
    struct buf reply;
};
void outcome_init(struct outcome *outcome);
void outcome_deinit(struct outcome *outcome);
void outcome_done(void *context, const struct rpc_result *result);
/* Starts a call of one letter that ends in `outcome`. */
void call_start(struct rpc_channel *channel, const char *method, uint64_t deadline_ns,
                struct outcome *outcome);

/* The blocking call with text in and out. */
int call_text(struct rpc_channel *channel, const char *method, const char *request,
              struct buf *reply, char *text, size_t text_size);
void buf_of_text(struct buf *buf, const char *text);
/* `size` bytes that depend on `seed` and their place. */
void buf_of_pattern(struct buf *buf, size_t size, uint8_t seed);
bool is_pattern(struct bytes bytes, size_t size, uint8_t seed);
/* So many bytes to "/t.T/Echo" and back. */
void call_pattern(struct rpc_channel *channel, size_t size);

/* Handlers. */
void handle_echo(void *context, struct rpc_call *call, struct bytes request, struct blob *owner);

/* A bound and listening TCP socket on the loopback that nobody accepts from; gives the descriptor.
 */
int socket_listen(char address[64]);
/* A loopback address where nothing listens. */
void address_unused(char address[64]);

#endif
