/* Preloaded into a server by tests; see shim.h. Takes the place of the C library's storage calls
 * that the product and RocksDB make (nm -D lists them; none uses others), looks where the file is,
 * and makes the system call itself. Any thread; no lock, no memory of its own besides the shared
 * block. Buffered writes of RocksDB's information log do not pass here, and need not. */
#include "fault/shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };
#define NS 1000000000ull

typedef int (*timedwait_fn)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
typedef int (*gettime_fn)(clockid_t, struct timespec *);

static struct shim_control *control; /* NULL: this process is left alone */
static const char *root;
static size_t root_size;
static timedwait_fn next_timedwait;
static gettime_fn next_gettime;
static uintptr_t program_from, program_to; /* where the server's own code is */

/* ---- start ---- */

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "shim: %s: %s\n", what, strerror(errno));
    _exit(125);
}

/* The first object listed is the program. */
static int find_program(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0) {
            program_from = info->dlpi_addr + part->p_vaddr;
            program_to = program_from + part->p_memsz;
        }
    }
    return 1;
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv(SHIM_ENV_CONTROL);
    root = getenv(SHIM_ENV_ROOT);
    if (path == NULL || root == NULL) {
        return;
    }
    root_size = strlen(root);
    next_timedwait = (timedwait_fn)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    next_gettime = (gettime_fn)dlsym(RTLD_NEXT, "clock_gettime");
    dl_iterate_phdr(find_program, NULL);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) {
        give_up(path);
    }
    void *block =
        mmap(NULL, sizeof(struct shim_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (block == MAP_FAILED || ((struct shim_control *)block)->magic != SHIM_MAGIC) {
        give_up("the shared block");
    }
    control = block;
    atomic_fetch_add(&control->attached, 1);
}

/* ---- what is it ---- */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool ends(const char *text, const char *with)
{
    size_t size = strlen(text), tail = strlen(with);
    return size >= tail && strcmp(text + size - tail, with) == 0;
}

static enum shim_class class_in_wal(const char *name)
{
    if (*name == '\0') {
        return SHIM_WAL_DIR;
    }
    if (begins(name, "/base")) {
        return SHIM_WAL_BASE;
    }
    return ends(name, ".wal") ? SHIM_WAL_SEGMENT : SHIM_WAL_SPARE;
}

static enum shim_class class_in_snapshot(const char *name)
{
    if (begins(name, "/in-")) {
        return SHIM_SNAPSHOT_IN;
    }
    if (begins(name, "/ready-")) {
        return SHIM_SNAPSHOT_READY;
    }
    return begins(name, "/out-") ? SHIM_SNAPSHOT_OUT : SHIM_SNAPSHOT_DIR;
}

static enum shim_class class_in_state(const char *name)
{
    if (*name == '\0' || begins(name, ".old")) {
        return SHIM_STATE_DIR;
    }
    if (ends(name, ".sst") || begins(name, ".ingest")) {
        return SHIM_STATE_TABLE;
    }
    return begins(name, "/MANIFEST") ? SHIM_STATE_MANIFEST : SHIM_STATE_OTHER;
}

/* False when it is none of ours. */
static bool class_of_path(const char *path, enum shim_class *out)
{
    if (strncmp(path, root, root_size) != 0 ||
        (path[root_size] != '/' && path[root_size] != '\0')) {
        return false;
    }
    const char *name = path + root_size;
    if (*name == '\0' || strcmp(name, "/") == 0) {
        *out = SHIM_ROOT;
    } else if (begins(name, "/wal")) {
        *out = class_in_wal(name + 4);
    } else if (begins(name, "/snapshot")) {
        *out = class_in_snapshot(name + 9);
    } else if (begins(name, "/state")) {
        *out = class_in_state(name + 6);
    } else if (begins(name, "/config")) {
        *out = SHIM_CONFIG;
    } else {
        *out = begins(name, "/identity") ? SHIM_IDENTITY : SHIM_STRANGER;
    }
    return true;
}

static bool class_of_fd(int fd, enum shim_class *out)
{
    char link[32], path[PATH_BYTES];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) {
        return false;
    }
    path[size] = '\0';
    return class_of_path(path, out);
}

/* ---- what happens ---- */

struct verdict {
    int error; /* errno; 0: go on */
    bool half, kill_after;
};

static _Noreturn void die(void)
{
    for (;;) {
        syscall(SYS_kill, getpid(), SIGKILL);
    }
}

