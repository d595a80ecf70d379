/* Raft messages on their way out, gathered per peer and packed into peer frames (proto/peer.proto).
 * One owner. */
#ifndef RAFT_NODE_OUTBOX_H
#define RAFT_NODE_OUTBOX_H

#include "proto/limits.h"
#include "raft/core/types.h"

/* What every frame of a replica says about its sender. Constant for a replica's life. */
struct outbox_sender {
    uint64_t cluster_id;
    uint64_t group_id;
    uint64_t replica_id;
    uint64_t incarnation;
};

/* Messages of one frame, packed back to back: message i lies at [starts[i], starts[i + 1]). */
struct outbox_frame {
    uint64_t peer;
    struct buf packed;
    uint32_t count;
    uint32_t starts[FRAME_MESSAGES_MAX + 1];
};

struct outbox {
    /* in order of their first message; several for one peer when one is full */
    struct outbox_frame *frames;
    uint32_t count;
    uint32_t capacity; /* frames beyond `count` keep their memory for the next time */
};

void outbox_init(struct outbox *outbox);
void outbox_deinit(struct outbox *outbox);
/* Encodes at once: borrows for the call. */
void outbox_add(struct outbox *outbox, const struct raft_message *message);

/* A frame without messages to `peer`, unless one with messages leaves anyway: says who we are. */
void outbox_greet(struct outbox *outbox, uint64_t peer);

/* takes `frame`'s memory */
typedef void (*outbox_send_fn)(void *context, uint64_t peer, struct buf *frame);
/* Hands out every frame and is empty then. */
void outbox_flush(struct outbox *outbox, const struct outbox_sender *sender, outbox_send_fn send,
                  void *context);

#endif
