# Tests of proto/: one program a file, all fast, all in every run.
foreach(file command config shard_hash)
    skv_test(NAME test_${file} SOURCES unit/test_${file}.c USES proto base LABELS unit proto TIMEOUT 60)
endforeach()
