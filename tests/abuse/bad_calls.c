/* Calls that are wrong in one way each, and connections that are wrong in every way. */
#include "abuse/abuse.h"
#include "abuse/http.h"
#include "abuse/scene.h"
#include "lib/suite.h"
#include "proto/methods.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    ANSWER_SECONDS = 5,
    CALLS_DURING_BYTES = 64 * 1024 * 1024,
    ANY = -2, /* answered with any status, a reset or a close; but answered */
};

static const char *const methods[] = {
    METHOD_KV_GET,
    METHOD_KV_PUT,
    METHOD_KV_APPEND,
    METHOD_KV_DELETE,
    METHOD_KV_COMPARE_AND_SET,
    METHOD_KV_BATCH,
    METHOD_KV_SCAN,
    METHOD_CONTROLLER_JOIN,
    METHOD_CONTROLLER_LEAVE,
    METHOD_CONTROLLER_MOVE,
    METHOD_CONTROLLER_UPDATE_MEMBERS,
    METHOD_CONTROLLER_QUERY,
    METHOD_CONTROLLER_WATCH,
    METHOD_ADMIN_STATUS,
    METHOD_ADMIN_TRANSFER,
    METHOD_ADMIN_CHANGE_MEMBER,
    METHOD_PEER_MESSAGES,
    METHOD_SHARD_MOVE_OPEN,
    METHOD_SHARD_MOVE_READ,
    METHOD_SHARD_MOVE_FREEZE,
    METHOD_SHARD_MOVE_DROP,
};
enum { METHOD_COUNT = sizeof methods / sizeof methods[0] };

/* ---- one thing wrong ---- */

struct wrong_call {
    const char *what;
    struct http_request request;
    bool no_body;
    uint8_t flag;        /* the first of gRPC's five bytes */
    uint32_t claimed;    /* the other four */
    uint32_t body_bytes; /* what follows */
    int status;          /* that must come, or ANY */
};

#define GRPC_INVALID_ARGUMENT 3
#define GRPC_UNIMPLEMENTED    12
static char long_value[9000];

static const struct wrong_call wrong_calls[] = {
    {"a method that is not there",
     {.path = "/shardkv.v1.Kv/Nothing"},
     .status = GRPC_UNIMPLEMENTED},
    {"a service that is not there", {.path = "/nobody.v9.None/Get"}, .status = GRPC_UNIMPLEMENTED},
    {"a path that is none", {.path = "/"}, .status = GRPC_UNIMPLEMENTED},
    {"a path of another house", {.path = "../../etc/passwd"}, .status = GRPC_UNIMPLEMENTED},
    {"no path", {.path = NULL}, .status = ANY},
    {"another HTTP method", {.path = METHOD_KV_GET, .method = "GET"}, .status = ANY},
    {"an HTTP method of nobody", {.path = METHOD_KV_GET, .method = "BREW"}, .status = ANY},
    {"another content type", {.path = METHOD_KV_GET, .content_type = "text/html"}, .status = ANY},
    {"an empty content type", {.path = METHOD_KV_GET, .content_type = ""}, .status = ANY},
    {"no message", {.path = METHOD_KV_GET}, .no_body = true, .status = ANY},
    {"fewer bytes than said",
     {.path = METHOD_KV_PUT},
     .claimed = 100,
     .body_bytes = 10,
     .status = ANY},
    {"more bytes than said",
     {.path = METHOD_KV_PUT},
     .claimed = 10,
     .body_bytes = 100,
     .status = ANY},
    {"one byte over the limit",
     {.path = METHOD_KV_PUT},
     .claimed = 20 * 1024 * 1024 + 1,
     .body_bytes = 10,
     .status = GRPC_INVALID_ARGUMENT},
    {"the longest length there is",
     {.path = METHOD_KV_PUT},
     .claimed = UINT32_MAX,
     .body_bytes = 10,
     .status = GRPC_INVALID_ARGUMENT},
    {"a length over the limit on a stream",
     {.path = METHOD_KV_BATCH},
     .claimed = UINT32_MAX,
     .body_bytes = 10,
     .status = ANY},
    {"compressed without saying how",
     {.path = METHOD_KV_PUT},
     .flag = 1,
     .claimed = 10,
     .body_bytes = 10,
     .status = ANY},
    {"a flag of nobody",
     {.path = METHOD_KV_PUT},
     .flag = 77,
     .claimed = 10,
     .body_bytes = 10,
     .status = ANY},
    {"headers over the limit",
     {.path = METHOD_KV_GET, .extra_name = "x-long", .extra_value = long_value},
     .status = ANY},
    {"a deadline that is none",
     {.path = METHOD_KV_GET, .extra_name = "grpc-timeout", .extra_value = "soon"},
     .status = ANY},
    {"a deadline before now",
     {.path = METHOD_KV_GET, .extra_name = "grpc-timeout", .extra_value = "-1S"},
     .status = ANY},
    {"an encoding of nobody",
     {.path = METHOD_KV_GET, .extra_name = "grpc-encoding", .extra_value = "zip"},
     .status = ANY},
    {"an upper-case header",
     {.path = METHOD_KV_GET, .extra_name = "X-Loud", .extra_value = "yes"},
     .status = ANY},
    {"a header of binary",
     {.path = METHOD_KV_GET, .extra_name = "x-bin", .extra_value = "\x01\xff!"},
     .status = ANY},
};

