/* The session table: what executes once, what is repeated, what is refused, and its bytes. */
#include "proto/limits.h"
#include "raft/node/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum session_verdict check(struct session *session, uint64_t acked_below, uint64_t sequence)
{
    const struct session_result *result;
    return session_check(session, acked_below, sequence, (uint32_t)sequence * 7, 1, &result);
}

static void record(struct session *session, uint64_t sequence)
{
    struct session_result result = {.sequence = sequence,
                                    .fingerprint = (uint32_t)sequence * 7,
                                    .code = (uint32_t)(sequence % 3),
                                    .version = sequence + 100};
    session_record(session, &result);
}

static void test_session_first_time_executes_then_repeats(void **state)
{
    (void)state;
    struct session session;
    session_init(&session);
    assert_int_equal(check(&session, 0, 5), SESSION_EXECUTE);
    record(&session, 5);
    const struct session_result *result;
    assert_int_equal(session_check(&session, 0, 5, 35, 2, &result), SESSION_REPEAT);
    assert_non_null(result);
    assert_int_equal(result->version, 105);
    assert_int_equal(result->code, 2);
    assert_int_equal(session.last_active_ms, 2);
    session_deinit(&session);
}

static void test_session_acked_sequence_is_stale(void **state)
{
    (void)state;
    struct session session;
    session_init(&session);
    for (uint64_t sequence = 1; sequence <= 10; sequence++) {
        record(&session, sequence);
    }
    assert_int_equal(check(&session, 6, 11), SESSION_EXECUTE);
    assert_int_equal(session.count, 5);
    assert_int_equal(check(&session, 6, 5), SESSION_STALE);
    assert_int_equal(check(&session, 6, 6), SESSION_REPEAT);
    /* An older, delayed request does not lower the bound again. */
    assert_int_equal(check(&session, 2, 3), SESSION_STALE);
    assert_int_equal(session.acked_below, 6);
    session_deinit(&session);
}

static void test_session_acked_beyond_all_forgets_all(void **state)
{
    (void)state;
    struct session session;
    session_init(&session);
    record(&session, 1);
    record(&session, 2);
    assert_int_equal(check(&session, 100, 100), SESSION_EXECUTE);
    assert_int_equal(session.count, 0);
    assert_int_equal(check(&session, 100, 2), SESSION_STALE);
    session_deinit(&session);
}

static void test_session_same_sequence_other_payload_is_reused(void **state)
{
    (void)state;
    struct session session;
    const struct session_result *result;
    session_init(&session);
    record(&session, 4);
    assert_int_equal(session_check(&session, 0, 4, 999, 1, &result), SESSION_REUSED);
    assert_null(result);
    session_deinit(&session);
}

static void test_session_out_of_order_stays_sorted(void **state)
{
    (void)state;
    static const uint64_t order[] = {9, 3, 7, 1, 8, 2, 6, 5, 4, 10};
    struct session session;
    session_init(&session);
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(check(&session, 0, order[i]), SESSION_EXECUTE);
        record(&session, order[i]);
    }
    assert_int_equal(session.count, 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(session.results[i].sequence, i + 1);
        assert_int_equal(check(&session, 0, i + 1), SESSION_REPEAT);
    }
    session_deinit(&session);
}

static void test_session_too_many_outstanding_is_full(void **state)
{
    (void)state;
    struct session session;
    session_init(&session);
    for (uint64_t sequence = 1; sequence <= SESSION_OUTSTANDING_MAX; sequence++) {
        assert_int_equal(check(&session, 1, sequence), SESSION_EXECUTE);
        record(&session, sequence);
    }
    assert_int_equal(check(&session, 1, SESSION_OUTSTANDING_MAX + 1), SESSION_FULL);
    assert_int_equal(check(&session, 1, 77), SESSION_REPEAT);
    assert_int_equal(check(&session, 2, SESSION_OUTSTANDING_MAX + 1), SESSION_EXECUTE);
    session_deinit(&session);
}

