foreach(unit rebalance transition history config_state)
    skv_test(NAME test_${unit} SOURCES unit/test_${unit}.c USES shardctrler LABELS shardctrler)
endforeach()
