/* The tests of the suite `abuse`, by file. Each makes its own scene. */
#ifndef TESTS_ABUSE_ABUSE_H
#define TESTS_ABUSE_ABUSE_H

/* bad_calls.c: what one call may get wrong */
void test_wrong_calls(void);
void test_random_frames(void);
/* bad_manners.c: right bytes at the wrong time, or too many */
void test_half_open(void);
void test_slow_bodies(void);
void test_unread_answers(void);
void test_floods(void);
void test_connection_churn(void);
void test_ten_thousand_connections(void);
void test_more_connections_than_files(void);
/* bad_peers.c: well-formed messages of strangers that lie */
void test_lying_peers(void);

#endif