static void test_session_idle_beyond_ttl_expires(void **state)
{
    (void)state;
    struct session session;
    const struct session_result *result;
    session_init(&session);
    (void)session_check(&session, 0, 1, 0, 1000, &result);
    assert_false(session_is_expired(&session, 1000));
    assert_false(session_is_expired(&session, 500)); /* log time seen from before */
    assert_false(session_is_expired(&session, 1000 + SESSION_TTL_MS));
    assert_true(session_is_expired(&session, 1001 + SESSION_TTL_MS));
    session_deinit(&session);
}

static void encode_sample(struct session *session, struct buf *out)
{
    session_init(session);
    (void)check(session, 3, 3);
    session->last_active_ms = 123456789012ull;
    record(session, 3);
    record(session, 4);
    record(session, 1000000);
    record(session, UINT64_MAX - 1);
    buf_init(out);
    session_encode(session, out);
}

static void test_session_codec_round_trip_is_equal(void **state)
{
    (void)state;
    struct session session;
    struct session back;
    struct buf bytes;
    encode_sample(&session, &bytes);
    session_init(&back);
    assert_int_equal(session_decode(buf_view(&bytes), &back), ERR_OK);
    assert_int_equal(back.acked_below, 3);
    assert_true(back.last_active_ms == session.last_active_ms);
    assert_int_equal(back.count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(back.results[i].sequence == session.results[i].sequence);
        assert_int_equal(back.results[i].fingerprint, session.results[i].fingerprint);
        assert_int_equal(back.results[i].code, session.results[i].code);
        assert_true(back.results[i].version == session.results[i].version);
    }
    /* Into a session that holds something already. */
    record(&back, 500);
    assert_int_equal(session_decode(buf_view(&bytes), &back), ERR_OK);
    assert_int_equal(back.count, 4);
    session_deinit(&back);
    session_deinit(&session);
    buf_deinit(&bytes);
}

static void test_session_codec_every_truncation_is_refused(void **state)
{
    (void)state;
    struct session session;
    struct buf bytes;
    encode_sample(&session, &bytes);
    for (size_t size = 0; size < bytes.size; size++) {
        struct session back;
        session_init(&back);
        assert_int_equal(session_decode(bytes_of(bytes.data, size), &back), ERR_CORRUPT);
        assert_null(back.results);
    }
    buf_append(&bytes, "x", 1);
    struct session back;
    session_init(&back);
    assert_int_equal(session_decode(buf_view(&bytes), &back), ERR_CORRUPT);
    session_deinit(&session);
    buf_deinit(&bytes);
}

static void test_session_codec_descending_or_other_version_is_refused(void **state)
{
    (void)state;
    struct session session;
    struct buf bytes;
    encode_sample(&session, &bytes);
    struct session back;
    session_init(&back);
    bytes.data[0] = 9;
    assert_int_equal(session_decode(buf_view(&bytes), &back), ERR_UNSUPPORTED);
    /* version, acked 0, active 0, count 2, then a step of 0 between the two */
    static const uint8_t twice[] = {1, 0, 0, 2, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    assert_int_equal(session_decode(bytes_of(twice, sizeof(twice)), &back), ERR_CORRUPT);
    session_deinit(&session);
    buf_deinit(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session_first_time_executes_then_repeats),
        cmocka_unit_test(test_session_acked_sequence_is_stale),
        cmocka_unit_test(test_session_acked_beyond_all_forgets_all),
        cmocka_unit_test(test_session_same_sequence_other_payload_is_reused),
        cmocka_unit_test(test_session_out_of_order_stays_sorted),
        cmocka_unit_test(test_session_too_many_outstanding_is_full),
        cmocka_unit_test(test_session_idle_beyond_ttl_expires),
        cmocka_unit_test(test_session_codec_round_trip_is_equal),
        cmocka_unit_test(test_session_codec_every_truncation_is_refused),
        cmocka_unit_test(test_session_codec_descending_or_other_version_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
