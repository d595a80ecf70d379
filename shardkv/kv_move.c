/* The source's side of a move: reading a frozen shard, off the apply thread.
 *
 * Everything is read in one view of the store, the shard's record too, so what is sent was frozen
 * under that very config; that apply goes on meanwhile, and may even drop the shard, changes
 * nothing in the view. A frozen shard's rows never change, so slices read in different views fit
 * together. */
#include "shardkv/kv_machine_internal.h"

#include "base/codec.h"
#include "shardkv/move_rows.h"

#include <string.h>

void kv__gate_wait(struct kv_machine *machine)
{
    int failed = pthread_rwlock_rdlock(&machine->gate);
    ASSERT(failed == 0);
}

int kv__gate_enter(struct kv_machine *machine)
{
    if (atomic_load(&machine->replacing)) {
        return ERR_BUSY;
    }
    kv__gate_wait(machine);
    return 0;
}

void kv__gate_leave(struct kv_machine *machine)
{
    pthread_rwlock_unlock(&machine->gate);
}

int kv_move_check(struct kv_machine *machine, uint32_t shard, uint64_t number, uint64_t to_group)
{
    struct kv_table *table = kv_machine_table(machine);
    int error = 0;
    if (table->config_number < number) {
        error = ERR_CONFIG_BEHIND;
    } else if (shard >= table->shard_count) {
        error = ERR_SHARD_RANGE;
    } else {
        error = kv__source_check(&table->shards[shard], table->config_number, number, to_group);
    }
    kv_table_unref(table);
    return error;
}

/* ---- rows of a frozen shard, in order
 * ------------------------------------------------------------------------ */

struct row_cursor {
    struct kv_machine *machine;
    struct store_view *view;
    struct store_iterator
        *iterator; /* over the space it stands in; NULL: at the counter's row or past it */
    uint32_t shard;
    enum key_space space; /* DATA, SESSION, then ROW_SPACE_VERSION */
    bool past_end;
    struct shard_record record;
    struct store_key key; /* the present row */
    struct bytes value;   /* until the next step */
    struct buf packed;
};

static int cursor_load_record(struct row_cursor *cursor)
{
    struct kv_machine *machine = cursor->machine;
    struct store_key key;
    struct store_value value;
    key_of_shard(cursor->shard, &key);
    int error =
        machine->store.ops->get(machine->store.store, cursor->view, store_key_view(&key), &value);
    if (error == ERR_NOT_FOUND) {
        return 0; /* ABSENT */
    }
    if (error == 0) {
        error = shard_record_decode(value.bytes, &cursor->record);
        machine->store.ops->value_release(machine->store.store, &value);
    }
    return error;
}

/* Makes the iterator of `space`, just after store key `after` when it is not empty. */
static void cursor_enter(struct row_cursor *cursor, enum key_space space,
                         const struct store_key *after)
{
    const struct store_ops *ops = cursor->machine->store.ops;
    struct store_key from;
    struct store_key to;
    ops->iterator_destroy(cursor->iterator);
    cursor->iterator = NULL;
    cursor->space = space;
    if (space == ROW_SPACE_VERSION) {
        return;
    }
    key_range(space, cursor->shard, &from, &to);
    if (after != NULL) {
        from = *after;
        from.data[from.size] = 0;
        from.size++;
    }
    cursor->iterator = ops->iterator_create(cursor->machine->store.store, cursor->view,
                                            store_key_view(&from), store_key_view(&to));
}

static int cursor_seek(struct row_cursor *cursor, struct bytes after_row)
{
    struct store_key after;
    if (after_row.size == 0) {
        cursor_enter(cursor, KEY_SPACE_DATA, NULL);
    } else if (after_row.size == 1 && after_row.data[0] == ROW_SPACE_VERSION) {
        cursor->space = ROW_SPACE_VERSION;
        cursor->past_end = true;
    } else if (key_of_row(cursor->shard, after_row, &after)) {
        cursor_enter(cursor, (enum key_space)after_row.data[0], &after);
    } else {
        return ERR_INVALID;
    }
    return 0;
}

static int cursor_open(struct row_cursor *cursor, struct kv_machine *machine, uint32_t shard,
                       uint64_t number, uint64_t to_group, struct bytes after_row)
{
    memset(cursor, 0, sizeof *cursor);
    cursor->machine = machine;
    cursor->shard = shard;
    int error = kv_move_check(machine, shard, number, to_group);
    if (error != 0) {
        return error;
    }
    cursor->view = machine->store.ops->view_open(machine->store.store);
    error = cursor_load_record(cursor);
    if (error == 0) {
        error = kv__source_check(&cursor->record, number, number, to_group);
    }
    return error != 0 ? error : cursor_seek(cursor, after_row);
}

static void cursor_close(struct row_cursor *cursor)
{
    const struct store_ops *ops = cursor->machine->store.ops;
    ops->iterator_destroy(cursor->iterator);
    if (cursor->view != NULL) {
        ops->view_close(cursor->machine->store.store, cursor->view);
    }
    shard_record_clear(&cursor->record);
    buf_deinit(&cursor->packed);
}

static int cursor_take(struct row_cursor *cursor)
{
    const struct store_ops *ops = cursor->machine->store.ops;
    row_key_of(ops->iterator_key(cursor->iterator), &cursor->key);
    cursor->value = ops->iterator_value(cursor->iterator);
    if (cursor->space == KEY_SPACE_SESSION) {
        buf_clear(&cursor->packed);
        int error = move_session_pack(cursor->value, cursor->record.frozen_ms, &cursor->packed);
        cursor->value = buf_view(&cursor->packed);
        return error;
    }
    return 0;
}

