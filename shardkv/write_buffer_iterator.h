/* Views and iterators of a write buffer: tables in memory over a store below. */
#ifndef SHARDKV_WRITE_BUFFER_ITERATOR_H
#define SHARDKV_WRITE_BUFFER_ITERATOR_H

#include "shardkv/recent_rows.h"

enum { WRITE_BUFFER_TABLES_MAX = 16 };

/* References to tables, the newest first. */
struct table_list {
    struct recent_rows *tables[WRITE_BUFFER_TABLES_MAX];
    size_t count;
};
void table_list_add(struct table_list *list, struct recent_rows *table); /* borrows; references */
void table_list_deinit(struct table_list *list);

struct store_view {
    struct store_view *below;
    struct table_list tables; /* closed ones */
};

/* What `tables` and the store below say of [from, to), the newest word on each key. `first`: the
 * rows of tables[0] in that range, where that one is still open (NULL: it is not); taken. */
struct store_iterator *write_buffer_iterator_create(const struct store *below,
                                                    const struct store_view *below_view,
                                                    const struct table_list *tables,
                                                    struct store_row_list *first, struct bytes from,
                                                    struct bytes to);
/* The view below ends with the iterator. */
void write_buffer_iterator_own_view(struct store_iterator *iterator, struct store_view *below_view);

bool write_buffer_iterator_valid(const struct store_iterator *iterator);
struct bytes write_buffer_iterator_key(const struct store_iterator *iterator);
struct bytes write_buffer_iterator_value(const struct store_iterator *iterator);
void write_buffer_iterator_next(struct store_iterator *iterator);
int write_buffer_iterator_error(const struct store_iterator *iterator);
void write_buffer_iterator_destroy(struct store_iterator *iterator);

#endif
