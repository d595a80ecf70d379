/* Connections and datagrams between hosts.
 *
 * A connection is what TCP gives gRPC: two ordered pipes that deliver late, stall while a link is
 * cut (and go on when it heals soon enough), fall silent or break. Nothing is lost from its middle.
 * Each end belongs to a process and dies with it; the other end hears of that if the network lets
 * it. */
#ifndef TESTS_SIM_SIM_NET_H
#define TESTS_SIM_SIM_NET_H

#include "base/bytes.h"
#include "sim/sim.h"

#define SIM_KEEPALIVE_NS (20 * SIM_S) /* a silent connection is given up after this */

enum conn_side { CONN_CLIENT = 0, CONN_SERVER = 1 };

enum conn_kind {
    CONN_OPEN = 1, /* client: the first; a unary call's carries the request */
    CONN_DATA,     /* a stream's message */
    CONN_FINISH,   /* client: no more messages */
    CONN_CANCEL,   /* client: not interested any more */
    CONN_CLOSE,    /* server: the end, with an error or 0; a unary call's carries the reply */
    CONN_BROKEN,   /* the network's, or of a process that is gone */
};

struct conn_message {
    struct conn_message *next;
    enum conn_kind kind;
    int error;
    bool not_sent; /* BROKEN: nothing ever left this process */
    bool lost;     /* drawn when it was sent: where it should have arrived, the pipe breaks or falls
                      silent */
    uint64_t due_ns;
    struct blob *payload; /* may be NULL */
    char text[64];
};
void conn_message_free(struct conn_message *message);

/* takes `message`. On the end's host, as a callback of the product's. */
typedef void (*conn_take_fn)(void *user, struct conn_message *message);
/* `bytes` of what this end sent have left. */
typedef void (*conn_left_fn)(void *user, size_t bytes);

struct conn_end {
    struct sim_host *host;
    uint32_t incarnation;
    bool open; /* wants to hear */
    bool told_broken;
    void *user;
    conn_take_fn take;
    conn_left_fn left;
};

struct conn_pipe {
    struct conn_message *first, *last;
    uint64_t newest_ns;
    uint64_t stalled_ns; /* since when; 0: not */
    bool scheduled;
    bool silent;
};

struct conn {
    uint32_t references;
    struct conn_end ends[2];
    struct conn_pipe pipes[2]; /* [side it leaves from] */
    bool broken;
    bool is_stream;
    uint64_t deadline_ns; /* of a unary call */
    char method[64];
    struct conn *next, **link; /* in the world's list */
};

/* gives; the client's end is open. `host` is whose code runs. The other host need not exist. */
struct conn *conn_open(const char *address, const char *method, bool is_stream,
                       uint64_t deadline_ns, void *user, conn_take_fn take, conn_left_fn left);
struct conn *conn_ref(struct conn *conn);
void conn_unref(struct conn *conn);
/* References nothing of `payload` but the blob, which may be NULL. Nothing happens when the end's
 * process is dying. */
void conn_send(struct conn *conn, enum conn_side side, enum conn_kind kind, int error,
               const char *text, struct blob *payload);
/* This end hears nothing any more; what it sent still travels. */
void conn_detach(struct conn *conn, enum conn_side side);
/* Every connection with an end in the process on `host` loses that end. */
void conns_abandon(struct sim_host *host);

/* Given by sim_rpc_server.c: the first message of a connection has come to `server`. takes
 * `message`. False: no such method. */
bool rpc_server_accept(struct rpc_server *server, struct conn *conn, struct conn_message *message);

/* A frame between replicas: may be lost, late, twice, out of order. takes `frame`'s memory. Given
 * by sim_node.c: node_frame_arrived. */
void datagram_send(struct sim_host *from, struct sim_host *to, struct buf *frame);
void node_frame_arrived(struct sim_host *from, struct sim_host *to, struct blob *frame);

#endif
