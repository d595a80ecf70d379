/* Shared by the tests of the controller's pure parts: groups to join and what every config must be.
 */
#ifndef TESTS_UNIT_CONFIG_TEST_H
#define TESTS_UNIT_CONFIG_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/config.h"
#include <stdio.h>
#include <stdlib.h>

static inline struct config_group test_group(uint64_t id)
{
    struct config_group group = {.id = id, .replica_count = 3};
    for (uint32_t i = 0; i < 3; i++) {
        group.replicas[i].id = i + 1;
        snprintf(group.replicas[i].address, sizeof group.replicas[i].address, "10.0.%u.%u:7000",
                 (unsigned)id, i + 1);
    }
    return group;
}

static inline uint32_t test_count_owned(const struct config *config, uint64_t group)
{
    uint32_t count = 0;
    for (uint32_t shard = 0; shard < config->shard_count; shard++) {
        count += config->owners[shard] == group;
    }
    return count;
}

/* Every shard has an active owner and max - min <= 1; without active groups nobody owns anything.
 */
static inline void test_check_balanced(const struct config *config)
{
    uint32_t active = 0, owned = 0, least = UINT32_MAX, most = 0;
    for (uint32_t i = 0; i < config->group_count; i++) {
        uint32_t count = test_count_owned(config, config->groups[i].id);
        if (config->groups[i].departed) {
            assert_int_equal(count, 0);
            continue;
        }
        active++;
        owned += count;
        least = count < least ? count : least;
        most = count > most ? count : most;
    }
    assert_int_equal(owned, active > 0 ? config->shard_count : 0);
    if (active > 0) {
        assert_in_range(most - least, 0, 1);
    }
}

#endif