/* Sets key and value to the row the cursor stands at; ERR_NOT_FOUND past the last. */
static int cursor_row(struct row_cursor *cursor)
{
    const struct store_ops *ops = cursor->machine->store.ops;
    while (cursor->iterator != NULL) {
        if (ops->iterator_valid(cursor->iterator)) {
            return cursor_take(cursor);
        }
        int error = ops->iterator_error(cursor->iterator);
        if (error != 0) {
            return error;
        }
        cursor_enter(cursor,
                     cursor->space == KEY_SPACE_DATA ? KEY_SPACE_SESSION : ROW_SPACE_VERSION, NULL);
    }
    if (cursor->past_end) {
        return ERR_NOT_FOUND;
    }
    cursor->key.data[0] = ROW_SPACE_VERSION;
    cursor->key.size = 1;
    buf_clear(&cursor->packed);
    put_varint(&cursor->packed, cursor->record.version);
    cursor->value = buf_view(&cursor->packed);
    return 0;
}

static void cursor_advance(struct row_cursor *cursor)
{
    if (cursor->iterator != NULL) {
        cursor->machine->store.ops->iterator_next(cursor->iterator);
    } else {
        cursor->past_end = true;
    }
}

/* ---- Read and Freeze
 * ----------------------------------------------------------------------------------------- */

int kv_move_read(struct kv_machine *machine, uint32_t shard, uint64_t number, uint64_t to_group,
                 struct bytes after_row, size_t bytes_max, struct kv_move_rows *out)
{
    buf_clear(&out->rows);
    buf_clear(&out->last_row);
    out->end = false;
    int error = kv__gate_enter(machine);
    if (error != 0) {
        return error;
    }
    struct row_cursor cursor;
    error = cursor_open(&cursor, machine, shard, number, to_group, after_row);
    while (error == 0 && (error = cursor_row(&cursor)) == 0) {
        struct bytes key = store_key_view(&cursor.key);
        size_t more = move_row_bytes(key, cursor.value);
        if (out->rows.size > 0 &&
            (out->rows.size >= bytes_max || more > bytes_max - out->rows.size)) {
            break;
        }
        move_row_put(&out->rows, key, cursor.value);
        buf_clear(&out->last_row);
        buf_append_bytes(&out->last_row, key);
        cursor_advance(&cursor);
    }
    if (error == ERR_NOT_FOUND && cursor.past_end) {
        out->end = true;
        error = 0;
    }
    cursor_close(&cursor);
    kv__gate_leave(machine);
    return error;
}

void kv_move_scan_init(struct kv_move_scan *scan, uint32_t shard, uint64_t number,
                       uint64_t to_group)
{
    *scan = (struct kv_move_scan){.shard = shard, .number = number, .to_group = to_group};
}

void kv_move_scan_deinit(struct kv_move_scan *scan)
{
    buf_deinit(&scan->after_row);
}

int kv_move_scan_step(struct kv_machine *machine, struct kv_move_scan *scan, uint32_t rows_max)
{
    int error = kv__gate_enter(machine);
    if (error != 0) {
        return error;
    }
    struct row_cursor cursor;
    error = cursor_open(&cursor, machine, scan->shard, scan->number, scan->to_group,
                        buf_view(&scan->after_row));
    for (uint32_t i = 0; i < rows_max && error == 0; i++) {
        error = cursor_row(&cursor);
        if (error != 0) {
            break;
        }
        struct bytes key = store_key_view(&cursor.key);
        scan->rows++;
        scan->bytes += key.size + cursor.value.size;
        scan->checksum += move_row_hash(key, cursor.value);
        buf_clear(&scan->after_row);
        buf_append_bytes(&scan->after_row, key);
        cursor_advance(&cursor);
    }
    if (error == ERR_NOT_FOUND && cursor.past_end) {
        scan->done = true;
        error = 0;
    }
    cursor_close(&cursor);
    kv__gate_leave(machine);
    return error;
}

/* ---- sizes, for status
 * --------------------------------------------------------------------------------------- */

int kv_machine_shard_size(struct kv_machine *machine, uint32_t shard, uint32_t rows_max,
                          struct kv_shard_size *out)
{
    const struct store_ops *ops = machine->store.ops;
    *out = (struct kv_shard_size){0};
    int error = kv__gate_enter(machine);
    if (error != 0) {
        return error;
    }
    struct store_key from;
    struct store_key to;
    key_range(KEY_SPACE_DATA, shard, &from, &to);
    struct store_iterator *iterator = ops->iterator_create(
        machine->store.store, NULL, store_key_view(&from), store_key_view(&to));
    while (out->keys < rows_max && out->bytes < KV_SIZE_BYTES_COUNTED_MAX &&
           ops->iterator_valid(iterator)) {
        out->keys++;
        out->bytes += ops->iterator_key(iterator).size - KEY_PREFIX_BYTES +
                      ops->iterator_value(iterator).size;
        ops->iterator_next(iterator);
    }
    error = ops->iterator_error(iterator);
    if (error == 0 && ops->iterator_valid(iterator)) { /* more than was counted */
        uint64_t bytes = ops->approximate_bytes(machine->store.store, store_key_view(&from),
                                                store_key_view(&to));
        if (bytes > out->bytes) {
            out->keys = (uint64_t)((double)out->keys * ((double)bytes / (double)out->bytes));
            out->bytes = bytes;
        }
    }
    ops->iterator_destroy(iterator);
    kv__gate_leave(machine);
    return error;
}