static void apply(const struct shim_rule *rule, struct verdict *verdict)
{
    switch ((enum shim_action)rule->action) {
    case SHIM_KILL_BEFORE:
        die();
    case SHIM_KILL_HALF:
        verdict->half = true;
        break;
    case SHIM_KILL_AFTER:
        verdict->kill_after = true;
        break;
    case SHIM_FAIL_ONCE:
    case SHIM_FAIL_ALWAYS:
        verdict->error = rule->error;
        break;
    case SHIM_DELAY_ONCE: {
        struct timespec wait = {rule->delay_ms / 1000, (long)(rule->delay_ms % 1000) * 1000000};
        nanosleep(&wait, NULL);
        break;
    }
    }
}

static struct verdict judge(enum shim_class class, enum shim_kind kind)
{
    struct verdict verdict = {0};
    atomic_fetch_add(&control->counts[class][kind], 1);
    for (size_t i = 0; i < SHIM_RULES; i++) {
        struct shim_rule *rule = &control->rules[i];
        if (atomic_load(&rule->armed) == 0 || (rule->classes & 1u << class) == 0 ||
            (rule->kinds & 1u << kind) == 0) {
            continue;
        }
        int_fast64_t left = atomic_fetch_sub(&rule->left, 1);
        if (left == 1 || (left < 1 && rule->action == SHIM_FAIL_ALWAYS)) {
            atomic_fetch_add(&rule->hits, 1);
            apply(rule, &verdict);
        }
    }
    if (verdict.half && kind != SHIM_WRITE) {
        die();
    }
    return verdict;
}

static struct verdict judge_fd(int fd, enum shim_kind kind)
{
    enum shim_class class;
    int saved = errno;
    bool ours = control != NULL && class_of_fd(fd, &class);
    errno = saved;
    return ours ? judge(class, kind) : (struct verdict){0};
}

static struct verdict judge_path(const char *path, enum shim_kind kind)
{
    enum shim_class class;
    return control != NULL && class_of_path(path, &class) ? judge(class, kind)
                                                          : (struct verdict){0};
}

static long finish(const struct verdict *verdict, long result)
{
    if (verdict->kill_after) {
        die();
    }
    return result;
}

static int refuse(const struct verdict *verdict)
{
    errno = verdict->error;
    return -1;
}

/* ---- the calls ---- */

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct verdict verdict = judge_fd(fd, SHIM_WRITE);
    if (verdict.error != 0) {
        return refuse(&verdict);
    }
    if (verdict.half) {
        syscall(SYS_pwrite64, fd, data, size / 2, offset);
        die();
    }
    return finish(&verdict, syscall(SYS_pwrite64, fd, data, size, offset));
}

ssize_t write(int fd, const void *data, size_t size)
{
    struct verdict verdict = judge_fd(fd, SHIM_WRITE);
    if (verdict.error != 0) {
        return refuse(&verdict);
    }
    if (verdict.half) {
        syscall(SYS_write, fd, data, size / 2);
        die();
    }
    return finish(&verdict, syscall(SYS_write, fd, data, size));
}

static int sync_call(int fd, long number)
{
    struct verdict verdict = judge_fd(fd, SHIM_SYNC);
    if (verdict.error != 0) {
        return refuse(&verdict);
    }
    bool lie = control != NULL && atomic_load(&control->syncs_are_lies) != 0;
    return (int)finish(&verdict, lie ? 0 : syscall(number, fd));
}

