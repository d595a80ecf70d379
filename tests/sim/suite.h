/* The registered tests: each runs in a world of its own, from its seed. */
#ifndef TESTS_SIM_SUITE_H
#define TESTS_SIM_SUITE_H

#include "sim/clerk.h"

struct suite_test {
    const char *name; /* "kvraft.TestBasic" */
    void (*run)(void);
    uint32_t seeds;       /* run by default; 0: one */
    bool searched;        /* any seed will do: tests/soak.sh runs it for as long as it is told */
    bool sees_everything; /* over its default seeds no counter of sometimes.h that happens `often`
                             may stay 0 */
};

struct suite_list {
    const struct suite_test *tests;
    size_t count;
};

struct suite_list suite_kvraft(void);
struct suite_list suite_kvraft_faults(void);
struct suite_list suite_rsm(void);
struct suite_list suite_shardkv(void);
struct suite_list suite_shardkv_changes(void);
struct suite_list suite_moves(void);
struct suite_list suite_replicas(void);
struct suite_list suite_members(void);
struct suite_list suite_rare(void);
struct suite_list suite_swarm(void);

#endif
