/* J10: what is on one replica's disk changes, or is cut, while it is down (J10) and while it runs
 * (J10.Running). It is found: the replica refuses to start, or stops when it reads it, and says
 * what and where; the group serves on, loses nothing, and after the repair of docs/OPERATIONS.md
 * (remove, add a new one with an empty disk) replicas are equal. Scenarios 45, 51, 52. See
 * fault_disk.h. */
#include "fault/fault_disk.h"

#include "base/assert.h"
#include "proto/messages.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_DISK = 6, NAME_BYTES = 64, FILES_MAX = 256 };
#define STOP_SECONDS 30.0
#define HEADERS_END  1024 /* of a segment: both are there, so that one may be bad */

/* ---- files ---- */

struct files {
    char names[FILES_MAX][NAME_BYTES];
    uint32_t count;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The files of a folder whose names have this in them, in order. */
static void list_files(const char *dir, const char *with, struct files *out)
{
    out->count = 0;
    DIR *folder = opendir(dir);
    CHECK(folder != NULL);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (strstr(entry->d_name, with) != NULL && strlen(entry->d_name) < NAME_BYTES &&
            out->count < FILES_MAX) {
            snprintf(out->names[out->count++], NAME_BYTES, "%s", entry->d_name);
        }
    }
    closedir(folder);
    qsort(out->names, out->count, NAME_BYTES, compare_names);
}

static uint64_t size_of(const char *path)
{
    struct stat status;
    CHECK_EQ(stat(path, &status), 0);
    return (uint64_t)status.st_size;
}

/* Gives the place of its byte. */
static uint64_t flip_bit(struct rng *rng, const char *path, uint64_t from, uint64_t to)
{
    CHECK_CMP(from, <, to);
    uint64_t at = rng_between(rng, from, to - 1);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    uint8_t byte = 0;
    CHECK_EQ(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= (uint8_t)(1u << rng_below(rng, 8));
    CHECK_EQ(pwrite(fd, &byte, 1, (off_t)at), 1);
    CHECK_EQ(fsync(fd), 0);
    close(fd);
    return at;
}

/* ---- kinds of damage ---- */

struct place {
    char dir[400];
    char path[512];     /* what was damaged */
    bool may_go_unseen; /* whoever goes on then must be whole */
};

static void path_in(struct place *place, const char *folder, const char *with, bool newest)
{
    static struct files files;
    char dir[480];
    snprintf(dir, sizeof dir, "%s/%s", place->dir, folder);
    list_files(dir, with, &files);
    CHECK_CMP(files.count, >, newest ? 0 : 1);
    snprintf(place->path, sizeof place->path, "%s/%s", dir,
             files.names[newest ? files.count - 1 : (files.count - 1) / 2]);
}

/* A segment that is full: everything in it was synced. */
static void segment_flip(struct rng *rng, struct place *place)
{
    path_in(place, "wal", ".wal", false);
    flip_bit(rng, place->path, HEADERS_END, size_of(place->path) / 2);
}

static void segment_cut(struct rng *rng, struct place *place)
{
    path_in(place, "wal", ".wal", false);
    CHECK_EQ(truncate(place->path, (off_t)rng_below(rng, size_of(place->path) / 2)), 0);
}

/* The disk lost a write that it had acknowledged: a sector is what it was when the file was new. */
static void segment_lost_sector(struct rng *rng, struct place *place)
{
    enum { SECTOR = 512 };
    static const uint8_t zeroes[SECTOR];
    path_in(place, "wal", ".wal", false);
    uint64_t sectors = size_of(place->path) / 2 / SECTOR;
    int fd = open(place->path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, zeroes, SECTOR, (off_t)(rng_between(rng, 2, sectors - 1) * SECTOR)),
             SECTOR);
    close(fd);
}

static void segment_gone(struct rng *rng, struct place *place)
{
    (void)rng;
    path_in(place, "wal", ".wal", false);
    CHECK_EQ(unlink(place->path), 0);
}

static void base_flip(struct rng *rng, struct place *place)
{
    snprintf(place->path, sizeof place->path, "%s/wal/base", place->dir);
    flip_bit(rng, place->path, 0, size_of(place->path));
}

