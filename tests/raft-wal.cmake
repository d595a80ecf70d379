# Tests of raft/wal, and the fake disk that they and the simulator share (target test-fake-vfs).
add_library(test-fake-vfs STATIC lib/fake_vfs.c lib/fake_vfs_admin.c lib/fake_vfs_node.c)
target_include_directories(test-fake-vfs PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(test-fake-vfs PUBLIC base)

foreach(file log crash format index threads fake_vfs)
    skv_test(NAME test_wal_${file} SOURCES unit/test_wal_${file}.c unit/wal_test.c
        USES base raft/core raft/wal LIBRARIES test-fake-vfs LABELS unit raft-wal TIMEOUT 120)
endforeach()
foreach(file damage lost_writes)
    skv_test(NAME test_wal_${file} SOURCES unit/test_wal_${file}.c unit/wal_written.c unit/wal_test.c
        USES base raft/core raft/wal LIBRARIES test-fake-vfs LABELS unit raft-wal TIMEOUT 120)
endforeach()
