/* Connections that open and say nothing more, bodies that never end, answers that nobody reads,
 * frames that cost the server more than the sender, and very many connections. */
#include "abuse/abuse.h"
#include "abuse/http.h"
#include "abuse/pusher.h"
#include "abuse/scene.h"
#include "base/clock.h"
#include "client/shardkv.h"
#include "lib/suite.h"
#include "proto/command.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024ull * 1024)

static void pause_ms(long ms)
{
    struct timespec wait = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&wait, NULL);
}

static int connect_or_fail(const struct scene *scene, enum scene_victim victim, uint32_t source)
{
    int fd = http_connect(scene_port(scene, victim), source);
    if (fd < 0) {
        FAIL("connection %u: %s", source, strerror(errno));
    }
    return fd;
}

/* Some bytes on a new connection; whether the server closes it is the test's to see. */
static int connect_and_send(const struct scene *scene, enum scene_victim victim, uint32_t source,
                            struct bytes bytes)
{
    int fd = connect_or_fail(scene, victim, source);
    (void)http_send(fd, bytes, 5);
    return fd;
}

static void close_all(int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        close(fds[i]);
    }
    free(fds);
}

/* ---- half-open ---- */

enum half { HALF_SILENT, HALF_MAGIC, HALF_SETTINGS, HALF_HEADERS, HALF_KINDS };

static void put_half(struct buf *out, enum half half)
{
    if (half == HALF_SILENT) {
        return;
    }
    http_put_preface(out);
    if (half == HALF_MAGIC) {
        out->size = 20; /* not even all of the magic words */
    } else if (half == HALF_HEADERS) {
        struct http_request request = {.path = METHOD_KV_PUT};
        for (uint32_t stream = 1; stream < 20; stream += 2) {
            http_put_headers(out, stream, &request, 0);
        }
    }
}

/* A connection that says nothing is closed: within the handshake's 5 s while it has not said enough
 * to be one, within keepalive's 15 s later, because it does not answer pings. */
void test_half_open(void)
{
    struct scene *scene = scene_begin("halfopen");
    uint32_t count = 400 * scene_factor();
    int *fds = mem_calloc(count, sizeof *fds);
    for (uint32_t i = 0; i < count; i++) {
        struct buf bytes = {0};
        put_half(&bytes, (enum half)(i % HALF_KINDS));
        fds[i] = connect_and_send(scene, i / HALF_KINDS % 2 == 0 ? SCENE_GROUP : SCENE_CONTROLLER,
                                  i, buf_view(&bytes));
        buf_deinit(&bytes);
    }
    double opened = now_seconds();
    for (int kind = 0; kind < HALF_KINDS; kind++) {
        bool shaken = kind >= HALF_SETTINGS;
        double until = opened + (shaken ? 20 : 10);
        for (uint32_t i = (uint32_t)kind; i < count; i += HALF_KINDS) {
            double left = until - now_seconds();
            if (!http_is_closed(fds[i], left > 0 ? left : 0)) {
                FAIL("connection %u of kind %d is still open after %.0f s", i, kind,
                     now_seconds() - opened);
            }
        }
    }
    close_all(fds, count);
    scene_end(scene, 64 * MIB);
}

/* ---- bodies that never end ---- */

/* Ten connections send all that the windows allow of 19 MiB messages, 2 GiB if they were let. */
static void push_by_the_rules(struct scene *scene)
{
    enum { PUSHERS = 10, STREAMS = 11, CLAIMED = 19 * 1024 * 1024 };
    struct pusher *pushers[PUSHERS];
    uint64_t sent = 0;
    uint32_t open = 0;
    for (uint32_t i = 0; i < PUSHERS; i++) {
        pushers[i] =
            pusher_open(scene_port(scene, SCENE_GROUP), i, METHOD_KV_PUT, STREAMS, CLAIMED);
    }
    double until = now_seconds() + 4;
    while (now_seconds() < until) {
        for (uint32_t i = 0; i < PUSHERS; i++) {
            (void)pusher_step(pushers[i]);
        }
        pause_ms(1);
    }
    for (uint32_t i = 0; i < PUSHERS; i++) {
        sent += pusher_sent_bytes(pushers[i]);
        open += pusher_streams_open(pushers[i]);
        pusher_close(pushers[i]);
    }
    printf("by the rules: %llu MiB sent in %d streams, %u of them still open\n",
           (unsigned long long)(sent / MIB), PUSHERS * STREAMS, open);
}