/* The largest: what is in small ones may all be in the store's cache, and then it is not read. */
static void largest_in(struct place *place, const char *folder, const char *with)
{
    static struct files files;
    char dir[480];
    snprintf(dir, sizeof dir, "%s/%s", place->dir, folder);
    list_files(dir, with, &files);
    uint64_t largest = 0;
    for (uint32_t i = 0; i < files.count; i++) {
        char path[sizeof place->path];
        snprintf(path, sizeof path, "%s/%s", dir, files.names[i]);
        if (size_of(path) > largest) {
            largest = size_of(path);
            memcpy(place->path, path, sizeof path);
        }
    }
    CHECK_CMP(largest, >, 0);
}

/* Blocks of rows come first in a table. */
static void table_flip(struct rng *rng, struct place *place)
{
    largest_in(place, "state", ".sst");
    flip_bit(rng, place->path, 0, size_of(place->path) / 2);
}

/* One bit in every few blocks: those that the process has in memory are not read again, and what
 * was appended to a moment ago is there. */
static void table_flip_all_over(struct rng *rng, struct place *place)
{
    enum { STRETCH = 256 * 1024 };
    largest_in(place, "state", ".sst");
    uint64_t until = size_of(place->path) / 2; /* behind it are filters and indexes too */
    for (uint64_t from = 0; from < until; from += STRETCH) {
        flip_bit(rng, place->path, from, from + STRETCH < until ? from + STRETCH : until);
    }
}

static void table_cut(struct rng *rng, struct place *place)
{
    path_in(place, "state", ".sst", true);
    CHECK_EQ(truncate(place->path, (off_t)rng_below(rng, size_of(place->path))), 0);
}

/* Whether the byte is the length or the type in the header of a record of RocksDB's log format:
 * blocks of 32 KiB; in them records, each behind 4 bytes of checksum, 2 of length, 1 of type. */
static bool is_length_or_type(const char *path, uint64_t at)
{
    enum { BLOCK = 32 * 1024, HEADER = 7, LENGTH_AT = 4 };
    uint8_t header[HEADER];
    uint64_t record = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    while (record + HEADER <= at && pread(fd, header, HEADER, (off_t)record) == HEADER) {
        uint64_t next = record + HEADER + header[LENGTH_AT] + 256u * header[LENGTH_AT + 1];
        if (next > at) {
            break;
        }
        record = BLOCK - next % BLOCK < HEADER ? (next / BLOCK + 1) * BLOCK : next;
    }
    close(fd);
    return at >= record + LENGTH_AT && at < record + HEADER;
}

/* With a wrong length or type RocksDB may take a record for the file's end, and opens what was
 * before it. Then a table is missing, which it says; or the store is older, and the log brings it
 * up or says that it cannot; or nothing was behind. Every other bit is in a checksum. */
static void manifest_flip(struct rng *rng, struct place *place)
{
    path_in(place, "state", "MANIFEST", true);
    uint64_t at = flip_bit(rng, place->path, 0, size_of(place->path));
    place->may_go_unseen = is_length_or_type(place->path, at);
}

static void identity_flip(struct rng *rng, struct place *place)
{
    snprintf(place->path, sizeof place->path, "%s/identity", place->dir);
    flip_bit(rng, place->path, 0, size_of(place->path));
}

/* A snapshot that has arrived and is not restored yet; the victim was killed there. */
static void ready_path(struct place *place, const char *inside)
{
    static struct files files;
    char dir[480];
    snprintf(dir, sizeof dir, "%s/snapshot", place->dir);
    list_files(dir, "ready-", &files);
    CHECK_EQ(files.count, 1);
    snprintf(place->path, sizeof place->path, "%s/%s/%s", dir, files.names[0], inside);
}

static void snapshot_meta_flip(struct rng *rng, struct place *place)
{
    ready_path(place, "meta");
    flip_bit(rng, place->path, 0, size_of(place->path));
}

static void snapshot_table(struct place *place)
{
    static struct files files;
    ready_path(place, "data/store");
    list_files(place->path, ".sst", &files);
    CHECK_CMP(files.count, >, 0);
    size_t used = strlen(place->path);
    snprintf(place->path + used, sizeof place->path - used, "/%s", files.names[0]);
}

