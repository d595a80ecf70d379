/* Frames to the other members of a group, over one outgoing rpc stream each. Replies travel on the
 * peer's own stream to us.
 *
 *   no stream --a send, after the back-off--> open --closed, by anybody--> no stream, back-off
 *
 * A send never waits: what does not fit the stream's bounded queue, or finds no stream, is dropped
 * and the peer is noted as unreachable (the core then probes it). So a dead or slow peer costs the
 * others nothing. A stream that is still connecting takes frames into its queue; Raft does not mind
 * late ones.
 *
 * Somebody whose address is not known - the leader, for a replica that waits to be added and has no
 * membership yet - is answered on the stream it opened to us.
 *
 * Threads: transport_send any; set_members, learn, losses: one at a time (the node's loop).
 * Callbacks `received` and `wake` run on rpc's threads and must not block. */
#ifndef RAFT_NODE_TRANSPORT_H
#define RAFT_NODE_TRANSPORT_H

#include "base/clock.h"
#include "raft/core/types.h"
#include "rpc/rpc.h"

struct transport;

enum {
    /* to send, per peer: the core's window and a large entry */
    TRANSPORT_QUEUE_BYTES_MAX = 32 * 1024 * 1024,
    TRANSPORT_PEERS_MAX = 2 * RAFT_MEMBERS_MAX, /* members, and peers without a known address */
};

struct transport_options {
    struct rpc *rpc;
    const struct clock *clock;
    uint64_t self;
    uint64_t seed;
    void *context;
    /* A frame from a peer. Borrowed; reference `owner` to keep the bytes. `stream` is the one it
     * came on. */
    void (*received)(void *context, struct rpc_stream *stream, struct bytes frame,
                     struct blob *owner);
    /* Some peer became unreachable: ask transport_losses() soon. */
    void (*wake)(void *context);
};

struct transport *transport_create(const struct transport_options *options);
/* Cancels every outgoing stream and waits until each has ended. Nothing is sent or received on them
 * afterwards. Never from a callback. */
void transport_stop(struct transport *transport);
void transport_destroy(struct transport *transport); /* takes; stopped before */

/* Who is to be reached where. Streams to members that are gone, or elsewhere, are cancelled. */
void transport_set_members(struct transport *transport, const struct raft_membership *membership);
/* takes `frame`'s memory, sent or not. */
void transport_send(struct transport *transport, uint64_t peer, struct buf *frame);
struct transport_loss {
    uint64_t peer;
    bool unreachable; /* something for it was dropped, or the stream to it has ended */
    bool closed;      /* the stream it spoke on has ended, as when its process does */
};
/* What was noted since the last call, by peer; gives how many. */
size_t transport_losses(struct transport *transport,
                        struct transport_loss out[TRANSPORT_PEERS_MAX]);

/* The server's side: `from` speaks on this stream, which another replica opened. */
void transport_learn(struct transport *transport, uint64_t from, struct rpc_stream *stream);
/* That stream has ended. Any thread. */
void transport_forget(struct transport *transport, struct rpc_stream *stream);

#endif