static void make_call(const struct wrong_call *wrong, struct rng *rng, struct buf *out)
{
    struct buf body = {0};
    http_put_noise(&body, rng, wrong->body_bytes);
    http_put_preface(out);
    http_put_headers(out, 1, &wrong->request, wrong->no_body ? HTTP_END_STREAM : 0);
    if (!wrong->no_body) {
        size_t at = out->size + 9; /* behind the frame's header */
        http_put_message(out, 1, wrong->claimed, buf_view(&body), true);
        out->data[at] = wrong->flag;
    }
    buf_deinit(&body);
}

static void check_answer(const char *what, int status, const struct http_answer *answer)
{
    bool answered = answer->grpc_status >= 0 || answer->http_status >= 0 ||
                    answer->reset_error >= 0 || answer->goaway_error >= 0 || answer->closed;
    if (!answered) {
        FAIL("%s: no answer in %d s", what, ANSWER_SECONDS);
    }
    if (status != ANY && answer->grpc_status != status) {
        FAIL("%s: status %d (reset %d, goaway %d) instead of %d", what, answer->grpc_status,
             answer->reset_error, answer->goaway_error, status);
    }
}

static void call_wrongly(struct scene *scene, const struct wrong_call *wrong, struct rng *rng)
{
    for (int victim = 0; victim < SCENE_VICTIMS; victim++) {
        /* The other program does not have the method: then that is what it says, if it says it. */
        bool there = victim == SCENE_GROUP || wrong->status == GRPC_UNIMPLEMENTED;
        struct buf bytes = {0};
        struct http_answer answer;
        make_call(wrong, rng, &bytes);
        int fd = http_connect(scene_port(scene, (enum scene_victim)victim), 1);
        CHECK_CMP(fd, >=, 0);
        (void)http_send(fd, buf_view(&bytes), ANSWER_SECONDS);
        http_read_answer(fd, ANSWER_SECONDS, &answer);
        check_answer(wrong->what, there ? wrong->status : ANY, &answer);
        close(fd);
        buf_deinit(&bytes);
    }
}

void test_wrong_calls(void)
{
    struct scene *scene = scene_begin("wrongcalls");
    struct rng rng;
    rng_init(&rng, 1);
    memset(long_value, 'x', sizeof long_value - 1);
    for (size_t i = 0; i < sizeof wrong_calls / sizeof wrong_calls[0]; i++) {
        call_wrongly(scene, &wrong_calls[i], &rng);
    }
    /* Every method of the house, with noise where its message should be. */
    for (uint32_t round = 0; round < 8 * scene_factor(); round++) {
        for (size_t i = 0; i < METHOD_COUNT; i++) {
            uint32_t size = (uint32_t)rng_below(&rng, round % 2 == 0 ? 40 : 40000);
            call_wrongly(scene,
                         &(struct wrong_call){.what = methods[i],
                                              .request = {.path = methods[i]},
                                              .claimed = size,
                                              .body_bytes = size,
                                              .status = ANY},
                         &rng);
        }
    }
    scene_end(scene, CALLS_DURING_BYTES);
}

