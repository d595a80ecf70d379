/* A disk in memory that fails, lies and loses power: struct vfs for tests and for the simulator.
 * The code under test is the real one; only this is fake.
 *
 * What a crash may do. Bytes that were written and not synced are there or not, sector by sector
 * (512 bytes), each sector as some prefix of the writes to it left it; a size that was not synced
 * may be an older one. Names (create, rename, remove) are a journal: what no sync_dir made durable
 * survives as a prefix. A sync of a file does not make its name durable. After a failed sync the
 * kernel calls the pages clean: what did not reach the disk then never will, though reads still
 * show it.
 *
 * Deterministic: the same seed and the same calls give the same bytes. Thread-safe: one mutex, so
 * calls of several threads are as deterministic as their order. Paths are taken from one root; "/"
 * at the front and "." mean nothing. */
#ifndef TESTS_LIB_FAKE_VFS_H
#define TESTS_LIB_FAKE_VFS_H

#include "base/rng.h"
#include "base/vfs.h"

#define FAKE_SECTOR_BYTES 512u

struct fake_vfs;

enum fake_op {
    FAKE_OPEN,
    FAKE_READ,
    FAKE_WRITE,
    FAKE_SYNC,
    FAKE_TRUNCATE,
    FAKE_CREATE, /* an open that makes a file, or make_dir */
    FAKE_RENAME,
    FAKE_REMOVE, /* remove and remove_tree */
    FAKE_SYNC_DIR,
    FAKE_OP_COUNT,
};
const char *fake_op_name(enum fake_op op);

struct fake_vfs *fake_vfs_create(uint64_t seed); /* gives */
/* gives; what reads show here is durable there. No handles, faults or counts are copied. */
struct fake_vfs *fake_vfs_clone(struct fake_vfs *fake);
void fake_vfs_destroy(struct fake_vfs *fake); /* takes; every handle must be closed or forgotten */
const struct vfs *fake_vfs_vfs(struct fake_vfs *fake); /* lives as long as `fake` */

/* ---- power ---- */

enum fake_crash {
    FAKE_CRASH_ANY,    /* one of the next four, drawn */
    FAKE_CRASH_KEEP,   /* only the process died: nothing is lost, and nothing more durable */
    FAKE_CRASH_LOSE,   /* everything not synced is lost */
    FAKE_CRASH_TEAR,   /* each sector on its own; a prefix of the names */
    FAKE_CRASH_PREFIX, /* a prefix of each file's writes, the one at the cut torn; a prefix of the
                          names */
};

/* Loses power (or the process): every open handle is dead (its calls give ERR_IO; close it all the
 * same), locks are free, faults that were asked for are forgotten, and the disk works again. `rng`
 * may be NULL: the fake's own. */
void fake_vfs_crash(struct fake_vfs *fake, struct rng *rng);
void fake_vfs_crash_as(struct fake_vfs *fake, enum fake_crash how, struct rng *rng);

/* From now on every call fails with ERR_IO and changes nothing, until the next crash: the time
 * between the moment of the crash and the end of the process that has not noticed. */
void fake_vfs_halt(struct fake_vfs *fake);
bool fake_vfs_is_halted(struct fake_vfs *fake);
/* Halts in place of the n-th step from now (1: the next one). A step is a call that changes
 * something: all but open of an existing file and read. */
void fake_vfs_halt_at(struct fake_vfs *fake, uint64_t nth_step);

/* Called before each step, without a lock held; true: halt in place of it. */
typedef bool (*fake_crash_point_fn)(void *context, enum fake_op op, const char *path,
                                    uint64_t step);
void fake_vfs_set_crash_point(struct fake_vfs *fake, fake_crash_point_fn point, void *context);

/* ---- faults ---- */

/* The n-th call of this kind from now (1: the next) fails with `error`. A failed write may have
 * written a part; a failed sync may have reached the disk with some sectors. One fault a kind at a
 * time; 0 takes it back. */
void fake_vfs_fail(struct fake_vfs *fake, enum fake_op op, uint64_t nth, int error);
/* The n-th write or sync from now says OK and never reaches the disk (a read shows the write until
 * the next crash). */
void fake_vfs_lie(struct fake_vfs *fake, enum fake_op op, uint64_t nth);
/* Files may hold so many bytes in all; UINT64_MAX: no bound. What they hold over it stays. */
void fake_vfs_set_space(struct fake_vfs *fake, uint64_t bytes);
uint64_t fake_vfs_space_used(struct fake_vfs *fake);

/* Changes behind the program's back, on the disk and in what reads show. False: no such file, or
 * out of range. */
bool fake_vfs_flip_bit(struct fake_vfs *fake, const char *path, uint64_t bit);
bool fake_vfs_cut(struct fake_vfs *fake, const char *path, uint64_t size);
bool fake_vfs_poke(struct fake_vfs *fake, const char *path, uint64_t offset, struct bytes bytes);
/* Flips a bit of a file drawn among those below `dir`, not empty; its path goes to `path`. False:
 * there is none. */
bool fake_vfs_flip_random(struct fake_vfs *fake, const char *dir, struct rng *rng,
                          char path[VFS_PATH_BYTES_MAX], uint64_t *bit);

/* ---- looking ---- */

uint64_t fake_vfs_count(struct fake_vfs *fake, enum fake_op op); /* calls so far, failed ones too */
uint64_t fake_vfs_step_count(struct fake_vfs *fake);
uint64_t fake_vfs_fault_count(struct fake_vfs *fake); /* faults and lies that have struck */
bool fake_vfs_file_size(struct fake_vfs *fake, const char *path, uint64_t *size);
/* What reads show. */
bool fake_vfs_file_bytes(struct fake_vfs *fake, const char *path, struct buf *out);

#endif
