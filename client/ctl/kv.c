/* put, get, append, delete, cas: one command of the library each. Thread: main. */
#include "client/ctl/ctl.h"
#include "client/ctl/encoding.h"

#include "proto/shard_hash.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NO_OWNER_QUERY_NS (500 * NS_PER_MS) /* beyond the deadline, for a better word */

struct kv_flags {
    bool hex;
    bool base64;
};

#define KV_DETAILS                                                                                 \
    "A VALUE of - is read from standard input. With --hex or --base64 the key, the value and\n"    \
    "what get prints are in that encoding; without, bytes are taken and printed as they are."

/* An argument (or standard input) as bytes. */
static int read_word(struct ctl *ctl, enum encoding encoding, const char *word, const char *what,
                     size_t size_max, struct buf *out)
{
    struct buf raw = {0};
    if (strcmp(what, "value") == 0 && strcmp(word, "-") == 0) {
        size_t limit = size_max * 2 + 1024; /* more than any encoding of it */
        while (raw.size <= limit) {
            uint8_t *at = buf_reserve(&raw, 65536);
            size_t got = fread(at, 1, 65536, stdin);
            raw.size += got;
            if (got == 0) {
                break;
            }
        }
        if (ferror(stdin)) {
            buf_deinit(&raw);
            return ctl_fail(ctl, CTL_NOT_DONE, "cannot read standard input");
        }
    } else {
        buf_append_bytes(&raw, bytes_of_string(word));
    }
    int error = encoding_decode(encoding, buf_view(&raw), out);
    buf_deinit(&raw);
    if (error != 0) {
        return ctl_usage(ctl, "the %s is not %s", what,
                         encoding == ENCODING_HEX ? "hexadecimal" : "base64");
    }
    if (out->size > size_max) {
        return ctl_usage(ctl, "the %s has %zu bytes, at most %zu are possible", what, out->size,
                         size_max);
    }
    if (strcmp(what, "key") == 0 && out->size == 0) {
        return ctl_usage(ctl, "the key is empty");
    }
    return CTL_DONE;
}

int ctl_exit_of_result(enum skv_outcome outcome, int code)
{
    switch (outcome) {
    case SKV_DONE:
        return code == SKV_NOT_FOUND ? CTL_NOT_FOUND : CTL_DONE;
    case SKV_UNKNOWN:
        return CTL_UNKNOWN;
    case SKV_NOT_DONE:
        break;
    }
    switch (code) {
    case SKV_VERSION_MISMATCH:
        return CTL_VERSION_MISMATCH;
    case SKV_NOT_FOUND:
        return CTL_NOT_FOUND;
    case SKV_UNAVAILABLE:
    case SKV_TIMEOUT:
        return CTL_UNREACHABLE;
    default:
        return CTL_NOT_DONE;
    }
}

/* True, and said, when nothing answers because nobody owns the key's shard: that is for a person to
 * mend. */
static bool tell_no_owner(struct ctl *ctl, struct bytes key)
{
    struct config *config = NULL;
    bool told = false;
    uint64_t timeout_ns = ctl->timeout_ns;
    ctl->timeout_ns = timeout_ns < NO_OWNER_QUERY_NS ? timeout_ns : NO_OWNER_QUERY_NS;
    ctl->quiet = true;
    int code = ctl_connect(ctl);
    if (code == CTL_DONE) {
        code = ctl_query(ctl, UINT64_MAX, &config);
    }
    ctl->quiet = false;
    ctl->timeout_ns = timeout_ns;
    if (code == CTL_DONE) {
        uint32_t shard = shard_of_key(key, config->shard_count);
        told = config->owners[shard] == 0;
        if (told) {
            (void)ctl_fail(ctl, CTL_UNREACHABLE,
                           "no group owns shard %u, which the key belongs to: shardctl join one",
                           shard);
        }
    }
    config_free(config);
    return told;
}

static int tell_failure(struct ctl *ctl, struct bytes key, const struct skv_result *result)
{
    int code = ctl_exit_of_result(result->outcome, result->code);
    if (code == CTL_UNREACHABLE && result->code == SKV_UNAVAILABLE && tell_no_owner(ctl, key)) {
        return code;
    }
    if (result->code == SKV_TOO_LARGE) {
        return ctl_fail(ctl, code, "too large: a value has at most %u bytes", SKV_VALUE_BYTES_MAX);
    }
    if (code == CTL_UNKNOWN) {
        return ctl_fail(ctl, code, "outcome unknown: %s; it may have been executed, or may yet be",
                        skv_code_text(result->code));
    }
    if (code == CTL_VERSION_MISMATCH) {
        return ctl_fail(ctl, code, "the version is %llu, not the expected one",
                        (unsigned long long)result->version);
    }
    return ctl_fail(ctl, code, "%s", skv_code_text(result->code));
}

static int print_value(const struct ctl *ctl, enum encoding encoding, struct bytes key,
                       const struct skv_result *result)
{
    struct bytes value = bytes_of(result->value, result->value_size);
    struct buf text = {0};
    if (ctl->json) {
        json_t *row = json_object();
        const char *names[2] = {"key", "value"};
        struct bytes parts[2] = {key, value};
        for (int i = 0; i < 2; i++) {
            json_t *plain = encoding == ENCODING_PLAIN ? ctl_json_text(parts[i]) : NULL;
            char name[32];
            (void)snprintf(name, sizeof name, "%s%s", names[i], plain == NULL ? "_base64" : "");
            if (plain == NULL) {
                buf_clear(&text);
                encoding_encode(ENCODING_BASE64, parts[i], &text);
                plain = ctl_json_text(buf_view(&text));
            }
            (void)json_object_set_new(row, name, plain);
        }
        (void)json_object_set_new(row, "version", json_integer((json_int_t)result->version));
        ctl_print_json(row);
        buf_deinit(&text);
        return CTL_DONE;
    }
    encoding_encode(encoding, value, &text);
    (void)fwrite(text.data, 1, text.size, stdout);
    /* Into a file or a pipe go the value's bytes and nothing else. */
    if (isatty(STDOUT_FILENO) || encoding != ENCODING_PLAIN) {
        (void)fputc('\n', stdout);
    }
    buf_deinit(&text);
    return CTL_DONE;
}

