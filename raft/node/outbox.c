/* Gathers messages into frames; see outbox.h. Order within a peer is kept. */
#include "raft/node/outbox.h"

#include "base/assert.h"
#include "proto/messages.h"
#include "raft/node/message_codec.h"
#include "raft/node/replica.h"

#include <stdlib.h>
#include <string.h>

/* A message that is larger than a frame goes alone and must still fit one rpc message: a command,
 * with room for what surrounds it; so does the sum of a frame that is nearly full and nothing more.
 * */
_Static_assert(NODE_COMMAND_BYTES_MAX + 1024 * 1024 < MESSAGE_BYTES_MAX,
               "the largest entry fits a frame of its own");

enum { PACKED_BYTES_KEPT = 256 * 1024 }; /* of a frame's memory, between two flushes */

void outbox_init(struct outbox *outbox)
{
    memset(outbox, 0, sizeof(*outbox));
}

void outbox_deinit(struct outbox *outbox)
{
    for (uint32_t i = 0; i < outbox->capacity; i++) {
        buf_deinit(&outbox->frames[i].packed);
    }
    free(outbox->frames);
    outbox_init(outbox);
}

static struct outbox_frame *open_frame(struct outbox *outbox, uint64_t peer)
{
    if (outbox->count == outbox->capacity) {
        uint32_t capacity = outbox->capacity == 0 ? 4 : outbox->capacity * 2;
        outbox->frames = mem_realloc(outbox->frames, capacity * sizeof(outbox->frames[0]));
        memset(outbox->frames + outbox->capacity, 0,
               (capacity - outbox->capacity) * sizeof(outbox->frames[0]));
        outbox->capacity = capacity;
    }
    struct outbox_frame *frame = &outbox->frames[outbox->count++];
    frame->peer = peer;
    frame->count = 0;
    buf_clear(&frame->packed);
    return frame;
}

static struct outbox_frame *frame_for(struct outbox *outbox, const struct raft_message *message)
{
    for (uint32_t i = outbox->count; i > 0; i--) {
        struct outbox_frame *frame = &outbox->frames[i - 1];
        if (frame->peer != message->to) {
            continue;
        }
        size_t more = message_bytes_max(message);
        bool fits = frame->packed.size <= REPLICA_FRAME_BYTES_MAX &&
                    more <= REPLICA_FRAME_BYTES_MAX - frame->packed.size;
        if (frame->count < FRAME_MESSAGES_MAX && fits) {
            return frame;
        }
        break; /* only the newest frame of a peer may be added to, or order would be lost */
    }
    return open_frame(outbox, message->to);
}

void outbox_add(struct outbox *outbox, const struct raft_message *message)
{
    struct outbox_frame *frame = frame_for(outbox, message);
    frame->starts[frame->count] = (uint32_t)frame->packed.size;
    message_encode(message, &frame->packed);
    frame->count++;
    frame->starts[frame->count] = (uint32_t)frame->packed.size;
}

void outbox_greet(struct outbox *outbox, uint64_t peer)
{
    for (uint32_t i = 0; i < outbox->count; i++) {
        if (outbox->frames[i].peer == peer) {
            return;
        }
    }
    (void)open_frame(outbox, peer);
}

void outbox_flush(struct outbox *outbox, const struct outbox_sender *sender, outbox_send_fn send,
                  void *context)
{
    for (uint32_t i = 0; i < outbox->count; i++) {
        struct outbox_frame *frame = &outbox->frames[i];
        struct msg_frame message;
        message.version = PEER_VERSION;
        message.cluster_id = sender->cluster_id;
        message.group_id = sender->group_id;
        message.from = sender->replica_id;
        message.from_incarnation = sender->incarnation;
        message.to = frame->peer;
        message.message_count = frame->count;
        for (uint32_t m = 0; m < frame->count; m++) {
            message.messages[m] = bytes_of(frame->packed.data + frame->starts[m],
                                           frame->starts[m + 1] - frame->starts[m]);
        }
        struct buf encoded;
        buf_init(&encoded);
        buf_reserve(&encoded, frame->packed.size + 64 + 6 * (size_t)frame->count);
        msg_frame_encode(&message, &encoded);
        send(context, frame->peer, &encoded);
        buf_deinit(&encoded); /* empty when it was taken */
        if (frame->packed.capacity > PACKED_BYTES_KEPT) {
            buf_deinit(&frame->packed);
        }
    }
    outbox->count = 0;
}
