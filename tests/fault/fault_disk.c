/* See fault_disk.h; and the table of these tests. */
#include "fault/fault_disk.h"

#include "base/assert.h"
#include "client/shardkv.h"
#include "cluster/harness_net.h"
#include "fault/members.h"
#include "proto/messages.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILL_KEYS = 16, FILL_BYTES = 128 * 1024 };

/* ---- images ---- */

__attribute__((format(printf, 1, 2))) static int shell(const char *format, ...)
{
    char command[1536] = "PATH=$PATH:/usr/sbin:/sbin; ";
    size_t used = strlen(command);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command + used, sizeof command - used, format, arguments);
    va_end(arguments);
    char *argv[] = {"/bin/sh", "-c", command, NULL};
    return program_run(argv, 60, NULL);
}

void disk_mount(const struct disk_image *image)
{
    CHECK_EQ(shell("mount -o loop %s/image %s", image->dir, image->mount), 0);
}

void disk_unmount(const struct disk_image *image)
{
    CHECK_EQ(umount2(image->mount, 0), 0);
}

static void make_image(struct disk_test *test, uint32_t which)
{
    struct disk_image *image = &test->images[which];
    char dir[sizeof image->dir]; /* gcc takes the names of one struct for overlapping */
    snprintf(dir, sizeof dir, "%s/%u", test->image_root, which);
    memcpy(image->dir, dir, sizeof dir);
    snprintf(image->mount, sizeof image->mount, "%s/mount", dir);
    CHECK_EQ(shell("mkdir -p %s", image->mount), 0);
    if (shell("truncate -s %uM %s/image && mkfs.ext4 -q -F -m 0 %s/image", test->options.image_mib,
              image->dir, image->dir) != 0) {
        fault_skip("mkfs.ext4 does not work here");
    }
    if (shell("mount -o loop %s/image %s", image->dir, image->mount) != 0) {
        fault_skip("a file cannot be mounted here (loop devices)");
    }
}

static struct disk_test *with_images;

/* Also when a CHECK ended the program; killed, the namespace goes, and the files stay. */
static void remove_images(void)
{
    struct disk_test *test = with_images;
    if (test == NULL) {
        return;
    }
    with_images = NULL;
    for (uint32_t i = 0; i < test->fault.cluster.process_count; i++) {
        process_kill(&test->fault.cluster.processes[i]);
    }
    for (size_t i = 0; i < sizeof test->images / sizeof test->images[0]; i++) {
        if (test->images[i].dir[0] != '\0') {
            (void)umount2(test->images[i].mount, MNT_DETACH);
        }
    }
    (void)shell("rm -rf --one-file-system %s", test->image_root);
}

static void make_images(struct disk_test *test)
{
    uint32_t from = test->options.all_on_one_image ? 0 : 1;
    uint32_t to = test->options.replicas_on_images ? CLUSTER_REPLICAS : 0;
    if (!test->options.all_on_one_image && !test->options.replicas_on_images) {
        return;
    }
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        fault_skip("a mount namespace of its own needs root: %s", strerror(errno));
    }
    const char *tmp = getenv("TMPDIR");
    snprintf(test->image_root, sizeof test->image_root, "%s/shardkv-images-XXXXXX",
             tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(test->image_root) != NULL);
    with_images = test;
    CHECK_EQ(atexit(remove_images), 0);
    for (uint32_t i = from; i <= to; i++) {
        make_image(test, i);
    }
}

/* ---- begin and end ---- */

static void equip(struct disk_test *test, struct process *process)
{
    const struct disk_options *options = &test->options;
    size_t count = 0;
    process->arguments[count++] = "--segment-size=256KiB";
    process->arguments[count++] =
        options->big_log != NULL ? options->big_log : "--flush-log-size=1MiB";
    process->arguments[count++] = "--log-cache-size=1MiB";
    if (process->group != 0 && options->group_flag != NULL) {
        process->arguments[count++] = options->group_flag;
    }
    if (options->all_on_one_image) {
        process->data_root = test->images[0].mount;
    } else if (options->replicas_on_images && process->group != 0) {
        process->data_root = test->images[process->id].mount;
    }
    if (options->shims) {
        shim_attach(disk_shim(test, process), &test->fault.cluster, process);
    }
}

