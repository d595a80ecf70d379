/* What sim_node.c (the loop and its workers) and sim_node_api.c (node.h) share. */
#ifndef TESTS_SIM_SIM_NODE_INTERNAL_H
#define TESTS_SIM_SIM_NODE_INTERNAL_H

#include "sim/sim_node.h"

enum { PERSIST_JOBS_PER_SYNC = 64 }; /* as node_threads.c */

enum mail_kind {
    MAIL_FRAME = 1,
    MAIL_JOB,
    MAIL_CLOSED, /* `target` closed its connection with us */
    MAIL_PROPOSE,
    MAIL_READ,
    MAIL_TRANSFER,
    MAIL_CHANGE,
    MAIL_HASH
};

struct mail {
    struct mail *next;
    enum mail_kind kind;
    struct blob *blob; /* FRAME; PROPOSE: the owner */
    struct sim_host *from;
    struct replica_job *job;
    struct bytes payload;
    node_done_fn done;
    node_read_fn serve;
    node_change_fn changed;
    node_hash_fn hashed;
    void *context;
    uint64_t target;
    struct raft_change change;
    char address[RAFT_ADDRESS_BYTES_MAX];
};

struct node_worker {
    struct replica_job *first, *last;
    struct replica_job *running[PERSIST_JOBS_PER_SYNC];
    size_t running_count;
};

struct peer {
    uint64_t id;
    struct sim_host *host;
};

struct node {
    struct sim_host *host;
    struct node_options options;
    struct replica *replica;
    const struct state_machine_ops *sm;
    struct state_machine_ops watched; /* the same, but that applied.h looks at what is applied */
    struct node_observer observer;
    struct mail *first, *last;
    uint32_t mail_count;
    bool loop_planned;
    uint64_t tick_ns; /* this host's idea of a tick */
    uint64_t next_tick_ns;
    bool started;
    bool replica_stopped; /* only its jobs come back */
    bool stopped;
    bool killed;
    struct node_worker workers[REPLICA_WORKER_COUNT];
    struct raft_membership members;
    struct peer
        heard[RAFT_MEMBERS_MAX]; /* whoever spoke to us, for those not in the membership yet */
    uint32_t heard_count;
    enum node_role role;   /* as of the last poll */
    bool published_is_old; /* taken anew when somebody asks */
    struct node_status published;
};

/* sim_node.c */
struct replica_env sim_node_env(struct node *node);
struct mail *sim_mail_create(enum mail_kind kind, void *context); /* gives */
void sim_mail_post(struct node *node, struct mail *mail);         /* takes */
void sim_mail_free(struct mail *mail);
void sim_mail_refuse_all(struct node *node);
void sim_node_poll(struct node *node);
void sim_node_begin(struct node *node); /* the first loop and the first tick */

#endif
