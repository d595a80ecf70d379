/* The course's tests of the key-value service on one group: those that are one shape with different
 * faults. */
#include "sim/kv_test.h"
#include "sim/suite.h"

static void run(struct kv_test test)
{
    kv_test_run(&test);
}

static void basic(void)
{
    run((struct kv_test){.clients = 1, .servers = 5});
}

static void concurrent(void)
{
    run((struct kv_test){.clients = 5, .servers = 5});
}

static void unreliable(void)
{
    run((struct kv_test){.clients = 5, .servers = 5, .unreliable = true});
}

static void many_partitions_one_client(void)
{
    run((struct kv_test){.clients = 1, .servers = 5, .partitions = true});
}

static void many_partitions_many_clients(void)
{
    run((struct kv_test){.clients = 5, .servers = 5, .partitions = true});
}

static void persist_one_client(void)
{
    run((struct kv_test){.clients = 1, .servers = 5, .crashes = true});
}

static void persist_concurrent(void)
{
    run((struct kv_test){.clients = 5, .servers = 5, .crashes = true});
}

static void persist_concurrent_unreliable(void)
{
    run((struct kv_test){.clients = 5, .servers = 5, .unreliable = true, .crashes = true});
}

static void persist_partition(void)
{
    run((struct kv_test){.clients = 5, .servers = 5, .crashes = true, .partitions = true});
}

static void persist_partition_unreliable(void)
{
    run((struct kv_test){
        .clients = 5, .servers = 5, .unreliable = true, .crashes = true, .partitions = true});
}

static void persist_partition_unreliable_linearizable(void)
{
    run((struct kv_test){.clients = 15,
                         .servers = 7,
                         .unreliable = true,
                         .crashes = true,
                         .partitions = true,
                         .random_keys = true});
}

static void snapshot_recover(void)
{
    run((struct kv_test){.clients = 1, .servers = 5, .crashes = true, .snapshots = true});
}

static void snapshot_recover_many_clients(void)
{
    run((struct kv_test){.clients = 20, .servers = 5, .crashes = true, .snapshots = true});
}

static void snapshot_unreliable(void)
{
    run((struct kv_test){.clients = 5, .servers = 5, .unreliable = true, .snapshots = true});
}

static void snapshot_unreliable_recover(void)
{
    run((struct kv_test){
        .clients = 5, .servers = 5, .unreliable = true, .crashes = true, .snapshots = true});
}

static void snapshot_unreliable_recover_concurrent_partition(void)
{
    run((struct kv_test){.clients = 5,
                         .servers = 5,
                         .unreliable = true,
                         .crashes = true,
                         .partitions = true,
                         .snapshots = true});
}

static void snapshot_unreliable_recover_concurrent_partition_linearizable(void)
{
    run((struct kv_test){.clients = 15,
                         .servers = 7,
                         .unreliable = true,
                         .crashes = true,
                         .partitions = true,
                         .snapshots = true,
                         .random_keys = true});
}

struct suite_list suite_kvraft(void)
{
    static const struct suite_test tests[] = {
        {.name = "kvraft.TestBasic", .run = basic},
        {.name = "kvraft.TestConcurrent", .run = concurrent},
        {.name = "kvraft.TestUnreliable", .run = unreliable},
        {.name = "kvraft.TestManyPartitionsOneClient", .run = many_partitions_one_client},
        {.name = "kvraft.TestManyPartitionsManyClients", .run = many_partitions_many_clients},
        {.name = "kvraft.TestPersistOneClient", .run = persist_one_client},
        {.name = "kvraft.TestPersistConcurrent", .run = persist_concurrent},
        {.name = "kvraft.TestPersistConcurrentUnreliable", .run = persist_concurrent_unreliable},
        {.name = "kvraft.TestPersistPartition", .run = persist_partition},
        {.name = "kvraft.TestPersistPartitionUnreliable", .run = persist_partition_unreliable},
        {.name = "kvraft.TestPersistPartitionUnreliableLinearizable",
         .run = persist_partition_unreliable_linearizable},
        {.name = "kvraft.TestSnapshotRecover", .run = snapshot_recover},
        {.name = "kvraft.TestSnapshotRecoverManyClients", .run = snapshot_recover_many_clients},
        {.name = "kvraft.TestSnapshotUnreliable", .run = snapshot_unreliable},
        {.name = "kvraft.TestSnapshotUnreliableRecover", .run = snapshot_unreliable_recover},
        {.name = "kvraft.TestSnapshotUnreliableRecoverConcurrentPartition",
         .run = snapshot_unreliable_recover_concurrent_partition},
        {.name = "kvraft.TestSnapshotUnreliableRecoverConcurrentPartitionLinearizable",
         .run = snapshot_unreliable_recover_concurrent_partition_linearizable},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}