static void open_filler(struct disk_test *test)
{
    char why[SKV_ERROR_TEXT_BYTES] = "";
    struct skv_options options = {.controllers = test->fault.cluster.controllers,
                                  .cluster = test->fault.cluster.name,
                                  .open_timeout_ms = 30000};
    if (skv_open(&options, &test->filler, why, sizeof why) != 0) {
        FAIL("%s", why);
    }
}

void disk_begin(struct disk_test *test, const char *name, const struct disk_options *options)
{
    char why[128];
    memset(test, 0, sizeof *test);
    test->options = *options;
    if (options->own_network && !net_is_possible(why, sizeof why)) {
        fault_skip("%s", why);
    }
    make_images(test);
    struct fault *fault = &test->fault;
    struct cluster *cluster = &fault->cluster;
    fault_prepare(fault, name);
    fault->leases = options->group_flag != NULL; /* not drawn: J12 is about them */
    cluster_prepare_with(cluster, name, FAULT_SHARDS,
                         &(struct cluster_network){.own = options->own_network});
    cluster->keep = true;
    cluster_add_group(cluster, 1);
    CHECK_EQ(cluster->process_count, DISK_SERVERS);
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        equip(test, &cluster->processes[i]);
    }
    cluster_start_group(cluster, 0);
    cluster_start_group(cluster, 1);
    fault_join(fault, 1);
    if (!options->no_load) {
        fault_load(fault);
    }
    CHECK(cluster_wait_settled(cluster, FAULT_SETTLE_SECONDS));
    open_filler(test);
}

void disk_end(struct disk_test *test)
{
    skv_close(test->filler);
    test->filler = NULL;
    fault_end(&test->fault);
    remove_images();
}

void disk_abandon(struct disk_test *test)
{
    skv_close(test->filler);
    test->filler = NULL;
    fault_abandon(&test->fault);
    remove_images();
}

/* ---- servers ---- */

struct shim *disk_shim(struct disk_test *test, const struct process *process)
{
    return &test->shims[process - test->fault.cluster.processes];
}

struct process *disk_leader(struct disk_test *test)
{
    struct process *leader = cluster_leader(&test->fault.cluster, 1, 30);
    CHECK(leader != NULL);
    return leader;
}

struct process *disk_follower(struct disk_test *test)
{
    const struct process *leader = disk_leader(test);
    uint32_t step = (uint32_t)rng_between(&test->fault.rng, 1, CLUSTER_REPLICAS - 1);
    uint32_t place = (uint32_t)(leader - test->fault.cluster.processes);
    uint32_t first = DISK_SERVERS - CLUSTER_REPLICAS; /* ids change, places do not */
    return &test->fault.cluster
                .processes[first + (place - first + step) % (uint32_t)CLUSTER_REPLICAS];
}

static bool has_ended(void *context)
{
    struct process *process = context;
    return !process_is_running(process);
}

/* Whether one of the last lines it wrote is an error that names this. */
static bool log_ends_with_error(const struct disk_test *test, const struct process *process,
                                const char *named)
{
    enum { LINES = 8 };
    char path[400], line[4096];
    snprintf(path, sizeof path, "%s/g%llu-%u.log", test->fault.cluster.dir,
             (unsigned long long)process->group, process->id);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    uint64_t number = 0, found = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        number++;
        if (strncmp(line, "error: ", 7) == 0) {
            found = strstr(line, named) != NULL ? number : 0;
        }
    }
    fclose(file);
    return found != 0 && number - found < LINES;
}

void disk_expect_stopped(struct disk_test *test, struct process *process, int exit_code,
                         const char *named, double seconds)
{
    if (!wait_until(has_ended, process, seconds)) {
        FAIL("replica %u goes on although its disk failed (%s)", process->id, named);
    }
    if (!WIFEXITED(process->status) || WEXITSTATUS(process->status) != exit_code) {
        FAIL("replica %u ended with status 0x%x instead of exit code %d", process->id,
             (unsigned)process->status, exit_code);
    }
    if (!log_ends_with_error(test, process, named)) {
        FAIL("replica %u ended without an error that names %s", process->id, named);
    }
}

