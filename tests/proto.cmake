# Tests of proto/: one program a file, all fast, all in every run.
foreach(file command config messages shard_hash)
    skv_test(NAME test_${file} SOURCES unit/test_${file}.c USES proto base LABELS unit proto TIMEOUT 60)
endforeach()
skv_test(NAME test_messages_all SOURCES unit/test_messages_all.c unit/message_cases.c USES proto base
    LABELS unit proto TIMEOUT 120)
skv_test(NAME test_messages_interop SOURCES unit/test_messages_interop.c unit/message_cases.c USES proto base
    ARGS ${PROTOC} ${CMAKE_SOURCE_DIR}/proto LABELS unit proto TIMEOUT 120)