int fsync(int fd)
{
    return sync_call(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_call(fd, SYS_fdatasync);
}

int sync_file_range(int fd, off_t from, off_t size, unsigned flags)
{
    if (flags == 0) { /* does nothing: RocksDB asks whether there is such a call, and asserts it */
        return (int)syscall(SYS_sync_file_range, fd, from, size, flags);
    }
    struct verdict verdict = judge_fd(fd, SHIM_SYNC);
    if (verdict.error != 0) {
        return refuse(&verdict);
    }
    bool lie = control != NULL && atomic_load(&control->syncs_are_lies) != 0;
    return (int)finish(&verdict, lie ? 0 : syscall(SYS_sync_file_range, fd, from, size, flags));
}

int ftruncate(int fd, off_t size)
{
    struct verdict verdict = judge_fd(fd, SHIM_TRUNCATE);
    return verdict.error != 0 ? refuse(&verdict)
                              : (int)finish(&verdict, syscall(SYS_ftruncate, fd, size));
}

int fallocate(int fd, int mode, off_t from, off_t size)
{
    struct verdict verdict = judge_fd(fd, SHIM_TRUNCATE);
    return verdict.error != 0 ? refuse(&verdict)
                              : (int)finish(&verdict, syscall(SYS_fallocate, fd, mode, from, size));
}

int open(const char *path, int flags, ...)
{
    unsigned mode = 0;
    if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, unsigned);
        va_end(arguments);
    }
    struct verdict verdict = {0};
    if ((flags & O_TRUNC) != 0 ||
        ((flags & O_CREAT) != 0 &&
         syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0)) { /* otherwise it changes nothing */
        verdict = judge_path(path, SHIM_CREATE);
    }
    return verdict.error != 0
               ? refuse(&verdict)
               : (int)finish(&verdict, syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

int rename(const char *from, const char *to)
{
    struct verdict verdict = judge_path(to, SHIM_RENAME);
    return verdict.error != 0
               ? refuse(&verdict)
               : (int)finish(&verdict, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int link(const char *from, const char *to)
{
    struct verdict verdict = judge_path(to, SHIM_LINK);
    return verdict.error != 0
               ? refuse(&verdict)
               : (int)finish(&verdict, syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int mkdir(const char *path, mode_t mode)
{
    struct verdict verdict = judge_path(path, SHIM_MKDIR);
    return verdict.error != 0 ? refuse(&verdict)
                              : (int)finish(&verdict, syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

static int remove_call(const char *path, int flags)
{
    struct verdict verdict = judge_path(path, SHIM_UNLINK);
    return verdict.error != 0 ? refuse(&verdict)
                              : (int)finish(&verdict, syscall(SYS_unlinkat, AT_FDCWD, path, flags));
}

int unlink(const char *path)
{
    return remove_call(path, 0);
}

int rmdir(const char *path)
{
    return remove_call(path, AT_REMOVEDIR);
}

int remove(const char *path)
{
    struct stat status;
    bool is_directory = lstat(path, &status) == 0 && S_ISDIR(status.st_mode);
    return remove_call(path, is_directory ? AT_REMOVEDIR : 0);
}

/* ---- the clocks ---- */

struct clock_line {
    uint64_t from_ns, to_ns;
    double rate;
};

/* False while the clock is the kernel's. */
static bool clock_line_read(struct clock_line *line)
{
    for (;;) {
        unsigned version = atomic_load(&control->clock_version);
        if (version == 0) {
            return false;
        }
        *line =
            (struct clock_line){control->clock_from_ns, control->clock_to_ns, control->clock_rate};
        atomic_thread_fence(memory_order_acquire);
        if (version % 2 == 0 && atomic_load(&control->clock_version) == version) {
            return true;
        }
    }
}

static bool called_by_program(const void *caller)
{
    return (uintptr_t)caller >= program_from && (uintptr_t)caller < program_to;
}

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){ns / (int64_t)NS, ns % (int64_t)NS};
}

static int64_t ns_of(const struct timespec *time)
{
    return time->tv_sec * (int64_t)NS + time->tv_nsec;
}

int clock_gettime(clockid_t id, struct timespec *out)
{
    int result =
        next_gettime != NULL ? next_gettime(id, out) : (int)syscall(SYS_clock_gettime, id, out);
    if (control == NULL || result != 0) {
        return result;
    }
    struct clock_line line;
    if (id == CLOCK_MONOTONIC && clock_line_read(&line)) {
        double passed = (double)(ns_of(out) - (int64_t)line.from_ns);
        *out = timespec_of((int64_t)line.to_ns + (int64_t)(passed * line.rate));
    } else if (id == CLOCK_REALTIME && called_by_program(__builtin_return_address(0))) {
        *out = timespec_of(ns_of(out) + atomic_load(&control->wall_offset_ns));
    }
    return 0;
}

/* The product waits until moments of the monotonic clock; the kernel knows only its own. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline)
{
    if (next_timedwait == NULL) { /* before our constructor */
        next_timedwait = (timedwait_fn)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    }
    struct clock_line line;
    if (control == NULL || !called_by_program(__builtin_return_address(0)) ||
        !clock_line_read(&line)) {
        return next_timedwait(condition, mutex, deadline);
    }
    double left = (double)(ns_of(deadline) - (int64_t)line.to_ns);
    struct timespec real = timespec_of((int64_t)line.from_ns + (int64_t)(left / line.rate));
    return next_timedwait(condition, mutex, &real);
}
