/* J15: administrators give orders at once while the controllers' leader is killed under them:
 * configs are totally ordered. Each order that was acknowledged made exactly the config it was
 * told, none made two, and every config is its predecessor with one order carried out. */
#include "fault/fault_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { GROUPS = 3, ADMINS = 3, ORDERS_MAX = 2048, PAUSE_MS_MAX = 800 };

struct order {
    uint32_t shard;
    uint64_t group;
    json_int_t config; /* 0: not acknowledged */
};

struct admin {
    const struct cluster *cluster;
    atomic_bool *stop;
    pthread_t thread;
    struct rng rng;
    struct order orders[ORDERS_MAX];
    uint32_t count;
    uint32_t acknowledged, unknown;
};

static void give_order(struct admin *admin)
{
    struct order *order = &admin->orders[admin->count];
    order->shard = (uint32_t)rng_below(&admin->rng, FAULT_SHARDS);
    order->group = rng_between(&admin->rng, 1, GROUPS);
    char shard[16], group[24];
    snprintf(shard, sizeof shard, "%u", order->shard);
    snprintf(group, sizeof group, "%llu", (unsigned long long)order->group);
    int code = -1;
    json_t *answer =
        cluster_ctl_json(admin->cluster, 60, &code, "move", "--timeout", "10s", shard, group, NULL);
    if (code == 0) {
        order->config = json_integer_value(json_object_get(answer, "config"));
        admin->acknowledged++;
        admin->count++;
    } else if (code == 3 || code == -1) {
        admin->unknown++;
    }
    json_decref(answer);
}

static void *run_admin(void *context)
{
    struct admin *admin = context;
    while (!atomic_load(admin->stop) && admin->count < ORDERS_MAX) {
        give_order(admin);
        long pause_ms = (long)rng_below(&admin->rng, PAUSE_MS_MAX);
        struct timespec pause = {0, pause_ms * 1000000L};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* gives */
static json_t *config_at(struct fault *fault, json_int_t number)
{
    char flag[40];
    snprintf(flag, sizeof flag, "--config=%lld", (long long)number);
    int code = -1;
    json_t *config =
        cluster_ctl_json(&fault->cluster, 60, &code, "query", "--timeout", "30s", flag, NULL);
    CHECK_EQ(code, 0);
    CHECK_EQ(json_integer_value(json_object_get(config, "number")), number);
    return config;
}

static json_int_t owner(const json_t *config, uint32_t shard)
{
    return json_integer_value(json_array_get(json_object_get(config, "owners"), shard));
}

/* The acknowledged order that made this config; NULL: one whose outcome was unknown. */
static const struct order *order_of(const struct admin *admins, json_int_t number)
{
    const struct order *found = NULL;
    for (uint32_t i = 0; i < ADMINS; i++) {
        for (uint32_t k = 0; k < admins[i].count; k++) {
            if (admins[i].orders[k].config == number) {
                if (found != NULL) {
                    FAIL("two orders were told that they made config %lld", (long long)number);
                }
                found = &admins[i].orders[k];
            }
        }
    }
    return found;
}

static void check_step(const json_t *before, const json_t *after, const struct order *order,
                       json_int_t number)
{
    uint32_t changed = 0;
    for (uint32_t shard = 0; shard < FAULT_SHARDS; shard++) {
        bool differs = owner(before, shard) != owner(after, shard);
        changed += differs;
        if (differs && order != NULL && shard != order->shard) {
            FAIL("config %lld moved shard %u, but was the answer to moving %u", (long long)number,
                 shard, order->shard);
        }
    }
    CHECK_CMP(changed, <=, 1);
    if (order != NULL) {
        CHECK_EQ(owner(after, order->shard), order->group);
    }
}

static void check_configs(struct fault *fault, const struct admin *admins)
{
    uint32_t acknowledged = 0, unknown = 0, found = 0;
    for (uint32_t i = 0; i < ADMINS; i++) {
        acknowledged += admins[i].acknowledged;
        unknown += admins[i].unknown;
    }
    int code = -1;
    json_t *newest = cluster_ctl_json(&fault->cluster, 60, &code, "query", NULL);
    CHECK_EQ(code, 0);
    json_int_t last = json_integer_value(json_object_get(newest, "number"));
    json_decref(newest);
    json_t *before = config_at(fault, GROUPS); /* one join each */
    for (json_int_t number = GROUPS + 1; number <= last; number++) {
        json_t *after = config_at(fault, number);
        const struct order *order = order_of(admins, number);
        found += order != NULL;
        check_step(before, after, order, number);
        json_decref(before);
        before = after;
    }
    json_decref(before);
    printf("%lld configs: %u orders acknowledged, %u of unknown outcome\n", (long long)last,
           acknowledged, unknown);
    CHECK_EQ(found, acknowledged); /* none lost, none told of a config that is not there */
    CHECK_CMP(last - GROUPS - acknowledged, <=, unknown);
    CHECK_CMP(acknowledged, >, 0);
    fault->moves += acknowledged;
}

static void j15(void)
{
    struct fault fault;
    fault_begin(&fault, "J15", GROUPS);
    atomic_bool stop = false;
    struct admin *admins = mem_calloc(ADMINS, sizeof admins[0]);
    for (uint32_t i = 0; i < ADMINS; i++) {
        admins[i].cluster = &fault.cluster;
        admins[i].stop = &stop;
        rng_init(&admins[i].rng, fault.seed + 1000 + i);
        CHECK_EQ(pthread_create(&admins[i].thread, NULL, run_admin, &admins[i]), 0);
    }
    for (; fault_goes_on(&fault); fault.rounds++) {
        fault_let_run((double)rng_below(&fault.rng, 1500) / 1000);
        fault_kill_some(&fault, 0, 1);
        fault_expect_progress(&fault, 20, 60);
        fault_let_run((double)rng_below(&fault.rng, 1500) / 1000);
        fault_start_all(&fault);
    }
    atomic_store(&stop, true);
    for (uint32_t i = 0; i < ADMINS; i++) {
        pthread_join(admins[i].thread, NULL);
    }
    fault_heal(&fault);
    check_configs(&fault, admins);
    free(admins);
    fault_end(&fault);
}

const struct suite_test fault_admins_tests[] = {
    {"J15", j15},
    {NULL, NULL},
};
