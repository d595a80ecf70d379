/* The turn of a node, with jobs of the test's own: whose thread runs them, and in which order. Its
 * ticks are a minute apart, so nothing happens that is not asked for. */
#include "base/log.h"
#include "node/kv_machine.h"
#include "raft/node/node_internal.h"
#include "raft/node/replica_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { JOBS_MAX = 3, LOG_MAX = 16 };
#define TICK_NS     (60 * NS_PER_S)
#define LIMIT_NS    (20 * NS_PER_S)
#define NOT_THEN_NS (100 * NS_PER_MS) /* how long is waited for what must not happen */

enum round {
    ROUND_PENDING,
    ROUND_OF_ANOTHER, /* the loop's own thread was still awake */
    ROUND_OURS,       /* one behind which jobs are run in passing */
};

struct fixture;

struct test_job {
    struct replica_job base;
    struct fixture *fixture;
    char name;
    void (*within)(struct test_job *job); /* while it runs; may be NULL */
    pthread_t thread;                     /* that ran it */
};

struct fixture {
    char root[128];
    struct state_machine sm;
    struct rpc *rpc;
    struct node *node;
    struct node_member member;
    struct clock clock; /* the real one, and what the test adds */
    _Atomic uint64_t added_ns;

    enum replica_worker worker; /* of the jobs */
    struct test_job jobs[JOBS_MAX];
    void (*within_round)(struct fixture *fixture);

    pthread_mutex_t lock;
    enum round round;  /* under lock */
    char log[LOG_MAX]; /* under lock: a job's name when it begins, in upper case when it ends */
    size_t log_count;
    uint32_t released;  /* under lock */
    bool second_served; /* under lock */
    bool was_served;    /* before the job ended */
};

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

static void nap(void)
{
    struct timespec pause = {0, NS_PER_MS};
    nanosleep(&pause, NULL); /* between looks at a condition that has a deadline */
}

static uint64_t fixture_now_ns(void *context)
{
    struct fixture *fixture = context;
    return now_ns() + atomic_load(&fixture->added_ns);
}

static uint64_t fixture_wall_ns(void *context)
{
    (void)context;
    return clock_wall_ns(clock_system());
}

static bool workers_idle(struct fixture *fixture)
{
    struct node *node = fixture->node;
    bool idle = true;
    pthread_mutex_lock(&node->turn);
    for (uint32_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
        idle = idle && node->workers[i].out == 0;
    }
    pthread_mutex_unlock(&node->turn);
    if (queue_count(node->mailbox) > 0) { /* who had the turn looks once more */
        node__take_turn(node, false);
    }
    return idle;
}

static void wait_idle(struct fixture *fixture)
{
    uint64_t end_ns = now_ns() + LIMIT_NS;
    while (!workers_idle(fixture) && now_ns() < end_ns) {
        nap();
    }
    assert_true(workers_idle(fixture));
}