uint64_t disk_applied_of(struct disk_test *test, const struct process *process)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    uint64_t applied = 0;
    if (process_status(&test->fault.cluster, process, false, status)) {
        applied = status->applied;
        msg_status_response_deinit(status);
    }
    free(status);
    return applied;
}

struct catching_up {
    struct disk_test *test;
    struct process *process;
    uint64_t target;
};

static bool has_caught_up(void *context)
{
    const struct catching_up *catching_up = context;
    return disk_applied_of(catching_up->test, catching_up->process) >= catching_up->target;
}

static bool has_answered_or_ended(void *context)
{
    struct catching_up *started = context;
    return !process_is_running(started->process) ||
           disk_applied_of(started->test, started->process) > 0;
}

bool disk_is_refused(struct disk_test *test, struct process *process, const char *named)
{
    struct catching_up started = {test, process, 0};
    CHECK(wait_until(has_answered_or_ended, &started, 30));
    if (process_is_running(process)) {
        return false;
    }
    disk_expect_stopped(test, process, 6, named, 1);
    return true;
}

void disk_expect_caught_up(struct disk_test *test, struct process *process, double seconds)
{
    struct catching_up catching_up = {test, process, disk_applied_of(test, disk_leader(test))};
    CHECK_CMP(catching_up.target, >, 0);
    if (!wait_until(has_caught_up, &catching_up, seconds)) {
        FAIL("replica %u has applied %llu of %llu after %.0f s", process->id,
             (unsigned long long)disk_applied_of(test, process),
             (unsigned long long)catching_up.target, seconds);
    }
}

/* ---- replacing ---- */

void disk_replace(struct disk_test *test, struct process *process)
{
    static uint32_t next_id = 11;
    struct replacing replacing = {
        .process = process, .stage = REPLACING_REMOVE, .new_id = next_id++};
    while (replacing.stage != REPLACING_START) {
        replacing_step(&test->fault, &replacing, 20);
    }
    CHECK(!process_is_running(process));
    process->id = replacing.new_id;
    process->later = true;
    if (test->options.shims) {
        shim_attach(disk_shim(test, process), &test->fault.cluster, process);
    }
    process_start(&test->fault.cluster, process);
    replacing.stage = REPLACING_ADD;
    replacing_finish(&test->fault, &replacing);
    disk_expect_caught_up(test, process, 30);
}

/* ---- filling ---- */

static bool put_one(struct disk_test *test)
{
    static uint8_t value[FILL_BYTES];
    char key[32];
    int size = snprintf(key, sizeof key, "fill-%u", (unsigned)(test->filled % FILL_KEYS));
    for (size_t i = 0; i < sizeof value;
         i += sizeof(uint64_t)) { /* no compression makes it small */
        uint64_t word = rng_next(&test->fault.rng);
        memcpy(value + i, &word, sizeof word);
    }
    struct skv_result result;
    int code = skv_put(test->filler, key, (size_t)size, value, sizeof value, 1000, &result);
    skv_result_free(&result);
    test->filled += code == SKV_OK;
    return code == SKV_OK;
}

void disk_fill(struct disk_test *test, uint64_t bytes, double seconds, bool (*stop)(void *context),
               void *context)
{
    double until = now_seconds() + seconds;
    uint64_t done = 0;
    while (done < bytes) {
        if (stop != NULL && stop(context)) {
            return;
        }
        if (now_seconds() > until) {
            FAIL("only %llu of %llu bytes were written in %.0f s", (unsigned long long)done,
                 (unsigned long long)bytes, seconds);
        }
        done += put_one(test) ? FILL_BYTES : 0;
    }
}

const struct suite_test fault_disk_tests[] = {
    {"J9", j9_power_loss},    {"J9.Planted", j9_planted},
    {"J10", j10_damage},      {"J10.Running", j10_damage_running},
    {"J11", j11_lag},         {"J12", j12_clocks},
    {"J12.Lease", j12_lease}, {"J12.Planted", j12_planted},
    {"J14", j14_no_space},    {"J14.Errors", j14_errors},
    {"J14.Stall", j14_stall}, {NULL, NULL},
};
