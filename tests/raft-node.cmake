# Tests of raft/node.
skv_test(NAME test_session SOURCES unit/test_session.c USES raft/node base LABELS unit raft-node TIMEOUT 30)
skv_test(NAME test_message_codec SOURCES unit/test_message_codec.c USES raft/node base
    LABELS unit raft-node TIMEOUT 60)
