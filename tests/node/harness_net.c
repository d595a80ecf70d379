/* The network between slots, and requests from outside. Frames are opaque bytes here. */
#include "node/harness_internal.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

struct harness_net harness_net_reliable(void)
{
    return (struct harness_net){.delay_min_ns = 50 * SIM_US,
                                .delay_max_ns = 500 * SIM_US,
                                .fifo = true,
                                .report_losses = true};
}

struct harness_net harness_net_unreliable(void)
{
    return (struct harness_net){.delay_min_ns = 100 * SIM_US,
                                .delay_max_ns = 27 * SIM_MS,
                                .loss_permille = 100,
                                .duplicate_permille = 50,
                                .straggler_permille = 20,
                                .straggler_max_ns = 2 * SIM_S};
}

/* ---- frames ---------------------------------------------------------------------------------- */

static bool linked(const struct harness *harness, uint32_t from, uint32_t to)
{
    return harness->slots[from].connected && harness->slots[to].connected &&
           !harness->cut[from][to];
}

static void drop_frame(void *context, void *payload, uint64_t tag)
{
    (void)context;
    (void)tag;
    blob_unref(payload);
}

static void deliver(void *context, void *payload, uint64_t tag)
{
    struct slot *slot = context;
    struct harness *harness = slot->harness;
    struct blob *frame = payload;
    if (slot->replica != NULL && linked(harness, (uint32_t)tag, slot->number)) {
        harness->counters.frames_delivered++;
        (void)replica_receive(slot->replica, frame);
        harness__plan_poll(slot);
    }
    blob_unref(frame);
}

static void report_loss(void *context, void *payload, uint64_t tag)
{
    struct slot *slot = context;
    (void)payload;
    if (slot->replica != NULL) {
        replica_unreachable(slot->replica, tag);
        harness__plan_poll(slot);
    }
}

static uint64_t arrival_ns(struct harness *harness, uint32_t from, uint32_t to)
{
    const struct harness_net *net = &harness->net;
    uint64_t at_ns = harness->clock.now_ns +
                     rng_between(&harness->net_rng, net->delay_min_ns, net->delay_max_ns);
    if (rng_chance(&harness->net_rng, net->straggler_permille, 1000)) {
        return at_ns + rng_below(&harness->net_rng, net->straggler_max_ns + 1);
    }
    if (net->fifo) {
        uint64_t *newest = &harness->newest_ns[from][to];
        at_ns = at_ns < *newest ? *newest : at_ns;
        *newest = at_ns;
    }
    return at_ns;
}

void harness__send(struct slot *from, uint64_t peer, struct buf *bytes)
{
    struct harness *harness = from->harness;
    uint32_t to = (uint32_t)peer - 1;
    struct blob *frame = blob_take_buf(bytes);
    harness->counters.frames_sent++;
    harness->counters.bytes_sent += blob_view(frame).size;
    bool exists = peer >= 1 && peer <= harness->options.slot_count;
    bool lost = !exists || !linked(harness, from->number, to) ||
                harness->slots[to].replica == NULL ||
                rng_chance(&harness->net_rng, harness->net.loss_permille, 1000);
    if (lost) {
        blob_unref(frame);
        if (harness->net.report_losses) {
            sim_clock_add(&harness->clock,
                          &(struct sim_event){.at_ns = harness->clock.now_ns + SIM_MS,
                                              .run = report_loss,
                                              .context = from,
                                              .tag = peer});
        }
        return;
    }
    unsigned copies = rng_chance(&harness->net_rng, harness->net.duplicate_permille, 1000) ? 2 : 1;
    for (unsigned i = 0; i < copies; i++) {
        sim_clock_add(&harness->clock,
                      &(struct sim_event){.at_ns = arrival_ns(harness, from->number, to),
                                          .run = deliver,
                                          .drop = drop_frame,
                                          .context = &harness->slots[to],
                                          .payload = blob_ref(frame),
                                          .tag = from->number});
    }
    blob_unref(frame);
}

/* ---- cutting --------------------------------------------------------------------------------- */

void harness_set_net(struct harness *harness, const struct harness_net *net)
{
    harness->net = *net;
}

void harness_connect(struct harness *harness, uint32_t slot, bool connected)
{
    harness->slots[slot].connected = connected;
}

