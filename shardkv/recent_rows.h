/* Rows that were written lately, in memory: a hash table over an arena. It takes puts and deletes
 * while it is open; once closed it never changes, and any thread may look into it that holds a
 * reference. What a row once said stays readable as long as the table lives: a row that is
 * written again gets new bytes, the old ones are not touched. So a value found may be borrowed
 * beyond the lock that guarded the finding. */
#ifndef SHARDKV_RECENT_ROWS_H
#define SHARDKV_RECENT_ROWS_H

#include "shardkv/store.h"

struct recent_rows;

struct recent_rows *recent_rows_create(void); /* gives: one reference */
struct recent_rows *recent_rows_ref(struct recent_rows *rows);
void recent_rows_unref(struct recent_rows *rows); /* takes; NULL is fine */

/* The newest word on `key`; copies both. One thread at a time, and nobody looking. */
void recent_rows_put(struct recent_rows *rows, struct bytes key, struct bytes value);
void recent_rows_delete(struct recent_rows *rows, struct bytes key);

size_t recent_rows_count(const struct recent_rows *rows);
size_t recent_rows_bytes(const struct recent_rows *rows); /* all that it holds */
/* NULL: nothing is said here of `key`. The row is good until the next put or delete. */
const struct store_row *recent_rows_find(const struct recent_rows *rows, struct bytes key);

/* Appends to `out` the rows with keys in [from, to), `to` empty: to the end, in no order. */
struct store_row_list {
    struct store_row *rows;
    size_t count;
    size_t capacity;
};
void recent_rows_gather(const struct recent_rows *rows, struct bytes from, struct bytes to,
                        struct store_row_list *out);
void store_row_list_deinit(struct store_row_list *list);
/* All rows by ascending key; they live as long as `rows`. gives: free(). */
const struct store_row **recent_rows_sorted(const struct recent_rows *rows);

#endif