static int setup(void **state)
{
    struct fixture *fixture = mem_calloc(1, sizeof(*fixture));
    fixture->worker = REPLICA_BACKGROUND;
    const char *base = getenv("TMPDIR");
    snprintf(fixture->root, sizeof(fixture->root), "%s/shardkv-threads-XXXXXX",
             base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(fixture->root));
    pthread_mutex_init(&fixture->lock, NULL);
    fixture->clock = (struct clock){fixture_now_ns, fixture_wall_ns, fixture};
    fixture->member = (struct node_member){.id = 1, .address = "127.0.0.1:1"};
    struct rpc_options rpc_options = rpc_options_default();
    assert_int_equal(rpc_create(&rpc_options, &fixture->rpc), ERR_OK);
    assert_int_equal(kv_machine_open(vfs_system(), fixture->root, &fixture->sm), ERR_OK);
    struct node_options options = node_options_default();
    options.cluster_id = 77;
    options.group_id = 5;
    options.replica_id = 1;
    options.dir = fixture->root;
    options.members = &fixture->member;
    options.member_count = 1;
    options.segment_bytes = 256 * 1024;
    options.tick_ns = TICK_NS;
    options.clock = &fixture->clock;
    options.vfs = vfs_system();
    options.seed = 1;
    char why[256] = "";
    int error =
        node_create(&options, &fixture->sm, NULL, fixture->rpc, &fixture->node, why, sizeof(why));
    assert_string_equal(why, "");
    assert_int_equal(error, ERR_OK);
    assert_int_equal(node_start(fixture->node), ERR_OK);
    wait_idle(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    node_stop(fixture->node);
    node_destroy(fixture->node);
    kv_machine_close(&fixture->sm);
    rpc_destroy(fixture->rpc);
    pthread_mutex_destroy(&fixture->lock);
    (void)vfs_system()->remove_tree(vfs_system()->context, fixture->root);
    free(fixture);
    return 0;
}

/* ---- jobs ---- */

static void log_add(struct fixture *fixture, char letter)
{
    pthread_mutex_lock(&fixture->lock);
    if (fixture->log_count < LOG_MAX - 1) {
        fixture->log[fixture->log_count++] = letter;
    }
    pthread_mutex_unlock(&fixture->lock);
}

static bool log_has(struct fixture *fixture, char letter)
{
    pthread_mutex_lock(&fixture->lock);
    bool has = strchr(fixture->log, letter) != NULL;
    pthread_mutex_unlock(&fixture->lock);
    return has;
}

/* Gives a job that must not begin now the time to. */
static void let_begin(struct fixture *fixture, char name)
{
    uint64_t end_ns = now_ns() + NOT_THEN_NS;
    while (!log_has(fixture, name) && now_ns() < end_ns) {
        nap();
    }
}

static void job_run(struct replica_job *base)
{
    struct test_job *job = (struct test_job *)base;
    job->thread = pthread_self();
    log_add(job->fixture, job->name);
    if (job->within != NULL) {
        job->within(job);
    }
    log_add(job->fixture, (char)(job->name - 'a' + 'A'));
}

static void job_done(struct replica_job *base)
{
    (void)base;
}

static void job_release(struct replica_job *base)
{
    struct fixture *fixture = ((struct test_job *)base)->fixture;
    pthread_mutex_lock(&fixture->lock);
    fixture->released++;
    pthread_mutex_unlock(&fixture->lock);
}

static uint32_t released(struct fixture *fixture)
{
    pthread_mutex_lock(&fixture->lock);
    uint32_t count = fixture->released;
    pthread_mutex_unlock(&fixture->lock);
    return count;
}

static void wait_released(struct fixture *fixture, uint32_t count)
{
    uint64_t end_ns = now_ns() + LIMIT_NS;
    while (released(fixture) < count && now_ns() < end_ns) {
        nap();
    }
    assert_int_equal(released(fixture), count);
}

/* With the turn. */
static struct test_job *submit(struct fixture *fixture, uint32_t place, bool is_small)
{
    static const struct replica_job_ops ops = {
        .run = job_run, .done = job_done, .release = job_release};
    struct test_job *job = &fixture->jobs[place];
    replica__job_init(&job->base, fixture->node->replica, fixture->worker, "test", &ops);
    job->base.is_small = is_small;
    job->fixture = fixture;
    job->name = (char)('a' + place);
    replica__submit(fixture->node->replica, &job->base);
    return job;
}

/* ---- rounds ---- */

static void round_set(struct fixture *fixture, enum round round)
{
    pthread_mutex_lock(&fixture->lock);
    fixture->round = round;
    pthread_mutex_unlock(&fixture->lock);
}

static enum round round_of(struct fixture *fixture)
{
    pthread_mutex_lock(&fixture->lock);
    enum round round = fixture->round;
    pthread_mutex_unlock(&fixture->lock);
    return round;
}

static void round_serve(void *context, int error)
{
    struct fixture *fixture = context;
    assert_int_equal(error, ERR_NOT_LEADER);
    bool ours = fixture->node->may_run_jobs;
    if (ours) {
        fixture->within_round(fixture);
    }
    round_set(fixture, ours ? ROUND_OURS : ROUND_OF_ANOTHER);
}

static void push_read(struct fixture *fixture, node_read_fn serve)
{
    struct node_event *event = mem_calloc(1, sizeof(*event));
    event->kind = EVENT_READ;
    event->as.read.serve = serve;
    event->as.read.context = fixture;
    assert_int_equal(queue_push_always(fixture->node->mailbox, event, 0), ERR_OK);
}

/* A turn on this thread, as one of rpc's takes it: `within` is called in its round. */
static void take_turn(struct fixture *fixture, void (*within)(struct fixture *fixture))
{
    uint64_t end_ns = now_ns() + LIMIT_NS;
    do {
        fixture->within_round = within;
        round_set(fixture, ROUND_PENDING);
        push_read(fixture, round_serve);
        node__take_turn(fixture->node, true);
        while (round_of(fixture) == ROUND_PENDING && now_ns() < end_ns) {
            nap();
        }
    } while (round_of(fixture) == ROUND_OF_ANOTHER);
    assert_int_equal(round_of(fixture), ROUND_OURS);
}

/* ---- tests ---- */

static void submit_b_and_c(struct fixture *fixture)
{
    submit(fixture, 1, true);
    submit(fixture, 2, true);
}

static void a_within(struct test_job *job)
{
    take_turn(job->fixture, submit_b_and_c);
    let_begin(job->fixture, 'b');
    let_begin(job->fixture, 'c');
}

static void submit_a_that_submits(struct fixture *fixture)
{
    submit(fixture, 0, true)->within = a_within;
}

static void test_node_jobs_wait_behind_one_that_runs_in_passing(void **state)
{
    struct fixture *fixture = *state;
    take_turn(fixture, submit_a_that_submits);
    wait_released(fixture, 3);
    assert_string_equal(fixture->log, "aAbBcC");
    assert_true(pthread_equal(fixture->jobs[0].thread, pthread_self()));
}

static void a_lets_b_begin(struct test_job *job)
{
    let_begin(job->fixture, 'b');
}

static void submit_a_and_b(struct fixture *fixture)
{
    submit(fixture, 0, true)->within = a_lets_b_begin;
    submit(fixture, 1, true);
}

static void test_node_jobs_of_one_round_keep_their_order(void **state)
{
    struct fixture *fixture = *state;
    take_turn(fixture, submit_a_and_b);
    wait_released(fixture, 2);
    assert_string_equal(fixture->log, "aAbB");
    assert_true(pthread_equal(fixture->jobs[0].thread, pthread_self()));
}

static void a_waits_for_the_round_after(struct test_job *job)
{
    let_begin(job->fixture, 'b');
}

static void submit_large_a(struct fixture *fixture)
{
    submit(fixture, 0, false)->within = a_waits_for_the_round_after;
}

static void submit_small_b(struct fixture *fixture)
{
    submit(fixture, 1, true);
}

static void test_node_jobs_that_are_small_overtake_none(void **state)
{
    struct fixture *fixture = *state;
    take_turn(fixture, submit_large_a);
    take_turn(fixture, submit_small_b);
    wait_released(fixture, 2);
    assert_string_equal(fixture->log, "aAbB");
    assert_false(pthread_equal(fixture->jobs[0].thread, pthread_self()));
}

static void a_takes_long(struct test_job *job)
{
    atomic_fetch_add(&job->fixture->added_ns, NS_PER_S);
}

static void submit_slow_a(struct fixture *fixture)
{
    submit(fixture, 0, true)->within = a_takes_long;
}

static void submit_small_c(struct fixture *fixture)
{
    submit(fixture, 2, true);
}

/* After a job that took long: the next one, small as it is, is the worker's, and the one after the
 * pause is not. */
static void expect_the_workers_for_a_while(struct fixture *fixture)
{
    take_turn(fixture, submit_small_b);
    wait_idle(fixture);
    assert_false(pthread_equal(fixture->jobs[1].thread, pthread_self()));
    atomic_fetch_add(&fixture->added_ns, NODE_PASSING_PAUSE * NS_PER_S);
    take_turn(fixture, submit_small_c);
    assert_true(pthread_equal(fixture->jobs[2].thread, pthread_self()));
    wait_released(fixture, 3);
}

static void test_node_jobs_that_took_long_are_the_workers_for_a_while(void **state)
{
    struct fixture *fixture = *state;
    take_turn(fixture, submit_slow_a);
    assert_true(pthread_equal(fixture->jobs[0].thread, pthread_self()));
    expect_the_workers_for_a_while(fixture);
    assert_string_equal(fixture->log, "aAbBcC");
}

static void submit_large_slow_a(struct fixture *fixture)
{
    submit(fixture, 0, false)->within = a_takes_long;
}

static void test_node_jobs_that_took_a_worker_long_are_its_own_for_a_while(void **state)
{
    struct fixture *fixture = *state;
    take_turn(fixture, submit_large_slow_a);
    wait_idle(fixture);
    expect_the_workers_for_a_while(fixture);
}

/* An apply takes as long as there is to apply: that says nothing of the next. */
static void test_node_jobs_of_applying_that_took_its_worker_long_keep_nobody_away(void **state)
{
    struct fixture *fixture = *state;
    fixture->worker = REPLICA_APPLY;
    take_turn(fixture, submit_large_slow_a);
    wait_idle(fixture);
    take_turn(fixture, submit_small_b);
    assert_true(pthread_equal(fixture->jobs[1].thread, pthread_self()));
    wait_released(fixture, 2);
}

static void second_serve(void *context, int error)
{
    struct fixture *fixture = context;
    assert_int_equal(error, ERR_NOT_LEADER);
    pthread_mutex_lock(&fixture->lock);
    fixture->second_served = true;
    pthread_mutex_unlock(&fixture->lock);
}

static void *bring_second(void *context)
{
    struct fixture *fixture = context;
    push_read(fixture, second_serve);
    node__take_turn(fixture->node, true); /* somebody has it: he has to look */
    return NULL;
}

static void bring_another_meanwhile(struct fixture *fixture)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, bring_second, fixture), 0);
    pthread_join(thread, NULL);
}

