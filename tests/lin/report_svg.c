/* The failing part as a timeline; see report.h. Time runs to the right by the order of events, not
 * to scale: what matters is which operation was over before which began. Every bar has its numbers
 * in a tooltip (<title>). */
#include "lin/report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    EVENT_WIDTH_MIN = 26,
    PICTURE_WIDTH_MIN = 1120,
    LEFT = 110,
    RIGHT = 40,
    TOP = 92,
    ROW_HEIGHT = 44,
    BAR_HEIGHT = 26,
    LEGEND_HEIGHT = 56,
    LETTER_WIDTH = 7, /* of the 12 px monospace font, rounded up */
    ROWS_MAX = 200,   /* a picture with more is not read by anybody */
};

struct svg_event {
    uint64_t at_ns;
    bool is_return;
    size_t op;
};

struct bar {
    size_t row;
    size_t from, to; /* ranks of its events */
};

struct picture {
    const struct lin_failure *failure;
    struct bar *bars;
    uint64_t *rows; /* processes */
    size_t row_count;
    uint64_t *ticks; /* time of each rank */
    size_t rank_count;
    int event_width;
};

static int by_time(const void *a, const void *b)
{
    const struct svg_event *x = a;
    const struct svg_event *y = b;
    if (x->at_ns != y->at_ns) {
        return x->at_ns < y->at_ns ? -1 : 1;
    }
    if (x->is_return != y->is_return) {
        return x->is_return ? 1 : -1;
    }
    return x->op < y->op ? -1 : x->op > y->op;
}

/* Rows by process, but an operation that overlaps another of its process (one of unknown outcome,
 * after which the process went on) gets a row of its own. */
static void lay_out(struct picture *picture)
{
    const struct lin_failure *failure = picture->failure;
    size_t count = failure->core_count;
    struct svg_event *events = mem_calloc(2 * count, sizeof *events);
    size_t event_count = 0;
    for (size_t i = 0; i < count; i++) {
        events[event_count++] = (struct svg_event){failure->core[i].called_ns, false, i};
        if (failure->core[i].returned_ns != LIN_NEVER) {
            events[event_count++] = (struct svg_event){failure->core[i].returned_ns, true, i};
        }
    }
    qsort(events, event_count, sizeof *events, by_time);
    picture->ticks = mem_calloc(event_count, sizeof picture->ticks[0]);
    picture->rank_count = event_count;
    for (size_t i = 0; i < count; i++) {
        picture->bars[i].to = event_count;
    }
    for (size_t rank = 0; rank < event_count; rank++) {
        struct bar *bar = &picture->bars[events[rank].op];
        picture->ticks[rank] = events[rank].at_ns;
        if (events[rank].is_return) {
            bar->to = rank;
        } else {
            bar->from = rank;
        }
    }
    free(events);
    size_t *busy = mem_calloc(count, sizeof *busy); /* by row: one more than the last rank taken */
    for (size_t i = 0; i < count; i++) {
        uint64_t process = failure->core[i].process;
        size_t row = 0;
        while (row < picture->row_count &&
               (picture->rows[row] != process || busy[row] > picture->bars[i].from)) {
            row++;
        }
        if (row == picture->row_count) {
            picture->rows[picture->row_count++] = process;
        }
        picture->bars[i].row = row;
        busy[row] = picture->bars[i].to + 1;
    }
    free(busy);
}

static void put_text(struct buf *out, struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        switch (text.data[i]) {
        case '<':
            buf_printf(out, "&lt;");
            break;
        case '>':
            buf_printf(out, "&gt;");
            break;
        case '&':
            buf_printf(out, "&amp;");
            break;
        case '"':
            buf_printf(out, "&quot;");
            break;
        default:
            buf_append(out, &text.data[i], 1);
        }
    }
}