/* Each stream claims 19 MiB and sends as much of it as the server's windows let through; then a
 * byte at a time. */
void test_slow_bodies(void)
{
    enum { STREAMS = 200, PUSH_BYTES = 256 * 1024 };
    struct scene *scene = scene_begin("slowbodies");
    uint32_t count = 20 * scene_factor();
    int *fds = mem_calloc(count, sizeof *fds);
    struct buf bytes = {0};
    struct buf body = {0};
    memset(buf_reserve(&body, PUSH_BYTES), 'x', PUSH_BYTES);
    body.size = PUSH_BYTES;
    struct http_request request = {.path = METHOD_KV_PUT};
    http_put_preface(&bytes);
    for (uint32_t i = 0; i < STREAMS; i++) {
        http_put_headers(&bytes, 2 * i + 1, &request, 0);
        http_put_message(&bytes, 2 * i + 1, 19 * 1024 * 1024, BYTES_EMPTY, false);
    }
    for (uint32_t i = 0; i < STREAMS; i++) { /* over what was announced: what a liar sends */
        http_put_message(&bytes, 2 * i + 1, 1, buf_view(&body), false);
    }
    for (uint32_t i = 0; i < count; i++) {
        fds[i] = connect_or_fail(scene, SCENE_GROUP, i);
        (void)http_send(fds[i], buf_view(&bytes), 0.05);
    }
    double until = now_seconds() + 2;
    while (now_seconds() < until) {
        for (uint32_t i = 0; i < count; i++) {
            struct buf drop = {0};
            http_put_frame(&drop, 0, 0, 1 + 2 * (i % STREAMS), bytes_of("x", 1));
            (void)http_send_some(fds[i], buf_view(&drop));
            buf_deinit(&drop);
        }
        pause_ms(100);
    }
    close_all(fds, count);
    buf_deinit(&body);
    buf_deinit(&bytes);
    push_by_the_rules(scene);
    scene_end(scene, (512 + 192) * MIB); /* rpc_server_options.core_bytes_max, and the rest */
}

/* ---- answers that nobody reads ---- */

static struct skv_client *open_client(struct scene *scene)
{
    struct skv_client *client = NULL;
    struct skv_options options = {.controllers = scene->cluster.controllers,
                                  .open_timeout_ms = 30000};
    char why[SKV_ERROR_TEXT_BYTES];
    CHECK_EQ(skv_open(&options, &client, why, sizeof why), 0);
    return client;
}

static void put_large_values(struct skv_client *client, const char *key, uint32_t count)
{
    uint8_t *value = mem_calloc(1, MIB);
    for (uint32_t i = 0; i < count; i++) {
        struct skv_result result;
        CHECK_EQ(skv_put(client, key, strlen(key), value, MIB, 60000, &result), 0);
    }
    free(value);
}

static void put_get_blocks(struct buf *out, uint32_t stream, const char *key, uint32_t blocks)
{
    for (uint32_t i = 0; i < blocks; i++) {
        struct buf block = {0};
        struct buf request_bytes = {0};
        block_put_header(&block, &(struct block_header){.count = 1});
        block_put_op(&block, &(struct op){.kind = OP_GET,
                                          .shard = shard_of_key(bytes_of_string(key), 16),
                                          .key = bytes_of_string(key)});
        struct msg_batch_request request = {
            .batch_id = i + 1, .reads = true, .operations = buf_view(&block)};
        msg_batch_request_encode(&request, &request_bytes);
        http_put_message(out, stream, (uint32_t)request_bytes.size, buf_view(&request_bytes),
                         false);
        buf_deinit(&request_bytes);
        buf_deinit(&block);
    }
}

static void put_get_call(struct buf *out, uint32_t stream, const char *key)
{
    struct http_request request = {.path = METHOD_KV_GET};
    struct msg_get_request message = {.key = bytes_of_string(key)};
    struct buf bytes = {0};
    msg_get_request_encode(&message, &bytes);
    http_put_headers(out, stream, &request, 0);
    http_put_message(out, stream, (uint32_t)bytes.size, buf_view(&bytes), true);
    buf_deinit(&bytes);
}

