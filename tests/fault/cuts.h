/* Ways to cut the network of a test (cluster/harness_net.h) so that a majority of one group is
 * left that can talk: what Raft says has to go on. The clients reach everybody, so that what a
 * minority tells them is part of the history. */
#ifndef TESTS_FAULT_CUTS_H
#define TESTS_FAULT_CUTS_H

#include "fault/fault_test.h"

enum cut_kind {
    CUT_HALVES, /* a drawn minority, as large as can be, and the others; the controllers too */
    CUT_RING,   /* each reaches a majority, but no two the same one; of three: one link */
    CUT_ISOLATE_LEADER,
    CUT_ISOLATE_ONE,
    CUT_DEAF_LEADER, /* sends, receives nothing from servers */
    CUT_MUTE_LEADER, /* receives, nothing from it arrives at servers */
    CUT_DEAF_ONE,
    CUT_MUTE_ONE,
    CUT_LEADERS_LINK, /* between the leader and one other, both ways */
    CUT_LOSSY,        /* each packet between servers is lost with a chance of 5 to 15 % */
    CUT_KINDS,
};

const char *cut_name(enum cut_kind kind);
/* In force on return. Says what it does on standard output. */
void cut_make(struct fault *fault, uint64_t group, enum cut_kind kind);

#endif
