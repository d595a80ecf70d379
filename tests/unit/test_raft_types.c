/* Membership as bytes: raft/core/types.c. */
#include "unit/raft_pump.h"

#include <stdio.h>

static struct raft_membership full_house(void)
{
    struct raft_membership membership = {.count = RAFT_MEMBERS_MAX};
    for (uint32_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        membership.members[i].id = i * 1000 + 1;
        membership.members[i].role = i % 3 == 0 ? RAFT_LEARNER : RAFT_VOTER;
        snprintf(membership.members[i].address, RAFT_ADDRESS_BYTES_MAX, "host-%u:%u", i, 1000 + i);
    }
    memset(membership.members[1].address, 'a', RAFT_ADDRESS_BYTES_MAX - 1); /* the longest */
    membership.members[2].id = UINT64_MAX - 100;
    for (uint32_t i = 3; i < RAFT_MEMBERS_MAX; i++) {
        membership.members[i].id = UINT64_MAX - 100 + i;
    }
    return membership;
}

static void test_membership_survives_encoding(void **state)
{
    (void)state;
    struct raft_membership before = full_house();
    struct raft_membership after;
    struct buf buf;
    buf_init(&buf);
    raft_membership_encode(&before, &buf);
    assert_int_equal(raft_membership_decode(buf_view(&buf), &after), ERR_OK);
    assert_memory_equal(&before, &after, sizeof(before));
    buf_deinit(&buf);
    assert_int_equal(raft_membership_voter_count(&after), 10);
    assert_non_null(raft_membership_find(&after, 1));
    assert_null(raft_membership_find(&after, 2));
    assert_int_equal(raft_membership_find(&after, 1001)->role, RAFT_VOTER);
}

static void test_empty_membership_survives_encoding(void **state)
{
    (void)state;
    struct raft_membership before = {.count = 0};
    struct raft_membership after;
    struct buf buf;
    buf_init(&buf);
    raft_membership_encode(&before, &buf);
    assert_int_equal(raft_membership_decode(buf_view(&buf), &after), ERR_OK);
    assert_int_equal(after.count, 0);
    assert_int_equal(raft_membership_voter_count(&after), 0);
    buf_deinit(&buf);
}

static void test_every_cut_of_a_membership_is_refused(void **state)
{
    (void)state;
    struct raft_membership before = full_house();
    struct raft_membership after;
    struct buf buf;
    buf_init(&buf);
    raft_membership_encode(&before, &buf);
    for (size_t size = 0; size < buf.size; size++) {
        assert_int_equal(raft_membership_decode(bytes_of(buf.data, size), &after), ERR_PROTOCOL);
    }
    uint8_t more = 0;
    buf_append(&buf, &more, 1);
    assert_int_equal(raft_membership_decode(buf_view(&buf), &after), ERR_PROTOCOL);
    buf_deinit(&buf);
}

static void test_membership_of_nonsense_is_refused(void **state)
{
    (void)state;
    static const uint8_t cases[][12] = {
        {2, 0},                             /* a version we do not know */
        {1, RAFT_MEMBERS_MAX + 1},          /* too many */
        {1, 1, 0, 1, 1, 'a'},               /* id 0 */
        {1, 1, 7, 3, 1, 'a'},               /* a role we do not know */
        {1, 1, 7, 0, 1, 'a'},               /* no role */
        {1, 1, 7, 1, 1, 0},                 /* a NUL inside the address */
        {1, 2, 7, 1, 1, 'a', 7, 1, 1, 'b'}, /* twice */
        {1, 2, 8, 1, 1, 'a', 7, 1, 1, 'b'}, /* out of order */
        {1, 1, 7, 1, 200, 1, 'a'},          /* an address that is too long */
    };
    static const size_t sizes[] = {2, 2, 6, 6, 6, 6, 10, 10, 7};
    struct raft_membership after;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_int_equal(raft_membership_decode(bytes_of(cases[i], sizes[i]), &after),
                         ERR_PROTOCOL);
    }
    static const uint8_t good[] = {1, 2, 7, 1, 1, 'a', 8, 2, 0};
    assert_int_equal(raft_membership_decode(bytes_of(good, sizeof(good)), &after), ERR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_membership_survives_encoding),
        cmocka_unit_test(test_empty_membership_survives_encoding),
        cmocka_unit_test(test_every_cut_of_a_membership_is_refused),
        cmocka_unit_test(test_membership_of_nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
