/* Feeds a target without libFuzzer: the kept corpus, the target's own seeds, and a fixed number of
 * mutations of both, drawn from a fixed seed. The same program run twice does the same.
 *
 *   fuzz_<name>_replay [--mutations N] [--seed S] [FILE or DIR ...]
 *   fuzz_<name>_replay --write-seeds DIR
 *   fuzz_<name>_replay --input-bytes-max
 *
 * The input under way when the process ends by an abort or a sanitizer is written to
 * crash-<program>, and what to do with it to standard error. */
#include "fuzz/fuzz.h"

#include "base/log.h"
#include "base/rng.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INPUTS_MAX = 4096, PATH_MAX_BYTES = 4096 };

struct inputs {
    struct buf items[INPUTS_MAX];
    size_t count;
};

static struct inputs inputs;
static struct bytes under_way; /* for the handler: set before each input */
static char crash_path[PATH_MAX_BYTES];

/* ---- the end ---- */

static void say(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

/* Async-signal-safe, and good after a sanitizer's report. */
static void keep_input(void)
{
    int file = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) {
        say("fuzz: the input could not be kept\n");
        return;
    }
    ssize_t written = write(file, under_way.data, under_way.size);
    say(written == (ssize_t)under_way.size
            ? "fuzz: failed; to repeat, run this program with the file "
            : "fuzz: failed; a part of the input is in ");
    say(crash_path);
    say("\n");
    close(file);
}

static void on_abort(int signal_number)
{
    keep_input();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* There when a sanitizer is. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void watch_for_the_end(const char *program)
{
    const char *name = strrchr(program, '/');
    snprintf(crash_path, sizeof crash_path, "crash-%s", name != NULL ? name + 1 : program);
    struct sigaction action = {.sa_handler = on_abort};
    sigaction(SIGABRT, &action, NULL);
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(keep_input);
    }
}

/* The copy has exactly the input's size, so that a read past its end is seen. */
static void run(struct bytes input)
{
    uint8_t *copy = mem_dup(input.data, input.size);
    under_way = bytes_of(copy, input.size);
    fuzz_one(under_way);
    under_way = BYTES_EMPTY;
    free(copy);
}

/* ---- where inputs come from ---- */

static struct buf *inputs_add(void)
{
    if (inputs.count == INPUTS_MAX) {
        fprintf(stderr, "fuzz: more than %d inputs\n", INPUTS_MAX);
        exit(2);
    }
    return &inputs.items[inputs.count++];
}

static void read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    struct buf *input = inputs_add();
    size_t count;
    do {
        uint8_t *at = buf_reserve(input, 65536);
        count = fread(at, 1, 65536, file);
        input->size += count;
    } while (count > 0 && input->size <= fuzz_input_bytes_max);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed || input->size > fuzz_input_bytes_max) {
        fprintf(stderr, "fuzz: %s: cannot be read, or is longer than %zu bytes\n", path,
                fuzz_input_bytes_max);
        exit(2);
    }
}

static void read_path(const char *path)
{
    struct stat what;
    if (stat(path, &what) != 0) {
        fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    if (!S_ISDIR(what.st_mode)) {
        read_file(path);
        return;
    }
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char inside[PATH_MAX_BYTES];
        snprintf(inside, sizeof inside, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            read_file(inside);
        }
        free(names[i]);
    }
    if (count >= 0) {
        free(names);
    }
}

static void add_seeds(void)
{
    struct buf seed;
    buf_init(&seed);
    for (uint32_t index = 0; fuzz_seed(index, &seed); index++) {
        ASSERT_CMP(seed.size, <=, fuzz_input_bytes_max);
        *inputs_add() = seed;
        buf_init(&seed);
    }
    buf_deinit(&seed);
}

static int write_seeds(const char *dir)
{
    add_seeds();
    for (size_t i = 0; i < inputs.count; i++) {
        char path[PATH_MAX_BYTES];
        snprintf(path, sizeof path, "%s/seed-%03zu", dir, i);
        FILE *file = fopen(path, "wb");
        size_t size = inputs.items[i].size;
        bool written =
            file != NULL && (size == 0 || fwrite(inputs.items[i].data, 1, size, file) == size);
        if (file == NULL || fclose(file) != 0 || !written) {
            fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
            return 1;
        }
    }
    return 0;
}

