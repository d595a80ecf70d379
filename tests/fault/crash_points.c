/* Real servers are killed at their storage calls.
 *
 * Each kind of work (crash_points_work.c) runs once while the calls of the process that will be the
 * victim are counted. That gives the strata: (work, class of file, kind of call), with how many
 * such calls there were. Each of them can end the process before, after, or (a write) in the
 * middle: the points. Then, point by point, the work runs again and the victim is killed there;
 * everything is started, and it is checked that all that was acknowledged is there, that moves
 * settle, and that replicas are equal.
 *
 * Order: first one point of each (class, kind), then one of each stratum and position, then the
 * rest, each drawn by the seed. The first part always runs whole; after it the run ends when
 * FAULT_SECONDS (default 40) are over. FAULT_SECONDS=100000 goes through all.
 *
 * Threads make the order of calls differ from run to run: the n-th of a stratum may not come this
 * time. Then an earlier one is tried, and if that does not come either, the point counts as missed;
 * in the first part, another work that makes such calls is tried in its place. */
#include "fault/crash_points.h"
#include "base/assert.h"
#include "lib/suite.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { TRIES = 3, KINDS_MISSED_MAX = 2 };
#define DEFAULT_SECONDS 40.0

struct point {
    uint32_t work;
    enum shim_class class;
    enum shim_kind kind;
    enum shim_action action;
    uint64_t nth, count; /* of `count` such calls */
    uint32_t pass;       /* 1, 2, 3: see above */
};

struct plan {
    struct point *points;
    size_t count, capacity;
    size_t strata, files_and_kinds;
};

static const char *position_name(enum shim_action action)
{
    return action == SHIM_KILL_BEFORE ? "before" : action == SHIM_KILL_HALF ? "half" : "after";
}

/* ---- counting ---- */

struct tally {
    uint64_t counts[SHIM_CLASSES][SHIM_KINDS];
};

static void tally_take(const struct shim *shim, struct tally *out)
{
    for (uint32_t class = 0; class < SHIM_CLASSES; class ++) {
        for (uint32_t kind = 0; kind < SHIM_KINDS; kind++) {
            out->counts[class][kind] = shim_count(shim, class, kind);
        }
    }
}

static void plan_add(struct plan *plan, const struct point *point)
{
    if (plan->count == plan->capacity) {
        plan->capacity = plan->capacity == 0 ? 256 : plan->capacity * 2;
        plan->points = mem_realloc(plan->points, plan->capacity * sizeof plan->points[0]);
    }
    plan->points[plan->count++] = *point;
}

static void plan_stratum(struct plan *plan, struct point point)
{
    plan->strata++;
    for (point.nth = 1; point.nth <= point.count; point.nth++) {
        point.action = SHIM_KILL_BEFORE;
        plan_add(plan, &point);
        point.action = SHIM_KILL_AFTER;
        plan_add(plan, &point);
        if (point.kind == SHIM_WRITE) {
            point.action = SHIM_KILL_HALF;
            plan_add(plan, &point);
        }
    }
}

static void count_work(struct points *points, struct plan *plan, uint32_t work)
{
    static struct tally before, after;
    points_works[work].prepare(points);
    const struct shim *shim = points_victim_shim(points);
    tally_take(shim, &before);
    points_works[work].run(points);
    tally_take(shim, &after);
    CHECK(!points_is_dead(points));
    points_recover(points, &points_works[work]);
    for (uint32_t class = 0; class < SHIM_CLASSES; class ++) {
        for (uint32_t kind = 0; kind < SHIM_KINDS; kind++) {
            uint64_t count = after.counts[class][kind] - before.counts[class][kind];
            if (count > 0) {
                plan_stratum(
                    plan,
                    (struct point){
                        .work = work, .class = class, .kind = kind, .count = count, .pass = 3});
            }
        }
    }
}

/* ---- the order ---- */

static void shuffle(struct plan *plan, struct rng *rng)
{
    for (size_t i = plan->count; i > 1; i--) {
        size_t other = (size_t)rng_below(rng, i);
        struct point point = plan->points[i - 1];
        plan->points[i - 1] = plan->points[other];
        plan->points[other] = point;
    }
}

/* Of shuffled points the first of its kind is a drawn one. */
static void order(struct plan *plan, struct rng *rng)
{
    static bool kinds[SHIM_CLASSES][SHIM_KINDS];
    static bool strata[32][SHIM_CLASSES][SHIM_KINDS][SHIM_DELAY_ONCE];
    shuffle(plan, rng);
    for (int slow = 0; slow <= 1; slow++) { /* what only slow work does is left for it */
        for (size_t i = 0; i < plan->count; i++) {
            struct point *point = &plan->points[i];
            bool *kind = &kinds[point->class][point->kind];
            if (points_works[point->work].slow == (slow == 1) && !*kind) {
                *kind = true;
                point->pass = 1;
                plan->files_and_kinds++;
            }
        }
    }
    for (size_t i = 0; i < plan->count; i++) {
        struct point *point = &plan->points[i];
        bool *stratum = &strata[point->work][point->class][point->kind][point->action];
        point->pass = point->pass == 1 ? 1 : !*stratum ? 2 : 3;
        *stratum = true;
    }
    struct point *sorted = mem_alloc(plan->count * sizeof *sorted);
    size_t count = 0;
    for (uint32_t pass = 1; pass <= 3; pass++) {
        for (size_t i = 0; i < plan->count; i++) {
            if (plan->points[i].pass == pass) {
                sorted[count++] = plan->points[i];
            }
        }
    }
    free(plan->points);
    plan->points = sorted;
}