static const char *color_of(enum lin_kind kind)
{
    switch (kind) {
    case LIN_GET:
        return "#cfe2f3";
    case LIN_PUT:
        return "#d9ead3";
    case LIN_APPEND:
        return "#fff2cc";
    case LIN_DELETE:
        return "#e6e6e6";
    case LIN_CAS:
        return "#ead1dc";
    case LIN_SEEN:
        return "#d0e0e3";
    }
    return "#ffffff";
}

static size_t x_of(const struct picture *picture, size_t rank)
{
    return LEFT + (size_t)picture->event_width * rank + (size_t)picture->event_width / 2;
}

/* Bars must be wide enough for their texts, or nearly so. */
static void choose_width(struct picture *picture)
{
    size_t width = EVENT_WIDTH_MIN;
    for (size_t i = 0; i < picture->failure->core_count; i++) {
        struct buf text;
        buf_init(&text);
        lin_describe_op(&picture->failure->core[i], &text);
        size_t needed = (text.size + 1) * LETTER_WIDTH;
        size_t events = picture->bars[i].to - picture->bars[i].from;
        size_t each = events > 0 ? needed / events + 1 : needed;
        width = each > width ? each : width;
        buf_deinit(&text);
    }
    size_t widest = picture->rank_count > 100  ? EVENT_WIDTH_MIN
                    : picture->rank_count > 12 ? 90
                                               : 220;
    width = width > widest ? widest : width;
    picture->event_width = (int)width;
}

static void draw_bar(const struct picture *picture, size_t index, struct buf *out)
{
    const struct lin_op *op = &picture->failure->core[index];
    const struct bar *bar = &picture->bars[index];
    const struct lin_op *culprit = picture->failure->culprit;
    bool open = op->returned_ns == LIN_NEVER;
    bool guilty = culprit != NULL && op->kind == culprit->kind && op->process == culprit->process &&
                  op->called_ns == culprit->called_ns && op->line == culprit->line;
    size_t left = x_of(picture, bar->from);
    size_t right = x_of(picture, bar->to);
    size_t top = TOP + bar->row * ROW_HEIGHT + (ROW_HEIGHT - BAR_HEIGHT) / 2;
    struct buf text;
    buf_init(&text);
    lin_describe_op(op, &text);
    buf_printf(out, "<g><title>process %" PRIu64 ": ", op->process);
    put_text(out, buf_view(&text));
    buf_printf(out, "; called %" PRIu64, op->called_ns);
    if (open) {
        buf_printf(out, "; return not seen, or of no matter");
    } else {
        buf_printf(out, "; returned %" PRIu64, op->returned_ns);
    }
    if (op->line > 0) {
        buf_printf(out, "; line %" PRIu64, op->line);
    }
    buf_printf(out,
               "</title><rect x=\"%zu\" y=\"%zu\" width=\"%zu\" height=\"%d\" rx=\"3\" fill=\"%s\" "
               "stroke=\"%s\" stroke-width=\"%s\"%s/>\n",
               left, top, right > left ? right - left : 1, BAR_HEIGHT, color_of(op->kind),
               guilty ? "#cc0000" : "#555555", guilty ? "3" : "1",
               open ? " stroke-dasharray=\"5 3\"" : "");
    if (open) {
        buf_printf(out, "<path d=\"M %zu %zu l 8 %d l -8 %d\" fill=\"none\" stroke=\"#555555\"/>\n",
                   right, top, BAR_HEIGHT / 2, BAR_HEIGHT / 2);
    }
    buf_printf(out, "<text x=\"%zu\" y=\"%zu\"%s>", left + 5, top + 17,
               guilty ? " fill=\"#cc0000\"" : "");
    put_text(out, buf_view(&text));
    buf_printf(out, "</text></g>\n");
    buf_deinit(&text);
}

