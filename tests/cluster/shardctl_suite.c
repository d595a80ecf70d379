/* shardctl and Kv.Scan against a small cluster of real processes: pieces of a scan, exports while
 * shards move, what administrators do and are told. */
#include "base/clock.h"
#include "client/ctl/jsonl.h"
#include "cluster/harness.h"
#include "lib/suite.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "rpc/rpc.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 16, ROWS = 20000, LARGE_ROWS = 5, LARGE_BYTES = 1500 * 1000 };

static struct cluster cluster;

static void join_groups(void)
{
    char one[512], two[512];
    cluster_group_spec(&cluster, 1, one, sizeof one);
    cluster_group_spec(&cluster, 2, two, sizeof two);
    CHECK_EQ(cluster_ctl(&cluster, 90, NULL, "join", "--wait", "--timeout=30s", one, two, NULL), 0);
}

static void begin(const char *name)
{
    cluster_create(&cluster, name, SHARDS);
    cluster.keep = true; /* until it has passed */
    cluster_start_group(&cluster, 1);
    cluster_start_group(&cluster, 2);
    join_groups();
}

static void end(void)
{
    cluster.keep = false;
    cluster_destroy(&cluster);
}

/* Row i of the data set: keys of all kinds, a few values larger than a piece of a scan. */
static void make_row(uint32_t i, struct jsonl_row *row)
{
    buf_clear(&row->key);
    buf_clear(&row->value);
    if (i % 3 == 0) {
        buf_append(&row->key, "\xff\x00", 2); /* no UTF-8 */
    }
    buf_printf(&row->key, "row-%u", i);
    if (i < LARGE_ROWS) {
        memset(buf_reserve(&row->value, LARGE_BYTES), 'a' + (int)i, LARGE_BYTES);
        row->value.size = LARGE_BYTES;
    } else if (i % 100 != 0) {
        buf_printf(&row->value, "value %u", i * 2654435761u);
    }
}

static void load_rows(uint32_t count)
{
    char path[300];
    struct jsonl_row row = {0};
    snprintf(path, sizeof path, "%s/in.jsonl", cluster.dir);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL);
    for (uint32_t i = 0; i < count; i++) {
        make_row(i, &row);
        struct bytes value = buf_view(&row.value);
        CHECK_EQ(jsonl_print(file, buf_view(&row.key), &value), 0);
    }
    CHECK_EQ(fclose(file), 0);
    jsonl_row_deinit(&row);
    CHECK_EQ(cluster_ctl(&cluster, 120, NULL, "load", path, NULL), 0);
}

/* ---- exports ---- */

static void check_export(const char *path, uint32_t count)
{
    bool *seen = mem_calloc(count, sizeof(bool));
    struct jsonl_row row = {0}, wanted = {0};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    uint32_t found = 0;
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    while ((size = getline(&line, &capacity, file)) >= 0) {
        char why[256], key[64];
        CHECK_EQ(jsonl_parse(bytes_of(line, (size_t)size), &row, why, sizeof why), 0);
        size_t skip = row.key.size > 2 && row.key.data[0] == 0xff ? 2 : 0;
        snprintf(key, sizeof key, "%.*s", (int)(row.key.size - skip), row.key.data + skip);
        CHECK(strncmp(key, "row-", 4) == 0);
        uint32_t i = (uint32_t)strtoul(key + 4, NULL, 10);
        CHECK_CMP(i, <, count);
        CHECK(!seen[i]);
        seen[i] = true;
        make_row(i, &wanted);
        CHECK(bytes_equal(buf_view(&row.key), buf_view(&wanted.key)));
        CHECK(bytes_equal(buf_view(&row.value), buf_view(&wanted.value)));
        found++;
    }
    CHECK_EQ(fclose(file), 0);
    CHECK_EQ(found, count);
    free(line);
    free(seen);
    jsonl_row_deinit(&row);
    jsonl_row_deinit(&wanted);
}

struct mover {
    atomic_bool stop;
    atomic_int moves;
    atomic_int failures;
};

static void *move_shards(void *context)
{
    struct mover *mover = context;
    for (uint32_t i = 0; !atomic_load(&mover->stop); i++) {
        char shard[16];
        snprintf(shard, sizeof shard, "%u", i * 7 % SHARDS);
        int code = cluster_ctl(&cluster, 90, NULL, "move", "--wait", "--timeout=30s", shard,
                               i / SHARDS % 2 == 0 ? "2" : "1", NULL);
        atomic_fetch_add(code == 0 ? &mover->moves : &mover->failures, 1);
    }
    return NULL;
}

