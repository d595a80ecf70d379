/* See generate.h. A queue of events by virtual time: a client calls, an operation takes effect on
 * the store, a client returns and will call again. An operation of unknown outcome takes effect
 * whenever its event comes, or has none. */
#include "lin/generate.h"

#include "base/assert.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STALL_FACTOR = 100, LATE_FACTOR = 30 };
#define LATENCY_NS_MIN (200 * NS_PER_US)
#define LATENCY_NS_MAX (2 * NS_PER_MS)

enum moment_kind { MOMENT_CALL, MOMENT_EFFECT, MOMENT_RETURN };

struct moment {
    uint64_t at_ns;
    uint64_t order; /* of making, among those at one time */
    enum moment_kind kind;
    size_t which; /* client or operation */
};

struct store_key {
    char name[16];
    struct lin_value value;
    uint64_t version;
};

struct client {
    struct lin_value *known; /* by key: what it last read or wrote */
    uint64_t *known_version;
};

struct generator {
    const struct lin_shape *shape;
    struct rng rng;
    struct lin_made *made;
    size_t ops_capacity;
    struct store_key *keys;
    uint32_t *key_of; /* by operation */
    struct client *clients;
    struct moment *heap;
    size_t heap_count;
    uint64_t next_order;
    uint64_t next_version;
};

/* --- the queue --- */

static bool earlier(const struct moment *a, const struct moment *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct generator *generator, uint64_t at_ns, enum moment_kind kind, size_t which)
{
    struct moment moment = {at_ns, generator->next_order++, kind, which};
    size_t at = generator->heap_count++;
    while (at > 0 && earlier(&moment, &generator->heap[(at - 1) / 2])) {
        generator->heap[at] = generator->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    generator->heap[at] = moment;
}

static struct moment pop(struct generator *generator)
{
    struct moment first = generator->heap[0];
    struct moment last = generator->heap[--generator->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= generator->heap_count) {
            break;
        }
        if (child + 1 < generator->heap_count &&
            earlier(&generator->heap[child + 1], &generator->heap[child])) {
            child++;
        }
        if (!earlier(&generator->heap[child], &last)) {
            break;
        }
        generator->heap[at] = generator->heap[child];
        at = child;
    }
    generator->heap[at] = last;
    return first;
}

/* --- bytes --- */

static struct buf *new_bytes(struct lin_made *made)
{
    if (made->bytes_count == made->bytes_capacity) {
        made->bytes_capacity = made->bytes_capacity == 0 ? 256 : 2 * made->bytes_capacity;
        made->bytes = mem_realloc(made->bytes, made->bytes_capacity * sizeof made->bytes[0]);
    }
    struct buf *buf = mem_calloc(1, sizeof *buf);
    buf_init(buf);
    made->bytes[made->bytes_count++] = buf;
    return buf;
}

static struct lin_value joined(struct lin_made *made, struct bytes a, struct bytes b)
{
    struct buf *buf = new_bytes(made);
    buf_append_bytes(buf, a);
    buf_append_bytes(buf, b);
    return (struct lin_value){true, buf_view(buf)};
}

/* --- the clients --- */

static enum lin_kind draw_kind(struct generator *generator)
{
    const struct lin_shape *shape = generator->shape;
    uint64_t draw = rng_below(&generator->rng, 100);
    const uint32_t shares[] = {shape->put_percent, shape->append_percent, shape->delete_percent,
                               shape->cas_percent};
    static const enum lin_kind kinds[] = {LIN_PUT, LIN_APPEND, LIN_DELETE, LIN_CAS};
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        if (draw < shares[i]) {
            return kinds[i];
        }
        draw -= shares[i];
    }
    return LIN_GET;
}

static struct lin_value new_value(struct generator *generator, uint32_t number)
{
    struct buf *buf = new_bytes(generator->made);
    uint32_t values = generator->shape->values;
    if (values > 0) {
        buf_printf(buf, "%u", (unsigned)rng_below(&generator->rng, values));
    } else {
        buf_printf(buf, "%u;", number);
    }
    return (struct lin_value){true, buf_view(buf)};
}

static void draw_arguments(struct generator *generator, struct lin_made_op *made, uint32_t key,
                           size_t client)
{
    struct lin_op *op = &made->op;
    if (op->kind == LIN_PUT || op->kind == LIN_APPEND || op->kind == LIN_CAS) {
        op->argument = new_value(generator, made->number);
    }
    if (op->kind == LIN_CAS) {
        op->observed = generator->clients[client].known[key];
        if (generator->shape->versions && op->observed.present) {
            op->expected = generator->clients[client].known_version[key];
        }
    }
}

