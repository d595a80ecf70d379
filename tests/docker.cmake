add_test(NAME deploy.compose COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/docker/compose_test.sh ${CMAKE_SOURCE_DIR}
    ${SHARDKV_RELEASE_DIR}/bin)
set_tests_properties(deploy.compose PROPERTIES LABELS deploy TIMEOUT 900 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