/* ---- everything wrong ---- */

static void put_random_frame(struct buf *out, struct rng *rng)
{
    struct buf payload = {0};
    http_put_noise(&payload, rng, rng_below(rng, rng_chance(rng, 1, 10) ? 5000 : 30));
    uint8_t type = (uint8_t)rng_below(rng, rng_chance(rng, 1, 10) ? 256 : 10);
    uint32_t stream =
        rng_chance(rng, 1, 10) ? (uint32_t)rng_next(rng) : (uint32_t)rng_below(rng, 8);
    http_put_frame(out, type, (uint8_t)rng_next(rng), stream, buf_view(&payload));
    buf_deinit(&payload);
}

/* A call as it should be, to be damaged. */
static void put_good_call(struct buf *out, struct rng *rng, uint32_t stream)
{
    struct buf body = {0};
    http_put_noise(&body, rng, rng_below(rng, 200));
    struct http_request request = {.path = methods[rng_below(rng, METHOD_COUNT)]};
    http_put_headers(out, stream, &request, 0);
    http_put_message(out, stream, (uint32_t)body.size, buf_view(&body), rng_chance(rng, 1, 2));
    buf_deinit(&body);
}

static void put_connection(struct buf *out, struct rng *rng)
{
    uint64_t kind = rng_below(rng, 4);
    if (kind == 0) { /* not HTTP/2 at all */
        http_put_noise(out, rng, 1 + rng_below(rng, 2000));
        return;
    }
    http_put_preface(out);
    if (kind == 1) {
        http_put_noise(out, rng, 1 + rng_below(rng, 2000));
        return;
    }
    for (uint32_t i = 0; i < 1 + rng_below(rng, 8); i++) {
        if (kind == 2) {
            put_random_frame(out, rng);
        } else {
            put_good_call(out, rng, 2 * i + 1);
        }
    }
    if (kind == 3) {
        for (uint64_t left = 1 + rng_below(rng, 4); left > 0; left--) {
            out->data[rng_below(rng, out->size)] ^= (uint8_t)(1u << rng_below(rng, 8));
        }
        out->size -= rng_chance(rng, 1, 4) ? rng_below(rng, out->size) : 0;
    }
}

void test_random_frames(void)
{
    struct scene *scene = scene_begin("randomframes");
    uint32_t count = 1500 * scene_factor();
    for (uint32_t seed = 0; seed < count; seed++) {
        struct rng rng;
        struct buf bytes = {0};
        rng_init(&rng, seed);
        put_connection(&bytes, &rng);
        enum scene_victim victim = seed % 2 == 0 ? SCENE_GROUP : SCENE_CONTROLLER;
        int fd = http_connect(scene_port(scene, victim), seed);
        if (fd < 0) {
            FAIL("seed %u: the %s takes no connection any more", seed,
                 victim == SCENE_GROUP ? "group" : "controller");
        }
        /* Half of them in two pieces, so that frames are cut anywhere. */
        size_t cut = rng_chance(&rng, 1, 2) ? rng_below(&rng, bytes.size + 1) : bytes.size;
        (void)http_send(fd, bytes_of(bytes.data, cut), 1);
        (void)http_send(fd, bytes_of(bytes.data + cut, bytes.size - cut), 1);
        if (rng_chance(&rng, 1, 4)) {
            (void)http_is_closed(fd, 0.01);
        }
        if (rng_chance(&rng, 1, 2)) {
            http_reset(fd);
        } else {
            close(fd);
        }
        buf_deinit(&bytes);
    }
    scene_end(scene, CALLS_DURING_BYTES);
}