/* ---- mutations ---- */

static void replace_run(struct buf *input, size_t at, size_t remove, struct bytes insert)
{
    struct buf made;
    buf_init(&made);
    buf_append(&made, input->data, at);
    buf_append_bytes(&made, insert);
    buf_append(&made, input->data + at + remove, input->size - at - remove);
    if (made.size > fuzz_input_bytes_max) {
        made.size = fuzz_input_bytes_max;
    }
    buf_deinit(input);
    *input = made;
}

static void put_interesting(struct buf *input, size_t at, struct rng *rng)
{
    static const uint64_t values[] = {0,          1,          0x7f,       0x80,        0xff,
                                      0x7fff,     0xffff,     0x7fffffff, 0x80000000u, 0xffffffffu,
                                      1ull << 63, UINT64_MAX, 0x1000,     0x10000};
    uint8_t bytes[8];
    size_t width = (size_t)1 << rng_below(rng, 4);
    store_u64(bytes, values[rng_below(rng, sizeof values / sizeof values[0])]);
    for (size_t i = 0; i < width && at + i < input->size; i++) {
        input->data[at + i] = bytes[i];
    }
}

/* A run of another input, or of this one. */
static struct bytes draw_run(struct rng *rng)
{
    const struct buf *from = &inputs.items[rng_below(rng, inputs.count)];
    if (from->size == 0) {
        return BYTES_EMPTY;
    }
    size_t at = (size_t)rng_below(rng, from->size);
    size_t left = from->size - at;
    return bytes_of(from->data + at, 1 + (size_t)rng_below(rng, left < 64 ? left : 64));
}

static void mutate(struct buf *input, struct rng *rng)
{
    size_t at = (size_t)rng_below(rng, input->size + 1);
    size_t left = input->size - at;
    uint8_t byte = (uint8_t)rng_next(rng);
    switch (left == 0 ? 4 + rng_below(rng, 2) : rng_below(rng, 7)) {
    case 0:
        input->data[at] ^= (uint8_t)(1u << rng_below(rng, 8));
        break;
    case 1:
        input->data[at] = byte;
        break;
    case 2:
        put_interesting(input, at, rng);
        break;
    case 3:
        replace_run(input, at, 1 + (size_t)rng_below(rng, left < 16 ? left : 16), BYTES_EMPTY);
        break;
    case 4:
        replace_run(input, at, 0, bytes_of(&byte, 1));
        break;
    case 5:
        replace_run(input, at, 0, draw_run(rng));
        break;
    default:
        input->size = at; /* cut */
        break;
    }
}

static void run_mutations(uint64_t count, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (uint64_t i = 0; i < count; i++) {
        struct buf input;
        buf_init(&input);
        const struct buf *from = &inputs.items[rng_below(&rng, inputs.count)];
        buf_append_bytes(&input, buf_view(from));
        for (uint64_t changes = rng_between(&rng, 1, 6); changes > 0; changes--) {
            mutate(&input, &rng);
        }
        run(buf_view(&input));
        buf_deinit(&input);
    }
}

static void drop_line(void *context, const char *line)
{
    (void)context;
    (void)line;
}

int main(int argc, char **argv)
{
    uint64_t mutations = 0;
    uint64_t seed = 1;
    log_set_sink(drop_line, NULL);
    watch_for_the_end(argv[0]);
    bool files = false;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--input-bytes-max") == 0) {
            printf("%zu\n", fuzz_input_bytes_max);
            return 0;
        }
        if (strcmp(argv[i], "--write-seeds") == 0 && more) {
            return write_seeds(argv[i + 1]);
        }
        if (strcmp(argv[i], "--mutations") == 0 && more) {
            mutations = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && more) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            read_path(argv[i]);
            files = true;
        }
    }
    if (mutations > 0 || !files) {
        add_seeds();
    }
    if (mutations > 0) {
        inputs_add(); /* and nothing at all */
    }
    for (size_t i = 0; i < inputs.count; i++) {
        run(buf_view(&inputs.items[i]));
    }
    run_mutations(mutations, seed);
    printf("%zu inputs and %" PRIu64 " mutations of them\n", inputs.count, mutations);
    for (size_t i = 0; i < inputs.count; i++) {
        buf_deinit(&inputs.items[i]);
    }
    return 0;
}