static void second_forget(struct fixture *fixture)
{
    pthread_mutex_lock(&fixture->lock);
    fixture->second_served = false;
    pthread_mutex_unlock(&fixture->lock);
}

static bool second_served(struct fixture *fixture)
{
    pthread_mutex_lock(&fixture->lock);
    bool served = fixture->second_served;
    pthread_mutex_unlock(&fixture->lock);
    return served;
}

static void test_node_event_that_comes_within_a_turn_waits_for_no_tick(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 5; i++) { /* from the second on the loop's thread sleeps for sure */
        second_forget(fixture);
        take_turn(fixture, bring_another_meanwhile);
        uint64_t end_ns = now_ns() + LIMIT_NS; /* a third of a tick */
        while (!second_served(fixture) && now_ns() < end_ns) {
            nap();
        }
        assert_true(second_served(fixture));
    }
}

static void a_lets_the_second_be_served(struct test_job *job)
{
    uint64_t end_ns = now_ns() + LIMIT_NS;
    while (!second_served(job->fixture) && now_ns() < end_ns) {
        nap();
    }
    job->fixture->was_served = second_served(job->fixture);
}

static void submit_small_a_while_another_comes(struct fixture *fixture)
{
    submit(fixture, 0, true)->within = a_lets_the_second_be_served;
    bring_another_meanwhile(fixture);
}

