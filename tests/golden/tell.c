/* What an input did to one replica: what is new on the wire, in its queue of writes, in what it
 * applied and in its trace since golden__watch(). Thread: one. */
#include "golden/golden_internal.h"

struct golden_before golden__watch(struct golden *golden, uint64_t id)
{
    struct pump *pump = golden->pump;
    pump->traced = id;
    pump->trace_size = 0;
    pump->trace[0] = '\0';
    return (struct golden_before){pump->wire.count, pump->nodes[id].write_count,
                                  pump->nodes[id].applied};
}

static void tell_trace(struct golden *golden, uint64_t id)
{
    const char *line = golden->pump->trace;
    for (const char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        const char *text = strchr(line, ' ') + 1; /* behind "id=1" */
        buf_printf(&golden->out, "    %llu: %.*s\n", LLU(id), (int)(end - text), text);
    }
}

static void tell_applied(struct golden *golden, uint64_t id, uint64_t from)
{
    const struct pump_node *node = &golden->pump->nodes[id];
    for (uint64_t i = from + 1; i <= node->applied; i++) {
        if (i > node->snapshot.position.index) {
            buf_printf(&golden->out, "    %llu applies ", LLU(id));
            show_entry(&golden->out, &node->log[i - node->snapshot.position.index - 1]);
            buf_printf(&golden->out, "\n");
        } else if (i == node->snapshot.position.index) {
            buf_printf(&golden->out, "    %llu restores snapshot at %llu/%llu\n", LLU(id), LLU(i),
                       LLU(node->snapshot.position.term));
        }
    }
}

void golden__tell(struct golden *golden, uint64_t id, struct golden_before before, size_t released,
                  uint64_t seq)
{
    struct pump *pump = golden->pump;
    struct pump_node *node = &pump->nodes[id];
    struct buf *out = &golden->out;
    tell_trace(golden, id);
    tell_applied(golden, id, before.applied);
    for (size_t i = before.wire; i < pump->wire.count; i++) {
        const struct raft_message *message = &pump->wire.items[i].message;
        buf_printf(out, "    %llu -> %llu ", LLU(message->from), LLU(message->to));
        show_message(out, message);
        if (i < before.wire + released) {
            buf_printf(out, " (held by #%llu)", LLU(seq));
        }
        buf_printf(out, "\n");
    }
    for (size_t i = before.writes; i < node->write_count; i++) {
        buf_printf(out, "    %llu writes ", LLU(id));
        show_write(out, &node->writes[i]);
        buf_printf(out, "\n");
    }
    for (size_t i = 0; i < node->read_count; i++) {
        const struct raft_read_ready *read = &node->reads[i];
        buf_printf(out, "    %llu read %llu ", LLU(id), LLU(read->context));
        if (read->error == ERR_OK) {
            buf_printf(out, "may be served once %llu is applied\n", LLU(read->index));
        } else {
            buf_printf(out, "fails: %s\n", err_name(read->error));
        }
    }
    node->read_count = 0;
}

void golden__collect_and_tell(struct golden *golden, uint64_t id, struct golden_before before)
{
    pump_collect(golden->pump, id);
    golden__tell(golden, id, before, 0, 0);
}
