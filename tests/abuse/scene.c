/* See scene.h. One thread is the other client, another looks at the memory every 20 ms. */
#include "abuse/scene.h"

#include "base/clock.h"
#include "client/shardkv.h"
#include "lib/suite.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "rpc/rpc.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { OPERATION_TIMEOUT_MS = 30000, PAUSE_MS = 5, WATCH_MS = 20, KEYS = 50, ANSWER_S = 60 };

static struct scene scene;

static struct {
    atomic_bool stop;
    pthread_t client_thread;
    pthread_t watch_thread;
    /* of the client's thread, read after it was joined */
    struct skv_client *client;
    uint64_t operations;
    uint64_t failed;
    char first_failure[128];
    double slowest_seconds;
    /* of the watch's thread */
    uint64_t before_bytes[SCENE_VICTIMS];
    uint64_t highest_bytes[SCENE_VICTIMS];
} now;

static void pause_ms(long ms)
{
    struct timespec wait = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&wait, NULL);
}

uint32_t scene_factor(void)
{
    const char *text = getenv("ABUSE_FACTOR");
    unsigned long factor = text == NULL ? 1 : strtoul(text, NULL, 10);
    CHECK_CMP(factor, >=, 1);
    CHECK_CMP(factor, <=, 1000);
    return (uint32_t)factor;
}

uint16_t scene_port(const struct scene *at, enum scene_victim victim)
{
    return at->victims[victim]->port;
}

/* ---- the other client ---- */

static void note(double start, bool good, const char *what, int code)
{
    double took = now_seconds() - start;
    now.slowest_seconds = took > now.slowest_seconds ? took : now.slowest_seconds;
    now.operations++;
    if (!good) {
        if (now.failed == 0) {
            snprintf(now.first_failure, sizeof now.first_failure, "%s: %s", what,
                     skv_code_text(code));
        }
        now.failed++;
    }
}

/* Writes a key and reads it back: what was acknowledged must be there. */
static void client_turn(uint64_t turn)
{
    char key[32], value[64];
    int key_size = snprintf(key, sizeof key, "other-%llu", (unsigned long long)(turn % KEYS));
    int value_size = snprintf(value, sizeof value, "turn %llu", (unsigned long long)turn);
    struct skv_result result;
    double start = now_seconds();
    int code = skv_put(now.client, key, (size_t)key_size, value, (size_t)value_size,
                       OPERATION_TIMEOUT_MS, &result);
    note(start, code == SKV_OK, "put", code);
    skv_result_free(&result);
    start = now_seconds();
    code = skv_get(now.client, key, (size_t)key_size, OPERATION_TIMEOUT_MS, &result);
    bool same = code == SKV_OK && result.value_size == (size_t)value_size &&
                memcmp(result.value, value, result.value_size) == 0;
    note(start, same, "get", code);
    skv_result_free(&result);
}

static void *client_main(void *argument)
{
    (void)argument;
    for (uint64_t turn = 0; !atomic_load(&now.stop); turn++) {
        client_turn(turn);
        pause_ms(PAUSE_MS);
    }
    return NULL;
}

/* ---- memory ---- */

static uint64_t resident_bytes(enum scene_victim victim)
{
    uint64_t bytes = 0;
    double cpu_seconds = 0;
    return process_usage(scene.victims[victim], &bytes, &cpu_seconds) ? bytes : 0;
}

static void *watch_main(void *argument)
{
    (void)argument;
    while (!atomic_load(&now.stop)) {
        for (int i = 0; i < SCENE_VICTIMS; i++) {
            uint64_t bytes = resident_bytes((enum scene_victim)i);
            now.highest_bytes[i] = bytes > now.highest_bytes[i] ? bytes : now.highest_bytes[i];
        }
        pause_ms(WATCH_MS);
    }
    return NULL;
}

/* ---- scenes ---- */

static void files_allow(void)
{
    struct rlimit files;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
}

static void client_open(void)
{
    struct skv_options options = {.controllers = scene.cluster.controllers,
                                  .cluster = scene.cluster.name,
                                  .open_timeout_ms = 20000};
    char why[SKV_ERROR_TEXT_BYTES];
    if (skv_open(&options, &now.client, why, sizeof why) != 0) {
        FAIL("skv_open: %s", why);
    }
}