/* Streams and calls ask for a large value over and over and read nothing: neither the socket nor,
 * for the second half, would the window let it be sent. */
void test_unread_answers(void)
{
    static const char key[] = "large";
    struct scene *scene = scene_begin("unread");
    struct skv_client *client = open_client(scene);
    put_large_values(client, key, 1);
    skv_close(client);
    uint32_t count = 40 * scene_factor();
    int *fds = mem_calloc(count, sizeof *fds);
    for (uint32_t i = 0; i < count; i++) {
        struct buf bytes = {0};
        http_put_preface_window(&bytes, i % 2 == 0 ? 65535 : 0);
        struct http_request request = {.path = METHOD_KV_BATCH};
        for (uint32_t stream = 1; stream < 8; stream += 2) {
            http_put_headers(&bytes, stream, &request, 0);
            put_get_blocks(&bytes, stream, key, 60);
        }
        for (uint32_t stream = 9; stream < 9 + 2 * 20; stream += 2) {
            put_get_call(&bytes, stream, key);
        }
        fds[i] = connect_and_send(scene, SCENE_GROUP, i, buf_view(&bytes));
        buf_deinit(&bytes);
    }
    pause_ms(3000);
    close_all(fds, count);
    /* rpc_server_options.answer_bytes_max, what was cancelled but is not freed yet, and the rest */
    scene_end(scene, (2 * 256 + 192) * MIB);
}

/* ---- frames that cost more than they weigh ---- */

enum flood {
    FLOOD_PING,
    FLOOD_SETTINGS,
    FLOOD_RESET,
    FLOOD_EMPTY_DATA,
    FLOOD_HEADERS,
    FLOOD_WINDOW,
    FLOOD_KINDS
};

/* A few KiB of one kind of frame. `round` numbers the calls of all pieces. */
static void put_flood(struct buf *out, enum flood flood, uint32_t *round)
{
    static const uint8_t zeroes[8];
    static const uint8_t window[4] = {0, 0, 0, 1};
    static const uint8_t setting[6] = {0, 3, 0, 0, 0, 100};
    struct http_request request = {.path = METHOD_KV_GET};
    for (int i = 0; i < 200; i++) {
        switch (flood) {
        case FLOOD_PING: /* each is owed an answer */
            http_put_frame(out, HTTP_PING, 0, 0, bytes_of(zeroes, 8));
            break;
        case FLOOD_SETTINGS:
            http_put_frame(out, HTTP_SETTINGS, 0, 0, bytes_of(setting, 6));
            break;
        case FLOOD_RESET: /* calls begun and given up at once */
            *round += 2;
            http_put_headers(out, *round - 1, &request, 0);
            http_put_frame(out, HTTP_RST_STREAM, 0, *round - 1, bytes_of(zeroes, 4));
            break;
        case FLOOD_EMPTY_DATA:
            http_put_frame(out, HTTP_DATA, 0, 1, BYTES_EMPTY);
            break;
        case FLOOD_HEADERS: /* a header block that never ends */
            http_put_frame(out, *round == 0 ? HTTP_HEADERS : HTTP_CONTINUATION, 0, 1,
                           bytes_of("\x00\x03x-a\x03"
                                    "abc",
                                    9));
            *round = 1;
            break;
        case FLOOD_WINDOW:
            http_put_frame(out, HTTP_WINDOW_UPDATE, 0, 0, bytes_of(window, 4));
            break;
        case FLOOD_KINDS:
            FAIL("not a kind");
        }
    }
}

/* Nothing is read; each flood goes on as long as the server takes it, up to 2 MiB. */
void test_floods(void)
{
    struct scene *scene = scene_begin("floods");
    uint32_t count = 4 * FLOOD_KINDS * scene_factor();
    for (uint32_t i = 0; i < count; i++) {
        enum flood flood = (enum flood)(i % FLOOD_KINDS);
        struct buf bytes = {0};
        http_put_preface(&bytes);
        int fd = connect_and_send(scene, i / FLOOD_KINDS % 2 == 0 ? SCENE_GROUP : SCENE_CONTROLLER,
                                  i, buf_view(&bytes));
        uint32_t round = 0;
        for (uint64_t sent = 0; sent < 2 * MIB; sent += bytes.size) {
            buf_clear(&bytes);
            put_flood(&bytes, flood, &round);
            if (!http_send(fd, buf_view(&bytes), 0.2)) {
                break;
            }
        }
        buf_deinit(&bytes);
        close(fd);
    }
    scene_end(scene, 128 * MIB);
}

