/* The rows of the range that are in memory are gathered once, the newest word on each key, and
 * merged with the iterator below. Where both have a key, memory's row is the newer. */
#include "shardkv/write_buffer_iterator.h"

#include <stdlib.h>

struct store_iterator {
    struct store below;
    struct store_view *view; /* ends with it; NULL: the caller's */
    struct store_iterator *under;
    struct table_list tables; /* keep the bytes of `rows` */
    struct store_row_list rows;
    size_t at;
    bool in_memory; /* the present row is rows[at] */
    bool valid;
};

void table_list_add(struct table_list *list, struct recent_rows *table)
{
    list->tables[list->count] = recent_rows_ref(table);
    list->count++;
}

void table_list_deinit(struct table_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        recent_rows_unref(list->tables[i]);
    }
    list->count = 0;
}

/* ---- the rows in memory ---- */

static int compare_rows(const void *a, const void *b)
{
    return bytes_compare(((const struct store_row *)a)->key, ((const struct store_row *)b)->key);
}

/* Two lists by ascending keys, each key once in either; the newer's word counts. Takes both. */
static struct store_row_list merge(struct store_row_list *newer, struct store_row_list *older)
{
    struct store_row_list out = {0};
    out.capacity = newer->count + older->count;
    if (out.capacity > 0) {
        out.rows = mem_alloc(out.capacity * sizeof out.rows[0]);
    }
    size_t i = 0;
    size_t j = 0;
    while (i < newer->count || j < older->count) {
        int order = i == newer->count   ? 1
                    : j == older->count ? -1
                                        : compare_rows(&newer->rows[i], &older->rows[j]);
        out.rows[out.count] = order <= 0 ? newer->rows[i] : older->rows[j];
        out.count++;
        i += order <= 0;
        j += order >= 0;
    }
    store_row_list_deinit(newer);
    store_row_list_deinit(older);
    return out;
}

static void sort_rows(struct store_row_list *list)
{
    if (list->count > 1) {
        qsort(list->rows, list->count, sizeof list->rows[0], compare_rows);
    }
}

static void gather(struct store_iterator *iterator, struct store_row_list *first, struct bytes from,
                   struct bytes to)
{
    if (first != NULL) {
        sort_rows(first);
        iterator->rows = *first;
        *first = (struct store_row_list){0};
    }
    for (size_t i = first != NULL ? 1 : 0; i < iterator->tables.count; i++) {
        struct store_row_list older = {0};
        recent_rows_gather(iterator->tables.tables[i], from, to, &older);
        sort_rows(&older);
        iterator->rows = merge(&iterator->rows, &older);
    }
}

/* ---- merging with what is below ---- */

/* To the row that is next, over those that are deleted. */
static void find_row(struct store_iterator *iterator)
{
    const struct store_ops *ops = iterator->below.ops;
    for (;;) {
        bool under = ops->iterator_valid(iterator->under);
        if (!under && ops->iterator_error(iterator->under) != 0) {
            iterator->valid = false; /* rows of memory alone would look like the whole */
            return;
        }
        if (iterator->at == iterator->rows.count) {
            iterator->in_memory = false;
            iterator->valid = under;
            return;
        }
        const struct store_row *row = &iterator->rows.rows[iterator->at];
        int order = under ? bytes_compare(row->key, ops->iterator_key(iterator->under)) : -1;
        if (order > 0) {
            iterator->in_memory = false;
            iterator->valid = true;
            return;
        }
        if (order == 0) {
            ops->iterator_next(iterator->under); /* an older word on the same key */
        }
        if (!row->deleted) {
            iterator->in_memory = true;
            iterator->valid = true;
            return;
        }
        iterator->at++;
    }
}

struct store_iterator *write_buffer_iterator_create(const struct store *below,
                                                    const struct store_view *below_view,
                                                    const struct table_list *tables,
                                                    struct store_row_list *first, struct bytes from,
                                                    struct bytes to)
{
    struct store_iterator *iterator = mem_calloc(1, sizeof *iterator);
    iterator->below = *below;
    iterator->under = below->ops->iterator_create(below->store, below_view, from, to);
    for (size_t i = 0; i < tables->count; i++) {
        table_list_add(&iterator->tables, tables->tables[i]);
    }
    gather(iterator, first, from, to);
    find_row(iterator);
    return iterator;
}

void write_buffer_iterator_own_view(struct store_iterator *iterator, struct store_view *below_view)
{
    iterator->view = below_view;
}

bool write_buffer_iterator_valid(const struct store_iterator *iterator)
{
    return iterator->valid;
}

struct bytes write_buffer_iterator_key(const struct store_iterator *iterator)
{
    return iterator->in_memory ? iterator->rows.rows[iterator->at].key
                               : iterator->below.ops->iterator_key(iterator->under);
}

struct bytes write_buffer_iterator_value(const struct store_iterator *iterator)
{
    return iterator->in_memory ? iterator->rows.rows[iterator->at].value
                               : iterator->below.ops->iterator_value(iterator->under);
}

void write_buffer_iterator_next(struct store_iterator *iterator)
{
    if (iterator->in_memory) {
        iterator->at++;
    } else {
        iterator->below.ops->iterator_next(iterator->under);
    }
    find_row(iterator);
}

int write_buffer_iterator_error(const struct store_iterator *iterator)
{
    return iterator->below.ops->iterator_error(iterator->under);
}

void write_buffer_iterator_destroy(struct store_iterator *iterator)
{
    if (iterator == NULL) {
        return;
    }
    iterator->below.ops->iterator_destroy(iterator->under);
    if (iterator->view != NULL) {
        iterator->below.ops->view_close(iterator->below.store, iterator->view);
    }
    table_list_deinit(&iterator->tables);
    store_row_list_deinit(&iterator->rows);
    free(iterator);
}
