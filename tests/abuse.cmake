# Bad bytes, bad manners and bad peers over the real port of real processes. ABUSE_FACTOR=10 in the environment does ten times as
# much of each. (Deferred: the function is defined in cluster.cmake.)
cmake_language(DEFER CALL skv_cluster_suite abuse
    SOURCES abuse/abuse_suite.c abuse/bad_calls.c abuse/bad_manners.c abuse/bad_peers.c abuse/pusher.c abuse/scene.c abuse/http.c
    USES client raft-node raft-core rpc proto base TIMEOUT 300
    TESTS WrongCalls RandomFrames HalfOpen SlowBodies UnreadAnswers Floods ConnectionChurn TenThousandConnections
          MoreConnectionsThanFiles LyingPeers)
