# Tests of client/: the router alone, then libshardkv and the controller client against servers inside the process.
skv_test(NAME test_router SOURCES unit/test_router.c USES client proto base LABELS unit client TIMEOUT 60)