static void export_while_shards_move(void)
{
    begin("export");
    load_rows(ROWS);
    struct mover mover = {0};
    pthread_t thread;
    char path[300];
    snprintf(path, sizeof path, "%s/out.jsonl", cluster.dir);
    CHECK_EQ(pthread_create(&thread, NULL, move_shards, &mover), 0);
    double limit = now_seconds() + 120;
    int exports = 0;
    while (exports < 3 || atomic_load(&mover.moves) < 6) {
        CHECK(now_seconds() < limit);
        CHECK_EQ(cluster_ctl(&cluster, 120, NULL, "export", "--output", path, NULL), 0);
        check_export(path, ROWS);
        exports++;
    }
    atomic_store(&mover.stop, true);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(atomic_load(&mover.failures), 0);
    printf("%d exports while %d shards moved\n", exports, atomic_load(&mover.moves));
    struct buf out = {0};
    CHECK_EQ(cluster_ctl(&cluster, 60, &out, "export", "--prefix=row-1999", "--keys-only", NULL),
             0);
    buf_append(&out, "", 1);
    uint32_t lines = 0;
    for (const char *at = (const char *)out.data; (at = strchr(at, '\n')) != NULL; at++) {
        lines++;
    }
    uint32_t expected =
        0; /* 1999, 19990 .. 19999, but for those whose keys start with other bytes */
    for (uint32_t i = 0; i < ROWS; i++) {
        expected += i % 3 != 0 && (i == 1999 || i / 10 == 1999);
    }
    CHECK_EQ(lines, expected);
    CHECK(strstr((const char *)out.data, "value") == NULL);
    buf_deinit(&out);
    end();
}

/* ---- pieces ---- */

static void scan(const struct process *process, const struct msg_scan_request *scan_request,
                 struct buf *reply, struct msg_scan_response *response)
{
    char address[64], text[256];
    struct rpc_channel *channel;
    struct buf request = {0};
    snprintf(address, sizeof address, "127.0.0.1:%u", process->port);
    CHECK_EQ(rpc_channel_create(cluster.rpc, address, &channel), 0);
    msg_scan_request_encode(scan_request, &request);
    buf_clear(reply);
    uint64_t deadline_ns = clock_now_ns(clock_system()) + 20 * NS_PER_S;
    CHECK_EQ(
        rpc_call_wait(channel, METHOD_KV_SCAN, &request, deadline_ns, reply, text, sizeof text), 0);
    CHECK_EQ(msg_scan_response_decode(buf_view(reply), response), 0);
    buf_deinit(&request);
    rpc_channel_destroy(channel);
}

/* The same of a group's leader, whoever that is: a busy machine may bring an election at any time.
 */
static void scan_led(uint64_t group, const struct msg_scan_request *request, struct buf *reply,
                     struct msg_scan_response *response)
{
    double limit = now_seconds() + 40;
    for (;;) {
        const struct process *leader = cluster_leader(&cluster, group, 20);
        CHECK(leader != NULL);
        scan(leader, request, reply, response);
        int error = response->header.error;
        if (error != ERR_NOT_LEADER && error != ERR_NO_QUORUM && error != ERR_LEADER_LOST) {
            return;
        }
        CHECK(now_seconds() < limit);
    }
}

/* All rows of a shard in pieces; the number of rows. */
static uint32_t scan_all(struct msg_scan_request request, uint32_t *pieces)
{
    struct buf reply = {0}, after = {0};
    uint32_t rows = 0;
    bool over = false;
    *pieces = 0;
    while (!over) {
        struct msg_scan_response response = {0};
        request.after_key = buf_view(&after);
        scan_led(1, &request, &reply, &response);
        CHECK_EQ(response.header.error, 0);
        CHECK(response.row_count > 0 || response.end);
        size_t bytes = 0;
        for (uint32_t i = 0; i < response.row_count; i++) {
            struct bytes key = response.rows[i].key;
            CHECK_CMP(bytes_compare(key, buf_view(&after)), >, 0); /* ascending, none twice */
            CHECK_EQ(shard_of_key(key, SHARDS), request.shard);
            CHECK_CMP(response.rows[i].version, >, 0);
            CHECK(!request.keys_only || response.rows[i].value.size == 0);
            bytes += key.size + response.rows[i].value.size;
            buf_clear(&after);
            buf_append_bytes(&after, key);
        }
        if (request.rows_max != 0) {
            CHECK_CMP(response.row_count, <=, request.rows_max);
        }
        if (request.bytes_max != 0 && response.row_count > 1) {
            CHECK_CMP(bytes, <=, request.bytes_max);
        }
        rows += response.row_count;
        (*pieces)++;
        over = response.end;
        msg_scan_response_deinit(&response);
    }
    buf_deinit(&reply);
    buf_deinit(&after);
    return rows;
}

