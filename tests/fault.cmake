# Faults on real processes: J1 to J15 of the scenarios, a recorded history each, judged by the checker of tests/lin.
# A new theme: its file in SOURCES, its tests in fault_tests, its array in fault_suite.c's table (fault/fault_test.h).
set(fault_tests
    J1 J2        # fault_kill.c
    J15          # fault_admins.c
    J6 J7 J8     # fault_moves.c
    J3 J4 J5     # fault_net.c
    J13          # fault_proxy.c
    J9 J9.Planted J10 J10.Running J11 J12 J12.Lease J12.Planted J14 J14.Errors J14.Stall) # fault_disk*.c
skv_cluster_suite(fault
    SOURCES fault/fault_suite.c fault/fault_test.c fault/recorder.c fault/direct.c
            fault/fault_kill.c fault/fault_admins.c fault/fault_moves.c fault/ballast.c fault/fault_net.c fault/fault_members.c
            fault/fault_disk.c fault/fault_disk_loss.c fault/fault_disk_damage.c fault/fault_disk_lag.c
            fault/fault_disk_clock.c fault/fault_disk_full.c
            fault/cuts.c fault/fault_proxy.c fault/proxy.c fault/socket_owner.c cluster/append_load.c
    USES client rpc proto base TIMEOUT 300 TESTS ${fault_tests})
target_link_libraries(fault_suite PRIVATE test-lin test-shim) # the latter: fault-disk.cmake
foreach(test ${fault_tests})
    set_tests_properties(fault.${test} PROPERTIES SKIP_RETURN_CODE 77 RESOURCE_LOCK fault)
endforeach()