static void test_node_event_that_comes_within_a_turn_waits_for_no_job_in_passing(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 1; i <= 5; i++) { /* from the second on the loop's thread sleeps for sure */
        second_forget(fixture);
        /* The job before may have taken long on a busy machine. */
        atomic_store(&fixture->node->in_passing[REPLICA_BACKGROUND].not_before_ns, 0);
        take_turn(fixture, submit_small_a_while_another_comes);
        wait_released(fixture, i);
        assert_true(fixture->was_served);
        assert_true(pthread_equal(fixture->jobs[0].thread, pthread_self()));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_node_jobs_wait_behind_one_that_runs_in_passing),
        TEST(test_node_jobs_of_one_round_keep_their_order),
        TEST(test_node_jobs_that_are_small_overtake_none),
        TEST(test_node_jobs_that_took_long_are_the_workers_for_a_while),
        TEST(test_node_jobs_that_took_a_worker_long_are_its_own_for_a_while),
        TEST(test_node_jobs_of_applying_that_took_its_worker_long_keep_nobody_away),
        TEST(test_node_event_that_comes_within_a_turn_waits_for_no_tick),
        TEST(test_node_event_that_comes_within_a_turn_waits_for_no_job_in_passing),
    };
#undef TEST
    log_set_level(getenv("TEST_LOG") == NULL ? LOG_ERROR : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