static uint32_t rows_of_shard(uint32_t shard, uint32_t count)
{
    struct jsonl_row row = {0};
    uint32_t rows = 0;
    for (uint32_t i = 0; i < count; i++) {
        make_row(i, &row);
        rows += shard_of_key(buf_view(&row.key), SHARDS) == shard;
    }
    jsonl_row_deinit(&row);
    return rows;
}

static void scan_gives_each_row_once_in_any_pieces(void)
{
    enum { COUNT = 2000 };
    begin("scan");
    load_rows(COUNT);
    uint64_t cluster_id = cluster_id_of_name(cluster.name);
    uint32_t pieces, total = 0;
    for (uint32_t shard = 0; shard < SHARDS / 2;
         shard++) { /* one join of two groups: the first half */
        uint32_t expected = rows_of_shard(shard, COUNT);
        struct msg_scan_request request = {.shard = shard, .header.cluster_id = cluster_id};
        CHECK_EQ(scan_all(request, &pieces), expected);
        request.rows_max = 7;
        CHECK_EQ(scan_all(request, &pieces), expected);
        CHECK_CMP(pieces, >=, (expected + 6) / 7);
        CHECK_CMP(pieces, <=, (expected + 6) / 7 + 2 * LARGE_ROWS); /* a large row ends a piece */
        request.rows_max = 0;
        request.bytes_max = 300; /* below the large values: each of them comes alone */
        CHECK_EQ(scan_all(request, &pieces), expected);
        request.keys_only = true;
        request.bytes_max = 0;
        CHECK_EQ(scan_all(request, &pieces), expected);
        CHECK_EQ(pieces, 1);
        total += expected;
    }
    CHECK_CMP(total, >, 0);
    end();
}

static void scan_is_refused_where_it_must_be(void)
{
    begin("refuse");
    struct msg_scan_response response = {0};
    struct buf reply = {0};
    uint64_t cluster_id = cluster_id_of_name(cluster.name);
    struct msg_scan_request request = {.shard = SHARDS - 1, .header.cluster_id = cluster_id};
    scan_led(1, &request, &reply, &response);
    CHECK_EQ(response.header.error,
             ERR_WRONG_GROUP); /* the other group's, and the answer says so */
    CHECK(response.header.has_route);
    CHECK_EQ(response.header.route.group_id, 2);
    request.shard = SHARDS;
    scan_led(1, &request, &reply, &response);
    CHECK_EQ(response.header.error, ERR_SHARD_RANGE);
    request.shard = 0;
    request.header.cluster_id = cluster_id + 1;
    scan_led(1, &request, &reply, &response);
    CHECK_EQ(response.header.error, ERR_WRONG_CLUSTER);
    request.header.cluster_id = 0; /* not checked */
    scan_led(1, &request, &reply, &response);
    CHECK_EQ(response.header.error, 0);
    CHECK(response.end);
    msg_scan_response_deinit(&response);
    bool told = false;
    double limit = now_seconds() + 40;
    while (!told) { /* a follower points to its leader, once both agree who that is */
        char address[64];
        const struct process *leader = cluster_leader(&cluster, 1, 20);
        CHECK(leader != NULL);
        snprintf(address, sizeof address, "127.0.0.1:%u", leader->port);
        scan(cluster_find(&cluster, 1, leader->id % CLUSTER_REPLICAS + 1), &request, &reply,
             &response);
        told = response.header.error == ERR_NOT_LEADER && response.header.has_route &&
               strcmp(response.header.route.leader_address, address) == 0;
        msg_scan_response_deinit(&response);
        CHECK(now_seconds() < limit);
    }
    buf_deinit(&reply);
    end();
}

/* ---- administrators ---- */

static json_t *group_of(json_t *status, size_t index)
{
    json_t *group = json_array_get(json_object_get(status, "groups"), index);
    CHECK(group != NULL);
    return group;
}