/* ---- connections that come and go ---- */

void test_connection_churn(void)
{
    struct scene *scene = scene_begin("churn");
    uint32_t count = 6000 * scene_factor();
    for (uint32_t i = 0; i < count; i++) {
        struct buf bytes = {0};
        struct http_request request = {.path = METHOD_KV_BATCH};
        if (i % 3 > 0) {
            http_put_preface(&bytes);
        }
        if (i % 3 > 1) {
            http_put_headers(&bytes, 1, &request, 0);
        }
        int fd = connect_and_send(scene, i / 3 % 2 == 0 ? SCENE_GROUP : SCENE_CONTROLLER, i,
                                  buf_view(&bytes));
        buf_deinit(&bytes);
        if (i / 6 % 2 == 0) {
            http_reset(fd);
        } else {
            close(fd);
        }
    }
    scene_end(scene, 128 * MIB);
}

/* ---- very many connections ---- */

/* A third says nothing, a third stops after its settings, a third has a stream open. All are there
 * at once, on one process. */
void test_ten_thousand_connections(void)
{
    enum { CONNECTIONS = 10000 };
    struct scene *scene = scene_begin("tenthousand");
    int *fds = mem_calloc(CONNECTIONS, sizeof *fds);
    double start = now_seconds();
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        struct buf bytes = {0};
        struct http_request request = {.path = METHOD_KV_BATCH};
        if (i % 3 > 0) {
            http_put_preface(&bytes);
        }
        if (i % 3 > 1) {
            http_put_headers(&bytes, 1, &request, 0);
        }
        fds[i] = connect_and_send(scene, SCENE_GROUP, i, buf_view(&bytes));
        buf_deinit(&bytes);
    }
    printf("%d connections in %.1f s\n", (int)CONNECTIONS, now_seconds() - start);
    CHECK(scene_answers(scene, SCENE_GROUP)); /* while they are there */
    pause_ms(1000);
    close_all(fds, CONNECTIONS);
    scene_end(scene, 10000 * 40 * 1024ull); /* 40 KiB a connection */
}

/* As many connections as there are files, and more: the server must keep files for its log and its
 * tables, and take connections again when the others have gone. Limits are those of the process, so
 * it need not be very many. */
void test_more_connections_than_files(void)
{
    enum { FILES = 1200, CONNECTIONS = 1500, VALUES = 80 };
    struct scene *scene = scene_begin("morethanfiles");
    struct skv_client *client = open_client(scene);
    put_large_values(client, "before", 1);
    struct rlimit few = {FILES, FILES};
    for (int i = 0; i < SCENE_VICTIMS; i++) {
        CHECK_EQ(prlimit(scene->victims[i]->pid, RLIMIT_NOFILE, &few, NULL), 0);
    }
    uint32_t count = SCENE_VICTIMS * CONNECTIONS;
    int *fds = mem_calloc(count, sizeof *fds);
    struct buf bytes = {0};
    http_put_preface(&bytes);
    for (uint32_t i = 0; i < count; i++) {
        fds[i] =
            connect_and_send(scene, (enum scene_victim)(i % SCENE_VICTIMS), i, buf_view(&bytes));
    }
    buf_deinit(&bytes);
    put_large_values(client, "while there are too many", VALUES); /* segments, and a flush */
    uint32_t refused = 0;
    for (uint32_t i = 0; i < count; i++) {
        refused += http_is_closed(fds[i], 0) ? 1 : 0;
    }
    printf("%u of %u connections were refused\n", refused, count);
    CHECK_CMP(refused, >=, SCENE_VICTIMS * (CONNECTIONS - FILES));
    close_all(fds, count);
    skv_close(client);
    scene_end(scene, 256 * MIB);
}
