/* See shim_use.h. FAULT_SHIM_LIBRARY is the library's file, told by the build. */
#include "fault/shim_use.h"

#include "base/clock.h"
#include "lib/suite.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void shim_attach(struct shim *shim, const struct cluster *cluster, struct process *process)
{
    CHECK_EQ(process->pid, 0);
    char path[384], data[320];
    process_data_dir(cluster, process, data, sizeof data);
    snprintf(path, sizeof path, "%s/g%llu-%u.shim", cluster->dir,
             (unsigned long long)process->group, process->id);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, sizeof *shim->control), 0);
    void *block = mmap(NULL, sizeof *shim->control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    CHECK(block != MAP_FAILED);
    shim->control = block;
    shim->control->magic = SHIM_MAGIC;
    snprintf(shim->preload, sizeof shim->preload, "LD_PRELOAD=%s", FAULT_SHIM_LIBRARY);
    snprintf(shim->block, sizeof shim->block, "%s=%s", SHIM_ENV_CONTROL, path);
    snprintf(shim->root, sizeof shim->root, "%s=%s", SHIM_ENV_ROOT, data);
    /* Servers of a build with the address sanitizer want its library to come first; it need not. */
    const char *const environment[] = {shim->preload, shim->block, shim->root,
                                       "ASAN_OPTIONS=verify_asan_link_order=0", NULL};
    memcpy(process->environment, environment, sizeof environment);
}

void shim_detach(struct shim *shim, struct process *process)
{
    CHECK_EQ(process->pid, 0);
    process->environment[0] = NULL;
    munmap(shim->control, sizeof *shim->control);
    shim->control = NULL;
}

void shim_arm(struct shim *shim, uint32_t which, const struct shim_order *order)
{
    CHECK_CMP(which, <, SHIM_RULES);
    struct shim_rule *rule = &shim->control->rules[which];
    atomic_store(&rule->armed, 0);
    rule->classes = order->classes;
    rule->kinds = order->kinds;
    rule->action = order->action;
    rule->error = order->error;
    rule->delay_ms = order->delay_ms;
    atomic_store(&rule->hits, 0);
    atomic_store(&rule->left, order->nth);
    atomic_store(&rule->armed, 1);
}

void shim_disarm(struct shim *shim, uint32_t which)
{
    CHECK_CMP(which, <, SHIM_RULES);
    atomic_store(&shim->control->rules[which].armed, 0);
}

uint32_t shim_hits(const struct shim *shim, uint32_t which)
{
    return atomic_load(&shim->control->rules[which].hits);
}

uint64_t shim_count(const struct shim *shim, enum shim_class class, enum shim_kind kind)
{
    return atomic_load(&shim->control->counts[class][kind]);
}

const char *shim_class_name(enum shim_class class)
{
    static const char *const names[SHIM_CLASSES] = {SHIM_CLASS_NAMES};
    return names[class];
}

const char *shim_kind_name(enum shim_kind kind)
{
    static const char *const names[SHIM_KINDS] = {SHIM_KIND_NAMES};
    return names[kind];
}

void shim_clock_rate(struct shim *shim, double rate)
{
    struct shim_control *control = shim->control;
    uint64_t now = clock_now_ns(clock_system());
    unsigned version = atomic_load(&control->clock_version);
    uint64_t faked =
        version == 0 ? now
                     : control->clock_to_ns +
                           (uint64_t)((double)(now - control->clock_from_ns) * control->clock_rate);
    atomic_store(&control->clock_version, version + 1);
    atomic_thread_fence(memory_order_release);
    control->clock_from_ns = now;
    control->clock_to_ns = faked;
    control->clock_rate = rate;
    atomic_store(&control->clock_version, version + 2);
}
