/* Opening a log, and the first start: what is in the directory, who looks at it, and what the
 * caller is told. Runs before any other thread knows the log.
 *
 *   list, base --> wal_recover_scan.c --> wal_recover_settle.c --> tell
 *          `-> no base: first start, or refused
 *
 * Nothing on disk is changed until the whole log was read and found good, so that a refused start
 * leaves the evidence as it was. */
#include "raft/wal/wal_opening.h"

#include "base/assert.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAL_ADVICE                                                                                 \
    "Nothing was changed. Keep the directory for inspection, and replace this replica: remove it " \
    "from its group, then add it again under a new id with an empty directory."

static void wal_numbers_push(struct wal_numbers *list, uint64_t number)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        list->numbers = mem_realloc(list->numbers, list->capacity * sizeof(list->numbers[0]));
    }
    list->numbers[list->count++] = number;
}

int wal__refuse(struct wal_opening *opening, int error, const char *name, uint64_t offset,
                const char *what)
{
    snprintf(opening->why, opening->why_size, "%s/%s, offset %" PRIu64 ": %s. %s",
             opening->wal->dir, name, offset, what,
             error == ERR_CORRUPT ? WAL_ADVICE : err_text(error));
    return error;
}

int wal__refuse_segment(struct wal_opening *opening, int error, uint64_t sequence, uint64_t offset,
                        const char *what)
{
    char name[WAL_NAME_BYTES_MAX];
    wal__name(name, sequence, WAL_SEGMENT_SUFFIX);
    return wal__refuse(opening, error, name, offset, what);
}

/* ---- what is there ---- */

static void wal_opening_name(void *context, const char *name)
{
    struct wal_opening *opening = context;
    uint64_t number;
    if (strlen(name) < 16) {
        return;
    }
    if (wal__name_parse(name, WAL_SEGMENT_SUFFIX, &number)) {
        wal_numbers_push(&opening->segments, number);
    } else if (wal__name_parse(name, WAL_SPARE_SUFFIX, &number)) {
        wal_numbers_push(&opening->spares, number);
    } else if (wal__name_parse(name, WAL_MAKING_SUFFIX, &number)) {
        wal_numbers_push(&opening->makings, number);
    }
}

int wal__opening_file(struct wal_opening *opening, uint64_t number, const char *suffix,
                      struct vfs_file **out)
{
    char name[WAL_NAME_BYTES_MAX];
    char path[VFS_PATH_BYTES_MAX];
    wal__name(name, number, suffix);
    int error = wal__path(opening->wal, name, path);
    if (error == ERR_OK) {
        error =
            opening->wal->vfs->open(opening->wal->vfs->context, path, VFS_READ | VFS_WRITE, out);
    }
    return error == ERR_OK ? ERR_OK : wal__refuse(opening, error, name, 0, "cannot be opened");
}

/* *found is false when there is no base file. */
static int wal_opening_base(struct wal_opening *opening, struct wal_base *base, bool *found)
{
    char path[VFS_PATH_BYTES_MAX];
    int error = wal__path(opening->wal, WAL_BASE_NAME, path);
    struct buf bytes;
    buf_init(&bytes);
    if (error == ERR_OK) {
        error = vfs_read_all(opening->wal->vfs, path, WAL_BASE_BYTES_MAX, &bytes);
    }
    *found = error != ERR_NOT_FOUND;
    if (error == ERR_NOT_FOUND) {
        error = ERR_OK;
    } else if (error == ERR_OK || error == ERR_TOO_LARGE) {
        error = error == ERR_OK ? wal_base_decode(buf_view(&bytes), base) : ERR_CORRUPT;
        if (error != ERR_OK) {
            error = wal__refuse(opening, error, WAL_BASE_NAME, 0, "the file fails its checks");
        }
    } else {
        error = wal__refuse(opening, error, WAL_BASE_NAME, 0, "cannot be read");
    }
    buf_deinit(&bytes);
    return error;
}

/* ---- first start ---- */