void harness_cut(struct harness *harness, uint32_t from, uint32_t to, bool cut)
{
    harness->cut[from][to] = cut;
}

void harness_partition(struct harness *harness, uint32_t side)
{
    for (uint32_t i = 0; i < harness->options.slot_count; i++) {
        for (uint32_t j = 0; j < harness->options.slot_count; j++) {
            harness->cut[i][j] = ((side >> i) & 1u) != ((side >> j) & 1u);
        }
    }
}

void harness_heal(struct harness *harness)
{
    memset(harness->cut, 0, sizeof(harness->cut));
    for (uint32_t i = 0; i < harness->options.slot_count; i++) {
        harness->slots[i].connected = true;
    }
}

/* ---- asking ---------------------------------------------------------------------------------- */

enum request_kind { REQUEST_PROPOSE, REQUEST_READ, REQUEST_CHANGE, REQUEST_TRANSFER };

struct request {
    enum request_kind kind;
    struct blob *payload;
    node_done_fn done;
    node_read_fn serve;
    node_change_fn changed;
    struct raft_change change;
    char address[32];
    uint64_t target;
    void *context;
};

static void request_free(void *context, void *payload, uint64_t tag)
{
    struct request *request = payload;
    (void)context;
    (void)tag;
    blob_unref(request->payload);
    free(request);
}

static void request_refuse(const struct request *request, int error)
{
    switch (request->kind) {
    case REQUEST_PROPOSE:
        request->done(request->context, error, (struct raft_position){0, 0}, BYTES_EMPTY);
        break;
    case REQUEST_READ:
        request->serve(request->context, error);
        break;
    case REQUEST_CHANGE:
    case REQUEST_TRANSFER:
        request->changed(request->context, error);
        break;
    }
}

static void request_run(void *context, void *payload, uint64_t tag)
{
    struct slot *slot = context;
    struct request *request = payload;
    if (slot->replica == NULL) {
        request_refuse(request, ERR_UNAVAILABLE);
    } else {
        switch (request->kind) {
        case REQUEST_PROPOSE:
            replica_propose(slot->replica, blob_view(request->payload), request->payload,
                            request->done, request->context);
            break;
        case REQUEST_READ:
            replica_read(slot->replica, request->serve, request->context);
            break;
        case REQUEST_CHANGE:
            request->change.address = request->address;
            replica_change_member(slot->replica, &request->change, request->changed,
                                  request->context);
            break;
        case REQUEST_TRANSFER:
            replica_transfer(slot->replica, request->target, request->changed, request->context);
            break;
        }
        harness__plan_poll(slot);
    }
    request_free(context, payload, tag);
}

static void ask(struct harness *harness, uint32_t slot, const struct request *request)
{
    uint64_t delay_ns = rng_between(&harness->rng, 10 * SIM_US, 100 * SIM_US);
    sim_clock_add(&harness->clock,
                  &(struct sim_event){.at_ns = harness->clock.now_ns + delay_ns,
                                      .run = request_run,
                                      .drop = request_free,
                                      .context = &harness->slots[slot],
                                      .payload = mem_dup(request, sizeof(*request))});
}

void harness_propose(struct harness *harness, uint32_t slot, struct bytes payload,
                     node_done_fn done, void *context)
{
    ask(harness, slot,
        &(struct request){.kind = REQUEST_PROPOSE,
                          .payload = blob_copy(payload),
                          .done = done,
                          .context = context});
}

void harness_read(struct harness *harness, uint32_t slot, node_read_fn serve, void *context)
{
    ask(harness, slot, &(struct request){.kind = REQUEST_READ, .serve = serve, .context = context});
}

void harness_change_member(struct harness *harness, uint32_t slot, enum raft_change_kind kind,
                           uint64_t id, node_change_fn done, void *context)
{
    struct request request = {.kind = REQUEST_CHANGE,
                              .change = {.kind = kind, .id = id},
                              .changed = done,
                              .context = context};
    ASSERT_CMP(id, <=, harness->options.slot_count);
    memcpy(request.address, harness->addresses[id - 1], sizeof(request.address));
    ask(harness, slot, &request);
}

void harness_transfer(struct harness *harness, uint32_t slot, uint64_t target, node_change_fn done,
                      void *context)
{
    ask(harness, slot,
        &(struct request){
            .kind = REQUEST_TRANSFER, .target = target, .changed = done, .context = context});
}
