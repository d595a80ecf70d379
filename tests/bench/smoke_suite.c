/* shardkv-bench against a small cluster of real processes: two seconds of work each way, and what
 * it says of them. */
#include "cluster/harness.h"
#include "lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long long integer(const json_t *root, const char *object, const char *name)
{
    const json_t *at = object != NULL ? json_object_get(root, object) : root;
    const json_t *value = json_object_get(at, name);
    if (!json_is_integer(value)) {
        FAIL("the results have no %s.%s", object != NULL ? object : "", name);
    }
    return json_integer_value(value);
}

/* Runs the benchmark with these flags and gives its results. */
static json_t *run_bench(const struct cluster *cluster, int wanted_code, const char *const *flags)
{
    const char *program = getenv("SHARDKV_BENCH");
    if (program == NULL) {
        FAIL("SHARDKV_BENCH must name the program");
    }
    char controllers[300], name[100];
    snprintf(controllers, sizeof controllers, "--controllers=%s", cluster->controllers);
    snprintf(name, sizeof name, "--cluster=%s", cluster->name);
    char *argv[32] = {(char *)program, controllers,       name,           "--json",
                      "--keys=500",    "--warm-up=100ms", "--no-progress"};
    size_t count = 7;
    for (size_t i = 0; flags[i] != NULL; i++) {
        argv[count++] = (char *)flags[i];
    }
    argv[count] = NULL;
    struct buf out;
    buf_init(&out);
    int code = program_run(argv, 60, &out);
    if (code != wanted_code) {
        FAIL("exit code %d instead of %d: %.*s", code, wanted_code, (int)out.size,
             (char *)out.data);
    }
    json_t *root = json_loadb((const char *)out.data, out.size, 0, NULL);
    if (root == NULL) {
        FAIL("no JSON: %.*s", (int)out.size, (char *)out.data);
    }
    buf_deinit(&out);
    return root;
}

static void check_clean(const json_t *root)
{
    long long begun = integer(root, "outcomes", "begun");
    if (begun < 10 || integer(root, "outcomes", "done") != begun ||
        integer(root, "latency", "count") != begun ||
        !json_is_true(json_object_get(root, "clean"))) {
        FAIL("of %lld begun: %lld done, %lld unknown, %lld latencies", begun,
             integer(root, "outcomes", "done"), integer(root, "outcomes", "unknown"),
             integer(root, "latency", "count"));
    }
    if (integer(root, "latency", "p50_ns") <= 0 ||
        integer(root, "latency", "p99_ns") < integer(root, "latency", "p50_ns") ||
        integer(root, "latency", "max_ns") < integer(root, "latency", "p99_ns")) {
        FAIL("the quantiles are out of order");
    }
}

static void smoke(void)
{
    struct cluster cluster;
    cluster_create(&cluster, "bench", 8);
    cluster_start_group(&cluster, 1);
    char spec[256], svg[300], svg_flag[310];
    cluster_group_spec(&cluster, 1, spec, sizeof spec);
    if (cluster_ctl(&cluster, 60, NULL, "join", "--timeout=50s", "--wait", spec, NULL) != 0) {
        FAIL("join failed");
    }
    snprintf(svg, sizeof svg, "%s/picture.svg", cluster.dir);
    snprintf(svg_flag, sizeof svg_flag, "--svg=%s", svg);

    json_t *library = run_bench(&cluster, 0,
                                (const char *const[]){"--mix=get=40,put=30,append=20,cas=10",
                                                      "--distribution=zipfian", "--outstanding=32",
                                                      "--duration=2s", svg_flag, NULL});
    check_clean(library);
    long long parts = integer(library, "get", "count") + integer(library, "put", "count") +
                      integer(library, "append", "count") + integer(library, "cas", "count");
    if (parts != integer(library, "latency", "count")) {
        FAIL("the kinds give %lld, all %lld", parts, integer(library, "latency", "count"));
    }
    FILE *picture = fopen(svg, "re");
    if (picture == NULL || fgetc(picture) != '<') {
        FAIL("no picture in %s", svg);
    }
    fclose(picture);
    json_decref(library);

    json_t *unary =
        run_bench(&cluster, 0,
                  (const char *const[]){"--unary", "--mix=get=50,put=50", "--no-preload",
                                        "--outstanding=16", "--operations=500", NULL});
    check_clean(unary);
    if (integer(unary, "outcomes", "begun") != 500) {
        FAIL("%lld operations instead of 500", integer(unary, "outcomes", "begun"));
    }
    json_decref(unary);

    /* 200 a second for 2 seconds: exactly 400 moments lie in the measured time. A leader is killed
     * in it, and no put may be lost by that, but the gap must be seen. */
    struct process *leader = cluster_leader(&cluster, 1, 20);
    if (leader == NULL) {
        FAIL("no leader");
    }
    char event[64];
    snprintf(event, sizeof event, "--event=kill -9 %d", (int)leader->pid);
    json_t *open = run_bench(&cluster, 0,
                             (const char *const[]){"--no-preload", "--rate=200", "--duration=2s",
                                                   "--outstanding=2000", "--event-at=500ms",
                                                   "--timeout=30s", event, NULL});
    check_clean(open);
    long long begun = integer(open, "outcomes", "begun");
    if (begun < 399 || begun > 401) {
        FAIL("%lld operations begun in an open loop instead of 400", begun);
    }
    if (integer(open, "event", "next_done_ns") <= 0 ||
        integer(open, "latency", "max_ns") < integer(open, "event", "next_done_ns") / 2) {
        FAIL("next done after %lld ns, slowest took %lld ns",
             integer(open, "event", "next_done_ns"), integer(open, "latency", "max_ns"));
    }
    json_decref(open);

    /* With no majority left nothing can be done, and the tool has to say so. */
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        process_kill(cluster_find(&cluster, 1, id));
    }
    json_t *dead = run_bench(&cluster, 1,
                             (const char *const[]){"--no-preload", "--duration=500ms",
                                                   "--outstanding=4", "--timeout=300ms", NULL});
    if (integer(dead, "outcomes", "done") != 0 || json_is_true(json_object_get(dead, "clean")) ||
        integer(dead, "outcomes", "not_done") + integer(dead, "outcomes", "unknown") == 0) {
        FAIL("puts to a dead group: %lld done", integer(dead, "outcomes", "done"));
    }
    json_decref(dead);
    cluster_destroy(&cluster);
}

int main(int argc, char **argv)
{
    const struct suite_test tests[] = {{"Smoke", smoke}};
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