static int execute(struct ctl *ctl, enum encoding encoding, enum skv_op op, struct bytes key,
                   struct bytes value, uint64_t expected)
{
    struct skv_client *client;
    uint64_t deadline_ns = ctl_deadline_ns(ctl); /* of all of it: finding the cluster, too */
    int code = ctl_open(ctl, 0, &client);
    if (code != CTL_DONE) {
        return code;
    }
    struct skv_result result = {0};
    uint64_t now_ns = clock_now_ns(ctl->clock);
    uint64_t ms = deadline_ns > now_ns ? (deadline_ns - now_ns) / NS_PER_MS : 0;
    uint32_t timeout_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
    switch (op) {
    case SKV_GET:
        (void)skv_get(client, key.data, key.size, timeout_ms, &result);
        break;
    case SKV_PUT:
        (void)skv_put(client, key.data, key.size, value.data, value.size, timeout_ms, &result);
        break;
    case SKV_APPEND:
        (void)skv_append(client, key.data, key.size, value.data, value.size, timeout_ms, &result);
        break;
    case SKV_DELETE:
        (void)skv_delete(client, key.data, key.size, timeout_ms, &result);
        break;
    case SKV_CAS:
        (void)skv_cas(client, key.data, key.size, expected, value.data, value.size, timeout_ms,
                      &result);
        break;
    }
    code = ctl_exit_of_result(result.outcome, result.code);
    if (code != CTL_DONE) {
        code = tell_failure(ctl, key, &result);
    } else if (op == SKV_GET) {
        code = print_value(ctl, encoding, key, &result);
    } else if (ctl->json) {
        ctl_print_json(
            json_pack("{s:s, s:I}", "outcome", "done", "version", (json_int_t)result.version));
    } else {
        printf("OK\n");
    }
    skv_result_free(&result);
    skv_close(client);
    return code;
}

static int run(struct ctl *ctl, int argc, char **argv, enum skv_op op, struct ctl_spec spec)
{
    struct kv_flags flags = {0};
    const struct flag rows[] = {
        {"hex", FLAG_BOOL, &flags.hex, 0, 0, false, NULL, NULL, "Key and value are hexadecimal."},
        {"base64", FLAG_BOOL, &flags.base64, 0, 0, false, NULL, NULL, "Key and value are base64."},
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    struct buf key = {0};
    struct buf value = {0};
    uint64_t expected = 0;
    int count = 0;
    int code = CTL_DONE;
    spec.flags = rows;
    spec.flag_count = sizeof rows / sizeof rows[0];
    spec.details = KV_DETAILS;
    if (!ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        free(words);
        return code;
    }
    enum encoding encoding = flags.hex      ? ENCODING_HEX
                             : flags.base64 ? ENCODING_BASE64
                                            : ENCODING_PLAIN;
    if (flags.hex && flags.base64) {
        code = ctl_usage(ctl, "--hex and --base64 exclude each other");
    }
    if (code == CTL_DONE) {
        code = read_word(ctl, encoding, words[0], "key", SKV_KEY_BYTES_MAX, &key);
    }
    if (code == CTL_DONE && op == SKV_CAS && !ctl_number(ctl, words[1], "version", &expected)) {
        code = CTL_USAGE;
    }
    if (code == CTL_DONE && count > 1) {
        code = read_word(ctl, encoding, words[count - 1], "value", SKV_VALUE_BYTES_MAX, &value);
    }
    if (code == CTL_DONE) {
        code = execute(ctl, encoding, op, buf_view(&key), buf_view(&value), expected);
    }
    buf_deinit(&key);
    buf_deinit(&value);
    free(words);
    return code;
}

int ctl_put(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, SKV_PUT,
               (struct ctl_spec){.name = "put",
                                 .summary = "set a key",
                                 .usage = "KEY VALUE|-",
                                 .positional_min = 2,
                                 .positional_max = 2});
}

int ctl_get(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, SKV_GET,
               (struct ctl_spec){.name = "get",
                                 .summary = "print a key's value",
                                 .usage = "KEY",
                                 .positional_min = 1,
                                 .positional_max = 1});
}

int ctl_append(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, SKV_APPEND,
               (struct ctl_spec){.name = "append",
                                 .summary = "add to the end of a key's value",
                                 .usage = "KEY VALUE|-",
                                 .positional_min = 2,
                                 .positional_max = 2});
}

int ctl_delete(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, SKV_DELETE,
               (struct ctl_spec){.name = "delete",
                                 .summary = "remove a key; done also when there is none",
                                 .usage = "KEY",
                                 .positional_min = 1,
                                 .positional_max = 1});
}

int ctl_cas(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, SKV_CAS,
               (struct ctl_spec){.name = "cas",
                                 .summary = "set a key when its version is the expected one; "
                                            "get --json shows versions, 0 means absent",
                                 .usage = "KEY VERSION VALUE|-",
                                 .positional_min = 3,
                                 .positional_max = 3});
}