/* Without a base only a log that was never finished is taken for a fresh one. */
static int wal_opening_fresh_check(struct wal_opening *opening)
{
    if (opening->segments.count == 0) {
        return ERR_OK;
    }
    bool never_finished = opening->segments.count == 1 && opening->segments.numbers[0] == 1;
    if (never_finished) {
        bool valid;
        int error = wal__opening_segment(opening, 1, &valid);
        if (error != ERR_OK) {
            return error;
        }
        if (valid) {
            struct wal_group_check check;
            const struct wal_segment *segment = wal__active(opening->wal);
            error = wal__opening_check(opening, segment, WAL_SEGMENT_DATA_AT, &check);
            if (error != ERR_OK) {
                return error;
            }
            never_finished =
                wal__segment_begins(segment) && (!check.valid || wal_group_is_mark(&check.header));
            opening->dropped = wal__active(opening->wal);
            opening->wal->segment_count = 0;
        }
    }
    return never_finished ? ERR_OK
                          : wal__refuse(opening, ERR_CORRUPT, WAL_BASE_NAME, 0,
                                        "the file is missing, but there are segments");
}

static int wal_opening_fresh(struct wal_opening *opening, const struct raft_membership *bootstrap)
{
    struct wal *wal = opening->wal;
    int error = wal_opening_fresh_check(opening);
    if (error != ERR_OK) {
        return error;
    }
    wal__segment_destroy(wal, opening->dropped);
    opening->dropped = NULL;
    struct raft_position origin = {0, 0};
    if (bootstrap != NULL) {
        wal->membership = *bootstrap;
    }
    wal->membership.position = origin;
    wal_index_init(&wal->index, origin);
    error = wal__opening_spares(opening);
    struct wal_segment *segment = NULL;
    if (error == ERR_OK) {
        error = wal__segment_begin(wal, 0, 1, WAL_SEGMENT_BEGINS_LOG, origin, &segment);
    }
    if (error == ERR_OK) {
        wal__segments_push(wal, segment);
        wal->durable_to = WAL_SEGMENT_DATA_AT;
        error = wal->vfs->sync(wal->vfs->context, segment->file);
    }
    if (error == ERR_OK) {
        error = wal__base_write(wal, origin, 1, &wal->membership);
    }
    if (error != ERR_OK && opening->why[0] == '\0') {
        snprintf(opening->why, opening->why_size, "%s: the log cannot be created: %s", wal->dir,
                 err_text(error));
    }
    return error;
}

/* ---- open, close ---- */

struct wal_options wal_options_default(void)
{
    return (struct wal_options){
        .segment_bytes = 64ull * 1024 * 1024,
        .spare_segments = 2,
        .recycled_max = 2,
        .entry_bytes_max = 20ull * 1024 * 1024,
        .prewrite = true,
    };
}

static struct wal *wal_create(const struct vfs *vfs, const char *dir,
                              const struct wal_options *options)
{
    ASSERT_CMP(options->segment_bytes, >=, WAL_SEGMENT_BYTES_MIN);
    ASSERT(options->spare_segments >= 1 && options->recycled_max >= options->spare_segments);
    ASSERT_CMP(options->recycled_max, <=, WAL_SPARES_MAX);
    ASSERT_CMP(options->entry_bytes_max, <, WAL_GROUP_BODY_BYTES_MAX);
    struct wal *wal = mem_calloc(1, sizeof(*wal));
    wal->vfs = vfs;
    wal->dir = mem_strdup(dir);
    wal->options = *options;
    wal->options.segment_bytes =
        (options->segment_bytes + WAL_FILE_ALIGN_BYTES - 1) & ~(uint64_t)(WAL_FILE_ALIGN_BYTES - 1);
    wal->next_spare_number = 1;
    rng_init(&wal->rng, options->seed != 0 ? options->seed : rng_seed_from_system());
    pthread_mutex_init(&wal->lock, NULL);
    return wal;
}

void wal_close(struct wal *wal)
{
    if (wal == NULL) {
        return;
    }
    for (size_t i = 0; i < wal->segment_count; i++) {
        wal__segment_destroy(wal, wal->segments[i]);
    }
    for (size_t i = 0; i < wal->retired_count; i++) {
        wal__segment_destroy(wal, wal->retired[i]);
    }
    for (uint32_t i = 0; i < wal->spare_count; i++) {
        (void)wal->vfs->close(wal->vfs->context, wal->spares[i].file);
    }
    wal_index_deinit(&wal->index);
    buf_deinit(&wal->staging);
    pthread_mutex_destroy(&wal->lock);
    free(wal->segments);
    free(wal->retired);
    free(wal->dir);
    free(wal);
}