static int64_t number_of(json_t *object, const char *name)
{
    CHECK(json_is_integer(json_object_get(object, name)));
    return json_integer_value(json_object_get(object, name));
}

static void check_status(void)
{
    int code;
    json_t *status = cluster_ctl_json(&cluster, 30, &code, "status", NULL);
    CHECK_EQ(code, 0);
    CHECK_EQ(number_of(status, "shard_count"), SHARDS);
    CHECK_EQ(json_array_size(json_object_get(status, "controllers")), 3);
    int64_t shards = 0;
    for (size_t g = 0; g < 2; g++) {
        json_t *group = group_of(status, g);
        json_t *replicas = json_object_get(group, "replicas");
        int leaders = 0;
        shards += number_of(group, "shards");
        CHECK_EQ(json_array_size(replicas), 3);
        for (size_t i = 0; i < 3; i++) {
            const char *role =
                json_string_value(json_object_get(json_array_get(replicas, i), "role"));
            leaders += role != NULL && strcmp(role, "leader") == 0;
        }
        CHECK_EQ(leaders, 1);
    }
    CHECK_EQ(shards, SHARDS);
    json_decref(status);
}

/* A busy machine may elect somebody else right after; then once more. */
static const struct process *transfer_to_another(void)
{
    for (int attempt = 0; attempt < 5; attempt++) {
        char id[16];
        const struct process *leader = cluster_leader(&cluster, 1, 20);
        CHECK(leader != NULL);
        uint32_t target = leader->id % CLUSTER_REPLICAS + 1;
        snprintf(id, sizeof id, "%u", target);
        int first = cluster_ctl(&cluster, 40, NULL, "transfer", "1", "--to", id, NULL);
        int again = cluster_ctl(&cluster, 40, NULL, "transfer", "1", "--to", id, NULL);
        leader = cluster_leader(&cluster, 1, 20);
        if (first == 0 && again == 0 && leader != NULL && leader->id == target) {
            return leader; /* twice is harmless */
        }
    }
    FAIL("leadership went elsewhere five times");
}

static void transfer_and_kill(void)
{
    char address[64];
    const struct process *leader = transfer_to_another();
    uint32_t target = leader->id;
    snprintf(address, sizeof address, "127.0.0.1:%u", leader->port);
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "health", address, NULL), 0);
    process_kill(cluster_find(&cluster, 1, target));
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "health", address, "--timeout=500ms", NULL), 6);
    CHECK_EQ(cluster_ctl(&cluster, 40, NULL, "put", "after", "kill", "--timeout=20s", NULL), 0);
    process_start(&cluster, cluster_find(&cluster, 1, target));
    CHECK_EQ(cluster_ctl(&cluster, 90, NULL, "wait", "--timeout=20s", NULL), 0);
}

static void administrators_are_told_the_truth(void)
{
    begin("admin");
    char one[512];
    cluster_group_spec(&cluster, 1, one, sizeof one);
    check_status();
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "join", one, NULL), 1); /* is in already */
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "join", "9=127.0.0.1:1,127.0.0.1:1", NULL), 1);
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "leave", "7", NULL), 4);
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "leave", "1", "2", NULL),
             1); /* the last: say --force */
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "move", "3", "7", NULL), 4);
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "move", "99", "1", NULL), 1);
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "query", "--config=99", NULL), 4);
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "query", "--config=0", NULL), 0);
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "member", "list", "7", NULL), 4);
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "member", "list", "controllers", NULL), 0);
    transfer_and_kill();
    CHECK_EQ(cluster_ctl(&cluster, 90, NULL, "leave", "--wait", "1", NULL), 0);
    struct buf value = {0};
    CHECK_EQ(cluster_ctl(&cluster, 30, &value, "get", "after", NULL), 0);
    CHECK(bytes_equal(buf_view(&value), bytes_of("kill", 4)));
    buf_deinit(&value);
    end();
}

int main(int argc, char **argv)
{
    const struct suite_test tests[] = {
        {"ExportWhileShardsMove", export_while_shards_move},
        {"ScanGivesEachRowOnceInAnyPieces", scan_gives_each_row_once_in_any_pieces},
        {"ScanIsRefusedWhereItMustBe", scan_is_refused_where_it_must_be},
        {"AdministratorsAreToldTheTruth", administrators_are_told_the_truth},
    };
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
