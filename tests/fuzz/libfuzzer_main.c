/* Feeds a target from libFuzzer. */
#include "fuzz/fuzz.h"

#include "base/log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drop_line(void *context, const char *line)
{
    (void)context;
    (void)line;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_set_sink(drop_line, NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= fuzz_input_bytes_max) {
        fuzz_one(bytes_of(data, size));
    }
    return 0;
}
