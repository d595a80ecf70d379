/* What the tests of failing disks and clocks put under a real server: a library that is preloaded
 * (shim.c) and a block of memory shared with it, through which the test says at any moment what is
 * to happen and sees what did.
 *
 * Every call that changes what is on the disk, below the process's data directory, is a point. A
 * point has a class (what the file is to the product, by its name) and a kind (what is done to it).
 * Each is counted; a rule acts on the n-th one that matches from when it was armed: the process is
 * killed before, in the middle of, or after it, or the call fails, or takes long.
 *
 * The clocks: CLOCK_MONOTONIC runs at a rate of the test's choice, without ever jumping;
 * CLOCK_REALTIME is moved by any amount, as the product's own code sees it (its libraries hand
 * deadlines of that clock to the kernel, which knows nothing of this). */
#ifndef TESTS_FAULT_SHIM_H
#define TESTS_FAULT_SHIM_H

#include <stdatomic.h>
#include <stdint.h>

enum shim_class {
    SHIM_WAL_BASE,
    SHIM_WAL_SEGMENT,
    SHIM_WAL_SPARE,
    SHIM_WAL_DIR,
    SHIM_SNAPSHOT_IN,
    SHIM_SNAPSHOT_READY,
    SHIM_SNAPSHOT_OUT,
    SHIM_SNAPSHOT_DIR,
    SHIM_STATE_TABLE,
    SHIM_STATE_MANIFEST,
    SHIM_STATE_OTHER, /* CURRENT, OPTIONS and the like */
    SHIM_STATE_DIR,
    SHIM_CONFIG, /* the controllers' state */
    SHIM_IDENTITY,
    SHIM_ROOT, /* the data directory itself */
    SHIM_STRANGER,
    SHIM_CLASSES,
};
#define SHIM_CLASS_NAMES                                                                           \
    "wal-base", "wal-segment", "wal-spare", "wal-dir", "snapshot-in", "snapshot-ready",            \
        "snapshot-out", "snapshot-dir", "state-table", "state-manifest", "state-other",            \
        "state-dir", "config", "identity", "root", "stranger"

enum shim_kind {
    SHIM_CREATE,
    SHIM_WRITE,
    SHIM_SYNC,
    SHIM_RENAME,
    SHIM_LINK,
    SHIM_UNLINK, /* also of directories */
    SHIM_TRUNCATE,
    SHIM_MKDIR,
    SHIM_KINDS,
};
#define SHIM_KIND_NAMES "create", "write", "sync", "rename", "link", "unlink", "truncate", "mkdir"

enum shim_action {
    SHIM_KILL_BEFORE,
    SHIM_KILL_HALF, /* of a write: its first half is done; otherwise like KILL_BEFORE */
    SHIM_KILL_AFTER,
    SHIM_FAIL_ONCE,
    SHIM_FAIL_ALWAYS, /* from that point on */
    SHIM_DELAY_ONCE,
};

struct shim_rule {
    atomic_uint armed; /* written last: what follows is valid while it is 1 */
    uint32_t classes;  /* bits */
    uint32_t kinds;    /* bits */
    uint32_t action;
    int32_t error; /* errno */
    uint32_t delay_ms;
    atomic_int_fast64_t left; /* acts when this goes from 1 to 0 */
    atomic_uint hits;
};

enum { SHIM_RULES = 4 };

struct shim_control {
    uint64_t magic;
    atomic_uint attached;       /* how many processes have found this block */
    atomic_uint syncs_are_lies; /* syncs say that all went well and do nothing */
    atomic_uint_fast64_t counts[SHIM_CLASSES][SHIM_KINDS];
    struct shim_rule rules[SHIM_RULES];

    /* monotonic = to + (kernel's - from) * rate, while clock_version is even and not 0 */
    atomic_uint clock_version;
    uint64_t clock_from_ns, clock_to_ns;
    double clock_rate;
    atomic_int_fast64_t wall_offset_ns;
};

#define SHIM_MAGIC       0x314d494853544c46ull
#define SHIM_ENV_CONTROL "FAULT_SHIM_CONTROL" /* path of the block */
#define SHIM_ENV_ROOT    "FAULT_SHIM_ROOT"    /* the data directory */

#endif
