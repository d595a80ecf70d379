/* What the tests of failing disks and clocks (J9 to J12, J14) share, on top of fault_test.h:
 * servers with small logs, under a shim, or on a disk of their own; and a client that fills logs.
 */
#ifndef TESTS_FAULT_FAULT_DISK_H
#define TESTS_FAULT_FAULT_DISK_H

#include "fault/fault_test.h"
#include "fault/shim_use.h"

enum { DISK_SERVERS = 6 }; /* controllers and one group */

struct skv_client;

/* A small ext4 in a file, mounted in the test's own mount namespace: whatever becomes of the test,
 * the kernel unmounts it with the last process that was in there. */
struct disk_image {
    char dir[300], mount[320];
};

struct disk_options {
    bool shims;              /* every server is under one */
    const char *group_flag;  /* one more flag for the group's replicas, or NULL */
    const char *big_log;     /* another --flush-log-size than 1MiB, or NULL */
    bool own_network;        /* each process in a network namespace of its own */
    bool no_load;            /* no recorder: the test judges by itself */
    bool all_on_one_image;   /* every server's data on images[0] */
    bool replicas_on_images; /* replica i's data on images[i] */
    uint32_t image_mib;
};

struct disk_test {
    struct fault fault;
    struct disk_options options;
    struct shim shims[DISK_SERVERS]; /* beside fault.cluster.processes */
    struct disk_image images[1 + CLUSTER_REPLICAS];
    char image_root[256]; /* "" when there are none */
    struct skv_client *filler;
    uint64_t filled; /* values */
};

/* Controllers and group 1 of three replicas, joined, under load. Skips the test when images or
 * namespaces are asked for and the machine cannot have them. */
void disk_begin(struct disk_test *test, const char *name, const struct disk_options *options);
/* fault_end, and the images are gone. */
void disk_end(struct disk_test *test);
/* The same without a recorder: nothing is judged. */
void disk_abandon(struct disk_test *test);

void disk_mount(const struct disk_image *image);
void disk_unmount(const struct disk_image *image);

struct shim *disk_shim(struct disk_test *test, const struct process *process);
struct process *disk_leader(struct disk_test *test);
struct process *disk_follower(struct disk_test *test);

/* Puts values of 128 KiB to a few keys until so many bytes were acknowledged, or `stop` says so;
 * fails the program when neither comes within `seconds`. */
void disk_fill(struct disk_test *test, uint64_t bytes, double seconds, bool (*stop)(void *context),
               void *context);

/* Waits until the process has ended by itself with this exit code, having said on its standard
 * error an "error: ..." that contains `named`; fails the program otherwise. */
void disk_expect_stopped(struct disk_test *test, struct process *process, int exit_code,
                         const char *named, double seconds);
/* It was just started: whether it refuses (exit code 6, an error that names this) instead of
 * answering. */
bool disk_is_refused(struct disk_test *test, struct process *process, const char *named);
/* The index of the last entry that it has applied; 0: it does not answer. */
uint64_t disk_applied_of(struct disk_test *test, const struct process *process);
/* `process` has everything that its group's leader had when this was called. */
void disk_expect_caught_up(struct disk_test *test, struct process *process, double seconds);

/* As docs/OPERATIONS.md says of a replica that is no good any longer: its directory is left, a new
 * one takes its place, with another id and an empty disk. */
void disk_replace(struct disk_test *test, struct process *process);

/* ---- the tests ---- */

void j9_power_loss(void);
void j9_planted(void);
void j10_damage(void);
void j10_damage_running(void);
void j11_lag(void);
void j12_clocks(void);
void j12_lease(void);
void j12_planted(void);
void j14_no_space(void);
void j14_errors(void);
void j14_stall(void);

#endif
