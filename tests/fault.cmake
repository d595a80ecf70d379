# Faults on real processes: J1 to J15 of the scenarios, a recorded history each, judged by the checker of tests/lin.
skv_cluster_suite(fault SOURCES fault/fault_suite.c fault/recorder.c USES client rpc proto base TIMEOUT 300
    TESTS J1 J2 J6 J7 J8 J15)
target_link_libraries(fault_suite PRIVATE test-lin)
