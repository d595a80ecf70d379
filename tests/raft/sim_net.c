/* Links between replicas. Thread: one. Invariant: a message is delivered only over a link that is
 * up when it arrives, and never changes on the way. */
#include "raft/sim_net.h"

#include "base/assert.h"
#include "raft/sim_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_BYTES = 40, /* kind, ids, terms, positions as varints */
    ENTRY_HEADER_BYTES =
        16, /* index and term are deltas on the wire, a kind, a length, a checksum */
};

bool sim_message_is_reply(enum raft_message_kind kind)
{
    return kind == RAFT_MSG_PREVOTE_REPLY || kind == RAFT_MSG_VOTE_REPLY ||
           kind == RAFT_MSG_APPEND_REPLY || kind == RAFT_MSG_HEARTBEAT_REPLY ||
           kind == RAFT_MSG_SNAPSHOT_REPLY;
}

uint64_t sim_message_bytes(const struct raft_message *message)
{
    uint64_t bytes = HEADER_BYTES + message->chunk.size;
    for (size_t i = 0; i < message->entry_count; i++) {
        bytes += ENTRY_HEADER_BYTES + message->entries[i].data.size;
    }
    return bytes;
}

struct sim_message *sim_message_copy(const struct raft_message *message)
{
    struct sim_message *copy = mem_calloc(1, sizeof *copy);
    copy->message = *message;
    if (message->entry_count > 0) {
        copy->entries = mem_dup(message->entries, message->entry_count * sizeof copy->entries[0]);
        for (size_t i = 0; i < message->entry_count; i++) {
            (void)blob_ref(copy->entries[i].owner);
        }
    }
    copy->message.entries = copy->entries;
    if (message->snapshot != NULL) {
        copy->snapshot = *message->snapshot;
        copy->message.snapshot = &copy->snapshot;
    }
    (void)blob_ref(copy->message.chunk_owner);
    return copy;
}

void sim_message_free(struct sim_message *message)
{
    for (size_t i = 0; i < message->message.entry_count; i++) {
        blob_unref(message->entries[i].owner);
    }
    free(message->entries);
    blob_unref(message->message.chunk_owner);
    free(message);
}

struct sim_net_options sim_net_reliable(void)
{
    return (struct sim_net_options){
        .delay_min_ns = 50 * SIM_US, .delay_max_ns = 400 * SIM_US, .fifo = true};
}

struct sim_net_options sim_net_unreliable(void)
{
    return (struct sim_net_options){.delay_min_ns = 50 * SIM_US,
                                    .delay_max_ns = 26 * SIM_MS,
                                    .request_loss_permille = 100,
                                    .reply_loss_permille = 100};
}

struct sim_net_options sim_net_long_reordering(void)
{
    struct sim_net_options options = sim_net_unreliable();
    options.long_reordering = true;
    return options;
}

void sim_net_init(struct sim_net *net, struct sim_clock *clock, uint64_t seed,
                  sim_deliver_fn deliver, sim_lost_fn lost, void *context)
{
    *net = (struct sim_net){.clock = clock,
                            .options = sim_net_reliable(),
                            .deliver = deliver,
                            .lost = lost,
                            .context = context};
    rng_init(&net->rng, seed);
}

bool sim_net_linked(const struct sim_net *net, uint32_t from, uint32_t to)
{
    return net->connected[from] && net->connected[to] && !net->cut[from][to];
}

void sim_net_heal(struct sim_net *net)
{
    memset(net->cut, 0, sizeof net->cut);
}

static void drop_event(void *context, void *payload, uint64_t tag)
{
    (void)context;
    (void)tag;
    sim_message_free(payload);
}

static void lost_event(void *context, void *payload, uint64_t tag)
{
    (void)payload;
    struct sim_net *net = context;
    net->lost(net->context, (uint32_t)(tag >> 32), (uint32_t)tag);
}

static void lose(struct sim_net *net, uint32_t from, uint32_t to)
{
    net->counters.lost++;
    if (net->options.report_losses) {
        struct sim_event event = {.at_ns =
                                      net->clock->now_ns + rng_between(&net->rng, 1, 20) * SIM_MS,
                                  .run = lost_event,
                                  .context = net,
                                  .tag = ((uint64_t)from << 32) | to};
        sim_clock_add(net->clock, &event);
    }
}

static void arrive_event(void *context, void *payload, uint64_t tag)
{
    (void)tag;
    struct sim_net *net = context;
    struct sim_message *copy = payload;
    uint32_t from = (uint32_t)copy->message.from - 1;
    uint32_t to = (uint32_t)copy->message.to - 1;
    if (!sim_net_linked(net, from, to)) {
        lose(net, from, to);
    } else {
        if (!sim_message_is_reply(copy->message.kind)) {
            net->counters.requests_delivered_to[to]++;
        }
        net->deliver(net->context, to, &copy->message);
    }
    sim_message_free(copy);
}

static uint64_t delay(struct sim_net *net, bool reply)
{
    const struct sim_net_options *options = &net->options;
    uint64_t delay_ns = rng_between(&net->rng, options->delay_min_ns, options->delay_max_ns);
    if (options->straggler_permille > 0 &&
        rng_chance(&net->rng, options->straggler_permille, 1000)) {
        delay_ns += rng_below(&net->rng, options->straggler_max_ns + 1);
    }
    if (options->long_reordering && reply && rng_chance(&net->rng, 2, 3)) {
        delay_ns += (200 + rng_below(&net->rng, 1 + rng_below(&net->rng, 2000))) * SIM_MS;
    }
    return delay_ns;
}

static void post(struct sim_net *net, const struct raft_message *message)
{
    uint32_t from = (uint32_t)message->from - 1;
    uint32_t to = (uint32_t)message->to - 1;
    bool reply = sim_message_is_reply(message->kind);
    uint32_t loss = reply ? net->options.reply_loss_permille : net->options.request_loss_permille;
    if (loss > 0 && rng_chance(&net->rng, loss, 1000)) {
        lose(net, from, to);
        return;
    }
    uint64_t at_ns = net->clock->now_ns + delay(net, reply);
    uint64_t *newest_ns = &net->newest_ns[from][to];
    if (at_ns < *newest_ns) {
        if (net->options.fifo) {
            at_ns = *newest_ns; /* the clock keeps the order of equal times */
        } else {
            net->counters.reordered++;
        }
    }
    if (at_ns > *newest_ns) {
        *newest_ns = at_ns;
    }
    struct sim_event event = {.at_ns = at_ns,
                              .run = arrive_event,
                              .drop = drop_event,
                              .context = net,
                              .payload = sim_message_copy(message)};
    sim_clock_add(net->clock, &event);
}

void sim_net_send(struct sim_net *net, const struct raft_message *message)
{
    uint32_t from = (uint32_t)message->from - 1;
    uint32_t to = (uint32_t)message->to - 1;
    if (message->from == 0 || from >= SIM_REPLICAS_MAX || message->to == 0 ||
        to >= SIM_REPLICAS_MAX || from == to) {
        sim_fail("message kind %d from %" PRIu64 " to %" PRIu64, (int)message->kind, message->from,
                 message->to);
    }
    net->counters.sent[message->kind]++;
    if (!sim_message_is_reply(message->kind)) {
        net->counters.requests++;
    }
    if (!sim_net_linked(net, from, to)) {
        lose(net, from, to);
        return;
    }
    net->counters.bytes += sim_message_bytes(message);
    post(net, message);
    if (net->options.duplicate_permille > 0 &&
        rng_chance(&net->rng, net->options.duplicate_permille, 1000)) {
        net->counters.duplicated++;
        post(net, message);
    }
}
