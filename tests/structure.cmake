# The walls between the rooms, checked on what was built.
add_test(NAME structure.symbols
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/structure/check_symbols.sh ${SHARDKV_RELEASE_DIR})
add_test(NAME structure.includes
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/structure/check_includes.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
set_tests_properties(structure.symbols structure.includes PROPERTIES LABELS structure TIMEOUT 300)