/* ---- killing ---- */

static void describe(const struct point *point, uint64_t nth, const char *outcome)
{
    printf("%-24s %s %s %s %llu of %llu: %s\n", points_works[point->work].name,
           position_name(point->action), shim_kind_name(point->kind), shim_class_name(point->class),
           (unsigned long long)nth, (unsigned long long)point->count, outcome);
    fflush(stdout);
}

static bool is_dead(void *context)
{
    return points_is_dead(context);
}

/* True when the victim was killed there. */
static bool hit(struct points *points, const struct point *point)
{
    const struct points_work *work = &points_works[point->work];
    uint64_t nth = point->pass == 1 ? (point->nth + 1) / 2 : point->nth;
    for (uint32_t try = 0; try < TRIES; try++) {
        work->prepare(points);
        struct shim *shim = points_victim_shim(points);
        struct shim_order rule = {.classes = SHIM_BIT(point->class),
                                  .kinds = SHIM_BIT(point->kind),
                                  .action = point->action,
                                  .nth = (int64_t)nth};
        shim_arm(shim, 0, &rule);
        work->run(points);
        shim_disarm(shim, 0);
        bool killed = shim_hits(shim, 0) > 0;
        if (killed) { /* by the rule, this very moment perhaps */
            CHECK(wait_until(is_dead, points, 10));
            CHECK(WIFSIGNALED(points->victim->status) &&
                  WTERMSIG(points->victim->status) == SIGKILL);
        }
        describe(point, nth, killed ? "killed" : "did not come");
        points_recover(points, work);
        if (killed) {
            return true;
        }
        nth = (nth + 1) / 2;
    }
    return false;
}

struct score {
    size_t killed, missed, kinds_missed;
};

/* Another work with such calls. */
static bool hit_elsewhere(struct points *points, const struct plan *plan,
                          const struct point *missed)
{
    uint32_t last = missed->work;
    for (size_t i = 0; i < plan->count; i++) {
        const struct point *point = &plan->points[i];
        if (point->class == missed->class && point->kind == missed->kind &&
            point->work != missed->work && point->work != last) {
            last = point->work;
            if (hit(points, point)) {
                return true;
            }
        }
    }
    return false;
}

static void try_point(struct points *points, const struct plan *plan, const struct point *point,
                      struct score *score)
{
    bool reached = hit(points, point);
    score->killed += reached;
    score->missed += !reached;
    if (!reached && point->pass == 1) {
        bool instead = hit_elsewhere(points, plan, point);
        score->killed += instead;
        if (!instead) {
            printf("MISSED: no %s of %s came again\n", shim_kind_name(point->kind),
                   shim_class_name(point->class));
            score->kinds_missed++;
        }
    }
}

static void crash_points(void)
{
    const char *text = getenv("FAULT_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : rng_seed_from_system();
    text = getenv("FAULT_SECONDS");
    double seconds = text != NULL ? strtod(text, NULL) : DEFAULT_SECONDS;
    printf("seed %llu (FAULT_SEED=%llu)\n", (unsigned long long)seed, (unsigned long long)seed);
    double from = now_seconds();
    struct points *points = mem_calloc(1, sizeof *points);
    struct plan plan = {0};
    points_open(points, seed);
    for (uint32_t work = 0; points_works[work].name != NULL; work++) {
        count_work(points, &plan, work);
    }
    order(&plan, &points->rng);
    printf("%zu points in %zu strata, of %zu classes and kinds; counted in %.1f s\n", plan.count,
           plan.strata, plan.files_and_kinds, now_seconds() - from);
    struct score score = {0};
    for (size_t i = 0; i < plan.count; i++) {
        if (plan.points[i].pass > 1 && now_seconds() - from >= seconds) {
            break;
        }
        try_point(points, &plan, &plan.points[i], &score);
    }
    printf(
        "%zu points, %zu tried: %zu killed there, %zu did not come again; %zu of %zu classes and "
        "kinds; %llu writes, all acknowledged ones present, replicas equal\n",
        plan.count, score.killed + score.missed, score.killed, score.missed,
        plan.files_and_kinds - score.kinds_missed, plan.files_and_kinds,
        (unsigned long long)points->model.writes);
    CHECK_CMP(plan.count, >, 0);
    CHECK_CMP(score.kinds_missed, <=, KINDS_MISSED_MAX);
    points_close(points);
    free(plan.points);
    free(points);
}

int main(int argc, char **argv)
{
    const struct suite_test tests[] = {{"CrashPoints", crash_points}};
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
