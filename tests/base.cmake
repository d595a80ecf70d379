# Tests of base/: one program a file, all fast, all in every run.
foreach(file assert bytes clock codec crc32c error flags log metrics queue rng thread vfs vfs_system)
    skv_test(NAME test_${file} SOURCES unit/test_${file}.c USES base LABELS unit base TIMEOUT 30)
endforeach()