static void snapshot_table_flip(struct rng *rng, struct place *place)
{
    snapshot_table(place);
    flip_bit(rng, place->path, 0, size_of(place->path) / 2);
}

static void snapshot_table_cut(struct rng *rng, struct place *place)
{
    snapshot_table(place);
    CHECK_EQ(truncate(place->path, (off_t)rng_below(rng, size_of(place->path))), 0);
}

struct damage {
    const char *name;
    void (*make)(struct rng *rng, struct place *place);
    const char *named;  /* what the refusal must name; the file's folder at least */
    bool when_read;     /* a table's block is looked at when it is read */
    bool with_snapshot; /* needs one that has arrived */
};

static const struct damage damages[] = {
    {.name = "a bit of a log segment", .make = segment_flip, .named = "/wal"},
    {.name = "a log segment cut", .make = segment_cut, .named = "/wal"},
    {.name = "a sector of a log segment lost", .make = segment_lost_sector, .named = "/wal"},
    {.name = "a log segment gone", .make = segment_gone, .named = "/wal"},
    {.name = "a bit of the log's base", .make = base_flip, .named = "/wal"},
    {.name = "a bit of a table", .make = table_flip, .named = "store", .when_read = true},
    {.name = "a table cut", .make = table_cut, .named = "/state"},
    {.name = "a bit of the manifest", .make = manifest_flip, .named = "/state"},
    {.name = "a bit of the identity", .make = identity_flip, .named = "identity"},
    {.name = "a bit of a snapshot's meta",
     .make = snapshot_meta_flip,
     .named = "/snapshot",
     .with_snapshot = true},
    {.name = "a bit of a snapshot's table",
     .make = snapshot_table_flip,
     .named = "store",
     .when_read = true,
     .with_snapshot = true},
    {.name = "a snapshot's table cut",
     .make = snapshot_table_cut,
     .named = "s",
     .with_snapshot = true},
};
enum { DAMAGES = sizeof damages / sizeof damages[0] };

/* ---- the group ---- */

static bool has_ended(void *context)
{
    return !process_is_running(context);
}

static bool has_ended_or_answers(void *context)
{
    struct disk_test *test = ((void **)context)[0];
    struct process *process = ((void **)context)[1];
    return !process_is_running(process) || disk_applied_of(test, process) > 0;
}

/* Everything in its store is read. */
static bool is_read_and_ended(void *context)
{
    struct disk_test *test = ((void **)context)[0];
    struct process *process = ((void **)context)[1];
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    if (process_status(&test->fault.cluster, process, true, status)) {
        msg_status_response_deinit(status);
    }
    free(status);
    return !process_is_running(process);
}

static uint64_t log_first_of(struct disk_test *test, const struct process *process, uint64_t *last)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    CHECK(process_status(&test->fault.cluster, process, false, status));
    uint64_t first = status->log_first;
    *last = status->log_last;
    msg_status_response_deinit(status);
    free(status);
    return first;
}

/* The victim ends with a snapshot that has arrived whole, and nothing of it restored. */
static void stop_with_snapshot(struct disk_test *test, struct process *victim)
{
    uint64_t last = 0, last_now = 0;
    (void)log_first_of(test, victim, &last);
    process_kill(victim);
    do {
        disk_fill(test, 1024u * 1024, 30, NULL, NULL);
    } while (log_first_of(test, disk_leader(test), &last_now) <= last + 1);
    shim_arm(disk_shim(test, victim), 0,
             &(struct shim_order){.classes = SHIM_BIT(SHIM_SNAPSHOT_READY),
                                  .kinds = SHIM_BIT(SHIM_RENAME),
                                  .action = SHIM_KILL_AFTER,
                                  .nth = 1});
    process_start(&test->fault.cluster, victim);
    CHECK(wait_until(has_ended, victim, STOP_SECONDS));
    shim_disarm(disk_shim(test, victim), 0);
}