static void call(struct generator *generator, uint64_t now_ns, size_t client)
{
    struct lin_made *made = generator->made;
    const struct lin_shape *shape = generator->shape;
    struct rng *rng = &generator->rng;
    if (made->count == shape->ops) {
        return;
    }
    size_t index = made->count++;
    uint32_t key = (uint32_t)rng_below(rng, shape->keys);
    generator->key_of[index] = key;
    struct lin_made_op *op = &made->ops[index];
    *op = (struct lin_made_op){.outcome = LIN_OK, .number = (uint32_t)index};
    op->op = (struct lin_op){.kind = draw_kind(generator),
                             .process = client,
                             .called_ns = now_ns,
                             .key = bytes_of_string(generator->keys[key].name),
                             .argument = LIN_ABSENT,
                             .observed = LIN_ABSENT};
    draw_arguments(generator, op, key, client);
    uint64_t latency_ns = rng_between(rng, LATENCY_NS_MIN, LATENCY_NS_MAX);
    if (rng_below(rng, 1000) < shape->stall_per_mille) {
        latency_ns *= STALL_FACTOR;
    }
    op->op.returned_ns = now_ns + latency_ns;
    push(generator, op->op.returned_ns, MOMENT_RETURN, index);
    bool unknown = op->op.kind != LIN_GET && rng_below(rng, 1000) < shape->info_per_mille;
    if (!unknown) {
        push(generator, rng_between(rng, now_ns + 1, op->op.returned_ns - 1), MOMENT_EFFECT, index);
        return;
    }
    op->outcome = LIN_INFO;
    if (rng_chance(rng, 1, 2)) {
        uint64_t within_ns = rng_chance(rng, 1, 4) ? latency_ns * LATE_FACTOR : latency_ns;
        push(generator, rng_between(rng, now_ns + 1, now_ns + within_ns), MOMENT_EFFECT, index);
    }
}

static void set(struct generator *generator, struct store_key *key, struct lin_made_op *made,
                struct lin_value value)
{
    key->value = value;
    key->version = ++generator->next_version;
    if (generator->shape->versions && made->outcome == LIN_OK && value.present) {
        made->op.version = key->version;
    }
}

static void refuse(struct generator *generator, const struct store_key *key,
                   struct lin_made_op *made)
{
    if (made->outcome != LIN_OK) {
        return; /* nobody hears of it */
    }
    made->outcome = LIN_FAIL;
    if (generator->shape->versions) {
        made->seen_version = true;
        made->op.version = key->value.present ? key->version : 0;
    }
}

static void take_effect(struct generator *generator, size_t index)
{
    struct lin_made_op *made = &generator->made->ops[index];
    struct lin_op *op = &made->op;
    struct store_key *key = &generator->keys[generator->key_of[index]];
    switch (op->kind) {
    case LIN_GET:
    case LIN_SEEN:
        op->observed = key->value;
        op->version = generator->shape->versions && key->value.present ? key->version : 0;
        break;
    case LIN_PUT:
        set(generator, key, made, op->argument);
        break;
    case LIN_APPEND:
        set(generator, key, made, joined(generator->made, key->value.bytes, op->argument.bytes));
        break;
    case LIN_DELETE:
        set(generator, key, made, LIN_ABSENT);
        break;
    case LIN_CAS:
        /* By version where one is known, as the product does it. */
        if (lin_value_equal(key->value, op->observed) &&
            (op->expected == 0 || op->expected == key->version)) {
            set(generator, key, made, op->argument);
        } else {
            refuse(generator, key, made);
        }
        break;
    }
}

static void come_back(struct generator *generator, uint64_t now_ns, size_t index)
{
    const struct lin_made_op *made = &generator->made->ops[index];
    const struct lin_op *op = &made->op;
    uint32_t key = generator->key_of[index];
    struct client *client = &generator->clients[op->process];
    if (made->outcome == LIN_OK && op->kind != LIN_APPEND) {
        client->known[key] = op->kind == LIN_GET ? op->observed : op->argument;
        client->known_version[key] = op->version;
    }
    uint64_t think_ns = rng_below(&generator->rng, generator->shape->think_ns_max + 1);
    push(generator, now_ns + 1 + think_ns, MOMENT_CALL, op->process);
}

static void generator_deinit(struct generator *generator)
{
    for (uint32_t i = 0; i < generator->shape->clients; i++) {
        free(generator->clients[i].known);
        free(generator->clients[i].known_version);
    }
    free(generator->clients);
    free(generator->keys);
    free(generator->key_of);
    free(generator->heap);
}

