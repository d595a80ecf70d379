/* The network between replicas: one-way messages over links that delay, lose, repeat and reorder
 * them, and that can be cut in one direction. Counts what the course counts: a request and its
 * reply are one RPC. One thread, one seed. */
#ifndef TESTS_RAFT_SIM_NET_H
#define TESTS_RAFT_SIM_NET_H

#include "base/rng.h"
#include "raft/core/types.h"
#include "raft/sim_clock.h"

enum { SIM_REPLICAS_MAX = 9 };

/* A deep copy: holds references to the blobs of its entries and chunk. */
struct sim_message {
    struct raft_message message;
    struct raft_snapshot snapshot;
    struct raft_entry *entries;
};

struct sim_message *sim_message_copy(const struct raft_message *message); /* gives */
void sim_message_free(struct sim_message *message);                       /* takes */
bool sim_message_is_reply(enum raft_message_kind kind);
/* About what the message is on the wire. */
uint64_t sim_message_bytes(const struct raft_message *message);

struct sim_net_options {
    uint64_t delay_min_ns;
    uint64_t delay_max_ns;
    bool fifo; /* a link keeps the order, as one stream does */
    uint32_t request_loss_permille;
    uint32_t reply_loss_permille;
    uint32_t duplicate_permille;
    uint32_t straggler_permille; /* delayed by up to straggler_max_ns, out of order */
    uint64_t straggler_max_ns;
    bool long_reordering; /* two replies in three are held back 200 .. 2200 ms */
    bool report_losses;   /* the sender's transport notices what was lost */
};

/* The course's three networks. */
struct sim_net_options sim_net_reliable(void);
struct sim_net_options sim_net_unreliable(void);
struct sim_net_options sim_net_long_reordering(void);

struct sim_net_counters {
    uint64_t requests; /* sent, arrived or not */
    uint64_t bytes;    /* of requests and replies sent over a link that was up */
    uint64_t sent[RAFT_MSG_TIMEOUT_NOW + 1];
    uint64_t requests_delivered_to[SIM_REPLICAS_MAX];
    uint64_t lost;
    uint64_t duplicated;
    uint64_t reordered;
};

/* Hands a message to replica `to`; borrows. */
typedef void (*sim_deliver_fn)(void *context, uint32_t to, const struct raft_message *message);
/* What `from` sent to `to` was lost and its transport noticed. */
typedef void (*sim_lost_fn)(void *context, uint32_t from, uint32_t to);

struct sim_net {
    struct sim_clock *clock;
    struct rng rng;
    struct sim_net_options options;
    bool connected[SIM_REPLICAS_MAX];                       /* the course's whole-server switch */
    bool cut[SIM_REPLICAS_MAX][SIM_REPLICAS_MAX];           /* [from][to] */
    uint64_t newest_ns[SIM_REPLICAS_MAX][SIM_REPLICAS_MAX]; /* latest delivery planned */
    struct sim_net_counters counters;
    sim_deliver_fn deliver;
    sim_lost_fn lost;
    void *context;
};

void sim_net_init(struct sim_net *net, struct sim_clock *clock, uint64_t seed,
                  sim_deliver_fn deliver, sim_lost_fn lost, void *context);
/* Copies. Replica ids are slot + 1. */
void sim_net_send(struct sim_net *net, const struct raft_message *message);
bool sim_net_linked(const struct sim_net *net, uint32_t from, uint32_t to);
/* Ends all cuts; `connected` stays. */
void sim_net_heal(struct sim_net *net);

#endif
