/* Bad bytes, bad manners and bad peers over the real port of real processes (docs/TESTING.md,
 * "Fuzzing"). What must hold in each test is asserted by the end of its scene (scene.h). */
#include "abuse/abuse.h"
#include "lib/suite.h"

static const struct suite_test tests[] = {
    {"WrongCalls", test_wrong_calls},
    {"RandomFrames", test_random_frames},
    {"HalfOpen", test_half_open},
    {"SlowBodies", test_slow_bodies},
    {"UnreadAnswers", test_unread_answers},
    {"Floods", test_floods},
    {"ConnectionChurn", test_connection_churn},
    {"TenThousandConnections", test_ten_thousand_connections},
    {"MoreConnectionsThanFiles", test_more_connections_than_files},
    {"LyingPeers", test_lying_peers},
};

int main(int argc, char **argv)
{
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