void lin_made_init(struct lin_made *made, const struct lin_shape *shape)
{
    ASSERT(shape->keys > 0 && shape->clients > 0);
    *made = (struct lin_made){.ops = mem_calloc(shape->ops, sizeof made->ops[0])};
    struct generator generator = {.shape = shape, .made = made};
    rng_init(&generator.rng, shape->seed);
    generator.keys = mem_calloc(shape->keys, sizeof generator.keys[0]);
    generator.key_of = mem_calloc(shape->ops, sizeof generator.key_of[0]);
    generator.clients = mem_calloc(shape->clients, sizeof generator.clients[0]);
    /* Each operation has two moments, each client one more. */
    generator.heap = mem_calloc(2 * shape->ops + shape->clients, sizeof generator.heap[0]);
    for (uint32_t i = 0; i < shape->keys; i++) {
        (void)snprintf(generator.keys[i].name, sizeof generator.keys[i].name, "key%u", i);
    }
    for (uint32_t i = 0; i < shape->clients; i++) {
        generator.clients[i].known = mem_calloc(shape->keys, sizeof(struct lin_value));
        generator.clients[i].known_version = mem_calloc(shape->keys, sizeof(uint64_t));
        push(&generator, rng_below(&generator.rng, LATENCY_NS_MAX), MOMENT_CALL, i);
    }
    while (generator.heap_count > 0) {
        struct moment moment = pop(&generator);
        switch (moment.kind) {
        case MOMENT_CALL:
            call(&generator, moment.at_ns, moment.which);
            break;
        case MOMENT_EFFECT:
            take_effect(&generator, moment.which);
            break;
        case MOMENT_RETURN:
            come_back(&generator, moment.at_ns, moment.which);
            break;
        }
    }
    /* The names must outlive the generator. */
    for (size_t i = 0; i < made->count; i++) {
        struct buf *name = new_bytes(made);
        buf_append_bytes(name, made->ops[i].op.key);
        made->ops[i].op.key = buf_view(name);
    }
    generator_deinit(&generator);
}

void lin_made_deinit(struct lin_made *made)
{
    for (size_t i = 0; i < made->bytes_count; i++) {
        buf_deinit(made->bytes[i]);
        free(made->bytes[i]);
    }
    free(made->bytes);
    free(made->ops);
    *made = (struct lin_made){0};
}

/* --- out --- */

struct line {
    struct lin_event event;
    size_t order;
};

static int by_time(const void *a, const void *b)
{
    const struct line *x = a;
    const struct line *y = b;
    if (x->event.time_ns != y->event.time_ns) {
        return x->event.time_ns < y->event.time_ns ? -1 : 1;
    }
    return x->order < y->order ? -1 : x->order > y->order;
}

static struct line *lines_of(const struct lin_made *made, size_t *count)
{
    struct line *lines = mem_calloc(2 * made->count, sizeof *lines);
    size_t line_count = 0;
    for (size_t i = 0; i < made->count; i++) {
        const struct lin_made_op *op = &made->ops[i];
        if (op->removed) {
            continue;
        }
        struct lin_event event = {.process = op->op.process,
                                  .type = LIN_INVOKE,
                                  .kind = op->op.kind,
                                  .key = op->op.key,
                                  .value = op->op.argument,
                                  .from = op->op.observed,
                                  .has_expected = op->op.expected > 0,
                                  .expected = op->op.expected,
                                  .time_ns = op->op.called_ns};
        lines[line_count++] = (struct line){event, 2 * i};
        event.type = op->outcome;
        event.value = op->op.observed;
        event.time_ns = op->op.returned_ns;
        event.has_expected = false;
        event.has_version = op->op.version > 0 || op->seen_version;
        event.version = op->op.version;
        lines[line_count++] = (struct line){event, 2 * i + 1};
    }
    qsort(lines, line_count, sizeof *lines, by_time);
    *count = line_count;
    return lines;
}

void lin_made_add_to(const struct lin_made *made, struct lin_history *history)
{
    size_t count;
    struct line *lines = lines_of(made, &count);
    struct lin_builder *builder = lin_builder_create(history);
    for (size_t i = 0; i < count; i++) {
        char message[256] = "";
        lines[i].event.line = i + 1;
        int error = lin_builder_add(builder, &lines[i].event, message, sizeof message);
        if (error != ERR_OK) {
            fprintf(stderr, "generated event %zu: %s\n", i, message);
        }
        ASSERT(error == ERR_OK);
    }
    lin_builder_finish(builder);
    free(lines);
}

void lin_made_write(const struct lin_made *made, struct buf *out)
{
    size_t count;
    struct line *lines = lines_of(made, &count);
    for (size_t i = 0; i < count; i++) {
        lin_event_write(&lines[i].event, out);
    }
    free(lines);
}
