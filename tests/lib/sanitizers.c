/* What the sanitizers are told in every test that has the gRPC core in its process. They ask the
 * program for these by name, so this is a source of each such test and not part of a library. */
#define ASKED_FOR __attribute__((visibility("default")))

/* The core is not instrumented, so the thread sanitizer cannot see its locks: what its threads do
 * to its own memory through memcpy and the like is left out. Our own code's accesses are all still
 * checked, and nothing is suppressed. */
ASKED_FOR const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}

/* c-ares 1.18 keeps a few bytes of its first look at the machine's configuration for ever. */
ASKED_FOR const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libcares\n";
}
