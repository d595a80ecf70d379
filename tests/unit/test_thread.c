/* base/thread: what a thread is born with. */
#include "unit/base_test.h"

#include "base/thread.h"
#include <signal.h>
#include <string.h>

struct seen {
    sigset_t mask;
};

static void *look(void *context)
{
    struct seen *seen = context;
    pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
    return NULL;
}

static void test_thread_takes_no_signals_and_leaves_the_starters_mask(void **state)
{
    (void)state;
    sigset_t before;
    sigset_t after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_int_equal(sigismember(&before, SIGTERM), 0);
    struct seen seen = {0};
    pthread_t thread;
    assert_int_equal(thread_start(&thread, "looks", look, &seen), ERR_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(sigismember(&seen.mask, SIGTERM), 1);
    assert_int_equal(sigismember(&seen.mask, SIGINT), 1);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&after, SIGTERM), 0);
}

static void *wait_for_release(void *context)
{
    pthread_mutex_t *held = context;
    pthread_mutex_lock(held);
    pthread_mutex_unlock(held);
    return NULL;
}

static void test_thread_has_its_name(void **state)
{
    (void)state;
    pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&held);
    pthread_t thread;
    assert_int_equal(thread_start(&thread, "fifteen-letters", wait_for_release, &held), ERR_OK);
    char name[16] = "";
    assert_int_equal(pthread_getname_np(thread, name, sizeof name), 0);
    assert_string_equal(name, "fifteen-letters");
    pthread_mutex_unlock(&held);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thread_takes_no_signals_and_leaves_the_starters_mask),
        cmocka_unit_test(test_thread_has_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
