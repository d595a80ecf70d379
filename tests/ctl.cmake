# shardctl and Kv.Scan against real processes (skv_cluster_suite is in cluster.cmake).
skv_cluster_suite(shardctl SOURCES cluster/shardctl_suite.c ${CMAKE_SOURCE_DIR}/client/ctl/encoding.c
    ${CMAKE_SOURCE_DIR}/client/ctl/jsonl.c USES client rpc proto base TIMEOUT 240
    TESTS ExportWhileShardsMove ScanGivesEachRowOnceInAnyPieces ScanIsRefusedWhereItMustBe AdministratorsAreToldTheTruth)