/* What raft_core_create needs; the tail is read back through the index just built. */
static int wal_opening_tell(struct wal_opening *opening, bool fresh, struct wal_recovery *out)
{
    struct wal *wal = opening->wal;
    struct wal_replay *replay = &opening->replay;
    out->fresh = fresh;
    out->hard_state = wal->hard_state;
    out->base = wal->index.base;
    out->membership = wal->membership;
    out->last = wal->index.last;
    out->torn_bytes_cut = opening->torn_bytes;
    out->term_run_count = wal->index.term_run_count;
    if (out->term_run_count > 0) {
        out->term_runs =
            mem_dup(wal->index.term_runs, out->term_run_count * sizeof(out->term_runs[0]));
    }
    out->memberships = replay->memberships;
    out->membership_count = replay->membership_count;
    replay->memberships = NULL;
    size_t tail_count = replay->tail_end - replay->tail_head;
    if (tail_count == 0) {
        return ERR_OK;
    }
    int error = wal_read(wal, out->last.index - tail_count + 1, out->last.index, UINT64_MAX,
                         &out->tail, &out->tail_count);
    if (error != ERR_OK) {
        snprintf(opening->why, opening->why_size, "%s: the newest entries cannot be read: %s",
                 wal->dir, err_text(error));
    }
    return error;
}

static int wal_opening_run(struct wal_opening *opening, const struct raft_membership *bootstrap,
                           uint64_t tail_bytes_max, struct wal_recovery *recovery)
{
    struct wal *wal = opening->wal;
    int error = wal->vfs->list(wal->vfs->context, wal->dir, wal_opening_name, opening);
    if (error != ERR_OK) {
        return wal__refuse(opening, error, "", 0, "the directory cannot be listed");
    }
    struct wal_base base;
    bool found;
    error = wal_opening_base(opening, &base, &found);
    if (error != ERR_OK) {
        return error;
    }
    if (!found) {
        error = wal_opening_fresh(opening, bootstrap);
    } else {
        error = wal__opening_segments(opening, base.first_sequence);
        if (error == ERR_OK) {
            error = wal__opening_log(opening, &base, tail_bytes_max);
        }
        if (error == ERR_OK) {
            error = wal__opening_settle(opening, base.first_sequence);
        }
    }
    return error == ERR_OK ? wal_opening_tell(opening, !found, recovery) : error;
}

int wal_open(const struct vfs *vfs, const char *dir, const struct wal_options *options,
             const struct raft_membership *bootstrap, uint64_t tail_bytes_max, struct wal **out,
             struct wal_recovery *recovery, char *why, size_t why_size)
{
    ASSERT_CMP(why_size, >, 0);
    why[0] = '\0';
    *out = NULL;
    *recovery = (struct wal_recovery){0};
    struct wal_opening opening = {
        .wal = wal_create(vfs, dir, options), .why = why, .why_size = why_size};
    wal__stream_init(&opening.stream, vfs, WAL_STREAM_BYTES);
    int error = wal_opening_run(&opening, bootstrap, tail_bytes_max, recovery);
    wal__stream_deinit(&opening.stream);
    wal__replay_deinit(&opening.replay);
    wal__segment_destroy(opening.wal, opening.dropped);
    free(opening.segments.numbers);
    free(opening.spares.numbers);
    free(opening.makings.numbers);
    if (error != ERR_OK) {
        wal_recovery_free(recovery);
        wal_close(opening.wal);
        return error;
    }
    LOG_DBG("wal.opened", "dir=%s base=%" PRIu64 " last=%" PRIu64 " segments=%zu", dir,
            recovery->base.index, recovery->last.index, opening.wal->segment_count);
    *out = opening.wal;
    return ERR_OK;
}

void wal_recovery_free(struct wal_recovery *recovery)
{
    free(recovery->term_runs);
    free(recovery->memberships);
    wal_entries_free(recovery->tail, recovery->tail_count);
    *recovery = (struct wal_recovery){0};
}