static void draw_grid(const struct picture *picture, struct buf *out)
{
    size_t bottom = TOP + picture->row_count * ROW_HEIGHT;
    for (size_t rank = 0; rank < picture->rank_count; rank++) {
        buf_printf(
            out,
            "<line x1=\"%zu\" y1=\"%d\" x2=\"%zu\" y2=\"%zu\" stroke=\"#eeeeee\"><title>time "
            "%" PRIu64 "</title></line>\n",
            x_of(picture, rank), TOP - 6, x_of(picture, rank), bottom, picture->ticks[rank]);
    }
    for (size_t row = 0; row < picture->row_count; row++) {
        buf_printf(out, "<text x=\"8\" y=\"%zu\">process %" PRIu64 "</text>\n",
                   TOP + row * ROW_HEIGHT + ROW_HEIGHT / 2 + 4, picture->rows[row]);
    }
    if (picture->rank_count > 0) {
        buf_printf(out,
                   "<text x=\"%d\" y=\"%d\" fill=\"#777777\">time %" PRIu64 " to %" PRIu64
                   ", by order of events, not to scale</text>\n",
                   LEFT, TOP - 14, picture->ticks[0], picture->ticks[picture->rank_count - 1]);
    }
}

static void draw_head(const struct lin_result *result, size_t width, size_t height, struct buf *out)
{
    const struct lin_failure *failure = &result->failure;
    buf_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%zu\" height=\"%zu\" "
               "font-family=\"monospace\" font-size=\"12\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
               "<text x=\"8\" y=\"24\" font-size=\"16\" font-weight=\"bold\">%s",
               width, height, lin_verdict_name(result->verdict));
    if (result->verdict == LIN_BROKEN) {
        struct buf key;
        buf_init(&key);
        lin_describe_bytes(failure->key, &key);
        buf_printf(out, ": key ");
        put_text(out, buf_view(&key));
        buf_deinit(&key);
    }
    buf_printf(out, "</text>\n");
    if (failure->core_count > 0) {
        buf_printf(out, "<text x=\"8\" y=\"46\">");
        put_text(out, bytes_of_string(lin_failure_text(failure)));
        buf_printf(out, " (%zu of the key's %zu.)</text>\n", failure->core_count, failure->key_ops);
    } else if (result->verdict == LIN_UNKNOWN) {
        buf_printf(out, "<text x=\"8\" y=\"46\">The limit of %s was reached.</text>\n",
                   lin_spent_name(result->spent));
    }
}

void lin_report_svg(const struct lin_result *result, struct buf *out)
{
    const struct lin_failure *failure = &result->failure;
    struct picture picture = {.failure = failure};
    picture.bars = mem_calloc(failure->core_count, sizeof picture.bars[0]);
    picture.rows = mem_calloc(failure->core_count, sizeof picture.rows[0]);
    lay_out(&picture);
    choose_width(&picture);
    size_t shown_rows = picture.row_count < ROWS_MAX ? picture.row_count : ROWS_MAX;
    bool cut = shown_rows < picture.row_count;
    picture.row_count = shown_rows;
    size_t width = x_of(&picture, picture.rank_count) + RIGHT;
    width = width < PICTURE_WIDTH_MIN ? PICTURE_WIDTH_MIN : width;
    size_t bottom = TOP + shown_rows * ROW_HEIGHT;
    draw_head(result, width, bottom + LEGEND_HEIGHT, out);
    draw_grid(&picture, out);
    for (size_t i = 0; i < failure->core_count; i++) {
        if (picture.bars[i].row < shown_rows) {
            draw_bar(&picture, i, out);
        }
    }
    if (failure->core_count > 0) {
        buf_printf(
            out,
            "<text x=\"8\" y=\"%zu\" fill=\"#777777\">A bar runs from call to return; "
            "dashed with an "
            "arrow: it may take effect at any time after its call; red: its answer cannot be "
            "placed.%s</text>\n",
            bottom + 28, cut ? " More rows are not shown." : "");
    }
    buf_printf(out, "</svg>\n");
    free(picture.bars);
    free(picture.rows);
    free(picture.ticks);
}