/* False: it went unseen, and the victim is still there for the end of the test to compare it. */
static bool damage_one(struct disk_test *test, const struct damage *damage)
{
    struct process *victim = disk_follower(test);
    printf("%s, at replica %u\n", damage->name, victim->id);
    fflush(stdout);
    if (damage->with_snapshot) {
        stop_with_snapshot(test, victim);
    } else {
        disk_fill(test, 2u * 1024 * 1024, 30, NULL, NULL);
        CHECK(process_stop(victim, 20)); /* so that the newest rows are in a table, too */
    }
    struct place place = {.may_go_unseen = false};
    process_data_dir(&test->fault.cluster, victim, place.dir, sizeof place.dir);
    damage->make(&test->fault.rng, &place);
    process_start(&test->fault.cluster, victim);
    if (damage->when_read) {
        void *context[] = {test, victim};
        if (!wait_until(is_read_and_ended, context, STOP_SECONDS)) {
            FAIL("%s: %s was read and nothing said", damage->name, place.path);
        }
    }
    if (place.may_go_unseen) {
        void *context[] = {test, victim};
        CHECK(wait_until(has_ended_or_answers, context, STOP_SECONDS));
        if (process_is_running(victim)) {
            printf("%s went unseen\n", damage->name);
            return false;
        }
    }
    disk_expect_stopped(test, victim, EXIT_DISK, damage->named, STOP_SECONDS);
    fault_expect_progress(&test->fault, 20, 30); /* the others serve */
    disk_replace(test, victim);
    fault_expect_progress(&test->fault, 20, 30);
    return true;
}

/* Kinds in a drawn order, as many as there is time for; all of them with FAULT_SECONDS=60. */
void j10_damage(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(test, "J10", &(struct disk_options){.shims = true});
    const char *only = getenv("FAULT_DAMAGE"); /* a number: this kind alone */
    uint32_t order[DAMAGES];
    for (uint32_t i = 0; i < DAMAGES; i++) {
        uint32_t place = (uint32_t)rng_below(&test->fault.rng, i + 1);
        order[i] = order[place];
        order[place] = i;
    }
    for (bool seen = true; seen && fault_goes_on(&test->fault); test->fault.rounds++) {
        uint32_t which = only != NULL ? (uint32_t)strtoul(only, NULL, 10) % DAMAGES
                                      : order[test->fault.rounds % DAMAGES];
        seen = damage_one(test, &damages[which]);
    }
    disk_end(test);
    free(test);
}

/* ---- while it runs ---- */

struct served {
    struct disk_test *test;
    struct process *damaged;
    const struct process *away;
    uint64_t target;
};

static bool is_found_or_served(void *context)
{
    const struct served *served = context;
    return !process_is_running(served->damaged) ||
           disk_applied_of(served->test, served->away) >= served->target;
}

/* `away` comes back and needs what is damaged at `damaged`, which leads. True when that stopped it;
 * false when another one leads by now and served `away`. */
static bool is_found_by_need(struct disk_test *test, struct process *damaged, struct process *away)
{
    struct served served = {test, damaged, away, disk_applied_of(test, damaged)};
    if (served.target == 0) { /* it serves clients too: it met the damage by itself and is ending */
        served.target = UINT64_MAX;
    }
    process_start(&test->fault.cluster, away);
    CHECK(wait_until(is_found_or_served, &served, STOP_SECONDS));
    bool found = !process_is_running(damaged);
    if (!found) {
        CHECK(disk_leader(test) != damaged);
        printf("another leads by now\n");
    }
    return found;
}

/* The leader's log is damaged where a follower that was away will want it. */
static void damage_log_under_leader(struct disk_test *test)
{
    static struct files files;
    struct process *leader = disk_leader(test);
    struct process *away = disk_follower(test);
    printf("the log of the leader, replica %u\n", leader->id);
    fault_kill(&test->fault, away);
    struct place place;
    char dir[480];
    process_data_dir(&test->fault.cluster, leader, place.dir, sizeof place.dir);
    snprintf(dir, sizeof dir, "%s/wal", place.dir);
    list_files(dir, ".wal", &files);
    char newest[NAME_BYTES];
    snprintf(newest, sizeof newest, "%s", files.names[files.count - 1]);
    disk_fill(test, 4u * 1024 * 1024, 30, NULL, NULL); /* four times what it keeps in memory */
    list_files(dir, ".wal", &files);
    uint32_t first = 0; /* that was begun since */
    while (first < files.count && strcmp(files.names[first], newest) <= 0) {
        first++;
    }
    uint32_t until = first + (files.count - first) / 2; /* later ones are in memory */
    CHECK_CMP(until, >, first);
    for (uint32_t i = first; i < until; i++) {
        snprintf(place.path, sizeof place.path, "%s/%s", dir, files.names[i]);
        flip_bit(&test->fault.rng, place.path, HEADERS_END, size_of(place.path) / 2);
    }
    if (is_found_by_need(test, leader, away)) {
        disk_expect_stopped(test, leader, EXIT_DISK, "log", 1);
    } else {
        process_kill(leader);
    }
    disk_expect_caught_up(test, away, 30); /* from the third */
    process_start(&test->fault.cluster, leader);
    disk_expect_stopped(test, leader, EXIT_DISK, "/wal", STOP_SECONDS);
    disk_replace(test, leader);
}

