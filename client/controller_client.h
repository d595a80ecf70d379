/* Talking to the controllers: finds the leader among their addresses, retries with jittered
 * back-off until the deadline under one sequence number, and watches configs. Used by libshardkv,
 * shardctl and the shard groups.
 *
 * What a call's `error` says about the command, since the table's outcome of a transport error is
 * not enough here: OK                 the leader answered with code 0 ERR_TIMEOUT        unknown:
 * some attempt may have been executed, and no later one was answered ERR_UNAVAILABLE    not done:
 * no controller could be reached, nothing left this process ERR_NOT_LEADER, NO_QUORUM, BUSY,
 * SHUTDOWN not done: controllers answered until the deadline, none of them could take it
 *   ERR_CANCELED       unknown: the client was destroyed meanwhile
 *   any other          the controllers' final answer; its row in base/error.h holds */
#ifndef CLIENT_CONTROLLER_CLIENT_H
#define CLIENT_CONTROLLER_CLIENT_H

#include "base/clock.h"
#include "base/error.h"
#include "proto/config.h"

struct rpc;
struct controller_client;

/* `addresses`: "host:port,host:port". ERR_INVALID names the bad one in `why`. `cluster_id` 0: not
 * checked. gives *out. */
int controller_client_create(struct rpc *rpc, const struct clock *clock, const char *addresses,
                             uint64_t cluster_id, uint64_t seed, struct controller_client **out,
                             char *why, size_t why_size) MUST_USE;
/* Waits: ends watches and calls under way. Never from a callback. NULL is fine. */
void controller_client_destroy(struct controller_client *client);

/* Asynchronous unary calls with the retry rules above. `done` runs exactly once iff OK is returned,
 * on an rpc thread, and must not block. `text` is for people. `reply`: the response message's bytes
 * (msg_change_response, msg_query_response), borrowed; empty unless a controller answered. */
typedef void (*controller_done_fn)(void *context, int error, const char *text, struct bytes reply);
/* takes `request`: the whole encoded message; its header holds the ids of
 * controller_client_next_ids. ERR_SHUTDOWN while being destroyed, ERR_BUSY over
 * CONTROLLER_CALLS_MAX under way. */
int controller_client_call(struct controller_client *client, const char *method,
                           struct buf *request, uint64_t deadline_ns, controller_done_fn done,
                           void *context) MUST_USE;
/* Blocking form, for command lines. Appends the response to `reply`. */
int controller_client_call_wait(struct controller_client *client, const char *method,
                                struct buf *request, uint64_t deadline_ns, struct buf *reply,
                                char *text, size_t text_size) MUST_USE;
/* This client's id and a fresh sequence (commands are sent one at a time by people, so acked_below
 * = sequence). */
void controller_client_next_ids(struct controller_client *client, uint64_t *client_id,
                                uint64_t *sequence);

enum { CONTROLLER_CALLS_MAX = 64 };

/* Pushes configs: each number from `from_number` on, in order, none twice, for ever until destroy;
 * reconnects by itself and goes on where it was. `changed` runs on an rpc thread, must not block,
 * and borrows the config. One watch a client. */
typedef void (*controller_config_fn)(void *context, const struct config *config);
int controller_client_watch(struct controller_client *client, uint64_t from_number,
                            controller_config_fn changed, void *context) MUST_USE;
/* The same, but only the newest config is wanted: numbers may be skipped, never go back. */
int controller_client_watch_latest(struct controller_client *client, controller_config_fn changed,
                                   void *context) MUST_USE;
/* Before the watch: from now on a warning is logged when no controller gives a config, and why. For
 * servers; a library says nothing on its program's standard error. */
void controller_client_warn(struct controller_client *client);

#endif