struct scene *scene_begin(const char *name)
{
    files_allow();
    memset(&now, 0, sizeof now);
    struct cluster *cluster = &scene.cluster;
    cluster_create(cluster, name, 16);
    cluster->keep = true; /* until it has passed */
    cluster_start_group(cluster, 1);
    char spec[512];
    cluster_group_spec(cluster, 1, spec, sizeof spec);
    CHECK_EQ(cluster_ctl(cluster, 60, NULL, "join", spec, NULL), 0);
    CHECK(cluster_wait_settled(cluster, 30));
    scene.victims[SCENE_GROUP] = cluster_leader(cluster, 1, 20);
    scene.victims[SCENE_CONTROLLER] = cluster_leader(cluster, 0, 20);
    client_open();
    for (uint64_t turn = 0; turn < 2 * KEYS; turn++) { /* what is made once is made now */
        client_turn(turn);
    }
    CHECK_EQ(now.failed, 0);
    now.slowest_seconds = 0;
    for (int i = 0; i < SCENE_VICTIMS; i++) {
        CHECK(scene.victims[i] != NULL);
        now.before_bytes[i] = resident_bytes((enum scene_victim)i);
        CHECK_CMP(now.before_bytes[i], >, 0);
    }
    CHECK_EQ(pthread_create(&now.client_thread, NULL, client_main, NULL), 0);
    CHECK_EQ(pthread_create(&now.watch_thread, NULL, watch_main, NULL), 0);
    return &scene;
}

static bool ask_status(struct rpc_channel *channel, uint64_t deadline_ns)
{
    struct msg_status_request message = {0};
    struct buf request = {0};
    struct buf reply = {0};
    msg_status_request_encode(&message, &request);
    int error = rpc_call_wait(channel, METHOD_ADMIN_STATUS, &request, deadline_ns, &reply, NULL, 0);
    buf_deinit(&request);
    buf_deinit(&reply);
    return error == 0;
}

/* As a client does: a connection that was not made in time is tried again. */
bool scene_answers(struct scene *at, enum scene_victim victim)
{
    struct rpc_options options = rpc_options_default();
    struct rpc *rpc = NULL;
    struct rpc_channel *channel = NULL;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", scene_port(at, victim));
    CHECK_EQ(rpc_create(&options, &rpc), 0);
    CHECK_EQ(rpc_channel_create(rpc, address, &channel), 0);
    uint64_t deadline_ns = clock_now_ns(clock_system()) + ANSWER_S * NS_PER_S;
    bool answered = false;
    while (!answered && clock_now_ns(clock_system()) < deadline_ns) {
        answered = ask_status(channel, deadline_ns);
        pause_ms(answered ? 0 : 100);
    }
    rpc_channel_destroy(channel);
    rpc_destroy(rpc);
    return answered;
}

static bool memory_is_back(void *context)
{
    (void)context;
    for (int i = 0; i < SCENE_VICTIMS; i++) {
        if (resident_bytes((enum scene_victim)i) > now.before_bytes[i] + SCENE_AFTER_BYTES) {
            return false;
        }
    }
    return true;
}

void scene_end(struct scene *at, uint64_t during_bytes)
{
    static const char *const names[] = {"group", "controller"};
    for (int i = 0; i < SCENE_VICTIMS; i++) {
        CHECK(process_is_running(at->victims[i]));
        CHECK_EQ(at->victims[i]->starts, 1);
        CHECK(scene_answers(at, (enum scene_victim)i)); /* new connections are taken */
    }
    bool back = wait_until(memory_is_back, NULL, 60);
    atomic_store(&now.stop, true);
    pthread_join(now.client_thread, NULL);
    pthread_join(now.watch_thread, NULL);
    for (int i = 0; i < SCENE_VICTIMS; i++) {
        printf("%s: %llu MiB before, at most %llu MiB more, %lld MiB more after\n", names[i],
               (unsigned long long)now.before_bytes[i] >> 20,
               (unsigned long long)(now.highest_bytes[i] - now.before_bytes[i]) >> 20,
               ((long long)resident_bytes((enum scene_victim)i) - (long long)now.before_bytes[i]) /
                   (1024 * 1024));
    }
    printf("other client: %llu operations, the slowest took %.0f ms\n",
           (unsigned long long)now.operations, now.slowest_seconds * 1e3);
    fflush(stdout);
    if (now.failed > 0) {
        FAIL("%llu of %llu operations of the other client failed; the first: %s",
             (unsigned long long)now.failed, (unsigned long long)now.operations, now.first_failure);
    }
    CHECK_CMP(now.operations, >, 0);
    CHECK_CMP(now.slowest_seconds * 1e3, <=, SCENE_SLOWEST_MS);
    for (int i = 0; i < SCENE_VICTIMS; i++) {
        CHECK_CMP(now.highest_bytes[i], <=, now.before_bytes[i] + during_bytes);
    }
    CHECK(back);
    skv_close(now.client);
    for (uint32_t i = 0; i < at->cluster.process_count; i++) {
        CHECK(process_is_running(&at->cluster.processes[i]));
    }
    at->cluster.keep = false;
    cluster_destroy(&at->cluster);
}