/* The leader's table is damaged and would travel to a follower that needs a snapshot. */
static void damage_table_under_sender(struct disk_test *test)
{
    struct process *leader = disk_leader(test);
    struct process *away = disk_follower(test);
    printf("a table of the leader, replica %u, with a snapshot to send\n", leader->id);
    CHECK(process_stop(leader, 20)); /* writes its rows into a table */
    process_start(&test->fault.cluster, leader);
    disk_expect_caught_up(test, leader, 30);
    char number[16];
    snprintf(number, sizeof number, "%u", leader->id);
    for (uint32_t tries = 0; disk_leader(test) != leader; tries++) {
        CHECK_CMP(tries, <, 20);
        (void)cluster_ctl(&test->fault.cluster, 20, NULL, "transfer", "1", "--to", number, NULL);
    }
    while (away == leader || away == disk_leader(test)) {
        away = disk_follower(test);
    }
    uint64_t last = 0, last_now = 0;
    (void)log_first_of(test, away, &last);
    fault_kill(&test->fault, away);
    while (log_first_of(test, leader, &last_now) <= last + 1) {
        disk_fill(test, 1024u * 1024, 30, NULL, NULL);
    }
    struct place place;
    process_data_dir(&test->fault.cluster, leader, place.dir, sizeof place.dir);
    table_flip(&test->fault.rng, &place);
    if (!is_found_by_need(test, leader, away)) {
        void *context[] = {test, leader};
        CHECK(wait_until(is_read_and_ended, context, STOP_SECONDS));
    }
    disk_expect_stopped(test, leader, EXIT_DISK, "store", 1);
    disk_expect_caught_up(test, away, 30); /* from the third */
    disk_replace(test, leader);
}

/* A table is damaged, and then read. */
static void damage_table_under(struct disk_test *test, struct process *victim)
{
    printf("a table of replica %u\n", victim->id);
    CHECK(process_stop(victim, 20)); /* writes its rows into a table */
    process_start(&test->fault.cluster, victim);
    disk_expect_caught_up(test, victim, 30);
    struct place place;
    process_data_dir(&test->fault.cluster, victim, place.dir, sizeof place.dir);
    table_flip_all_over(&test->fault.rng, &place);
    void *context[] = {test, victim};
    if (!wait_until(is_read_and_ended, context, STOP_SECONDS)) {
        FAIL("%s was read and nothing said", place.path);
    }
    disk_expect_stopped(test, victim, EXIT_DISK, "store", 1);
    fault_expect_progress(&test->fault, 20, 30);
    disk_replace(test, victim);
}

void j10_damage_running(void)
{
    struct disk_test *test = mem_calloc(1, sizeof *test);
    disk_begin(test, "J10-running", &(struct disk_options){.big_log = "--flush-log-size=8MiB"});
    for (; fault_goes_on(&test->fault) || test->fault.rounds < 3; test->fault.rounds++) {
        if (test->fault.rounds % 3 == 0) {
            damage_log_under_leader(test);
        } else if (test->fault.rounds % 3 == 1) {
            damage_table_under_sender(test);
        } else {
            damage_table_under(test, rng_below(&test->fault.rng, 2) == 0 ? disk_leader(test)
                                                                         : disk_follower(test));
        }
        fault_expect_progress(&test->fault, 20, 30);
    }
    disk_end(test);
    free(test);
}
