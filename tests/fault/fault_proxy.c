/* J13: connections are reset in the middle of calls, go silent, and are slow: a retry is never a
 * second execution. */
#include "cluster/append_load.h"
#include "fault/fault_test.h"
#include "fault/proxy.h"

#include <stdio.h>

static const struct proxy_faults none;

/* What clients suffer in a round: one kind at a time often, then all together. */
static struct proxy_faults clients_faults(uint32_t round)
{
    switch (round % 5) {
    case 0:
        return (struct proxy_faults){.reset_reply = 150}; /* executed, never heard of */
    case 1:
        return (struct proxy_faults){.reset_after = 150};
    case 2:
        return (struct proxy_faults){.half_open = 50};
    case 3:
        return (struct proxy_faults){.reset_before = 150, .delay_us_max = 20000};
    default:
        return (struct proxy_faults){.reset_before = 50,
                                     .reset_after = 50,
                                     .reset_reply = 50,
                                     .half_open = 10,
                                     .delay_us_max = 5000};
    }
}

/* Replication goes on under this: an election timeout is 300 ms. */
static struct proxy_faults servers_faults(uint32_t round)
{
    return round % 2 == 0
               ? none
               : (struct proxy_faults){.reset_after = 5, .reset_reply = 5, .delay_us_max = 15000};
}

static void print_counts(struct proxy *proxy, enum proxy_side side, const char *name,
                         struct proxy_counts *counts)
{
    proxy_count(proxy, side, counts);
    printf("%s: %llu connections; reset %llu before the request, %llu after it, %llu before the "
           "answer; %llu half-open; %llu chunks delayed\n",
           name, (unsigned long long)counts->connections, (unsigned long long)counts->reset_before,
           (unsigned long long)counts->reset_after, (unsigned long long)counts->reset_reply,
           (unsigned long long)counts->half_open, (unsigned long long)counts->delayed);
}

static void j13(void)
{
    struct fault fault;
    fault_prepare(&fault, "J13");
    struct proxy *proxy = proxy_create(fault.seed);
    cluster_prepare_with(&fault.cluster, "J13", FAULT_SHARDS,
                         &(struct cluster_network){.front = proxy_front, .context = proxy});
    cluster_start_group(&fault.cluster, 0);
    fault_start_group(&fault, 1, CLUSTER_REPLICAS);
    fault_load(&fault);
    struct append_load *appends =
        append_load_start(&(struct append_load_options){.controllers = fault.cluster.controllers,
                                                        .cluster = fault.cluster.name,
                                                        .clients = 4,
                                                        .keys = 8,
                                                        .timeout_ms = 20000});
    for (; fault_goes_on(&fault) || fault.rounds < 5; fault.rounds++) {
        struct proxy_faults clients = clients_faults(fault.rounds);
        struct proxy_faults servers = servers_faults(fault.rounds);
        proxy_set(proxy, PROXY_CLIENTS, &clients);
        proxy_set(proxy, PROXY_SERVERS, &servers);
        fault_let_run(2);
        double from = now_seconds();
        fault_expect_progress(&fault, 50, 20); /* it goes on all the while */
        printf("round %u: 50 commands in %.1f s\n", fault.rounds, now_seconds() - from);
        fflush(stdout);
    }
    proxy_set(proxy, PROXY_CLIENTS, &none);
    proxy_set(proxy, PROXY_SERVERS, &none);
    struct proxy_counts clients, servers;
    print_counts(proxy, PROXY_CLIENTS, "clients", &clients);
    print_counts(proxy, PROXY_SERVERS, "servers", &servers);
    CHECK_CMP(clients.reset_before, >, 0);
    CHECK_CMP(clients.reset_after, >, 0);
    CHECK_CMP(clients.reset_reply, >, 0);
    CHECK_CMP(clients.half_open, >, 0);
    CHECK_CMP(clients.delayed, >, 0);
    CHECK_CMP(servers.delayed, >, 0);

    struct append_load_report report;
    append_load_stop(appends, &report);
    printf("appends: %llu acknowledged, %llu unknown, %llu not done, slowest %.1f s\n",
           (unsigned long long)report.acknowledged, (unsigned long long)report.unknown,
           (unsigned long long)report.not_done, report.slowest_seconds);
    if (report.error[0] != '\0') {
        FAIL("%s", report.error);
    }
    CHECK_CMP(report.acknowledged, >, 100);
    fault_end(&fault);
    proxy_destroy(proxy);
}

const struct suite_test fault_proxy_tests[] = {
    {"J13", j13},
    {NULL, NULL},
};
