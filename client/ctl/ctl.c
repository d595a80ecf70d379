/* Flags, connections, errors and output of all commands. Thread: main. */
#include "client/ctl/ctl.h"

#include "base/assert.h"
#include "base/rng.h"
#include "client/client_rpc.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- flags ---- */

void ctl_common_flags(struct ctl *ctl, struct flag rows[CTL_COMMON_FLAG_COUNT])
{
    const struct flag common[] = {
        {"controllers", FLAG_STRING, &ctl->controllers, 0, 0, false, "SHARDKV_CONTROLLERS",
         "ADDR,...", "Addresses of the controllers, host:port."},
        {"cluster", FLAG_STRING, &ctl->cluster, 0, 0, false, "SHARDKV_CLUSTER", "NAME",
         "Name of the cluster; servers of another one refuse. Without it nothing is checked."},
        {"timeout", FLAG_DURATION, &ctl->timeout_ns, NS_PER_MS, 24 * 3600 * NS_PER_S, false, NULL,
         "TIME", "How long to try before giving up."},
        {"json", FLAG_BOOL, &ctl->json, 0, 0, false, NULL, NULL, "Output for programs."},
        {"tls-ca", FLAG_STRING, &ctl->tls_ca, 0, 0, false, "SHARDKV_TLS_CA", "FILE",
         "PEM file of the authority that signed the servers' certificates."},
        {"tls-cert", FLAG_STRING, &ctl->tls_certificate, 0, 0, false, "SHARDKV_TLS_CERT", "FILE",
         "PEM file of this client's certificate."},
        {"tls-key", FLAG_STRING, &ctl->tls_key, 0, 0, false, "SHARDKV_TLS_KEY", "FILE",
         "PEM file of its key."},
    };
    static_assert(sizeof common / sizeof common[0] == CTL_COMMON_FLAG_COUNT, "ctl.h counts them");
    memcpy(rows, common, sizeof common);
}

bool ctl_parse(struct ctl *ctl, const struct ctl_spec *spec, int argc, char **argv,
               char **positional, int *count, int *exit_code)
{
    struct flag rows[CTL_FLAGS_MAX];
    char program[64];
    char message[512];
    ASSERT_CMP(spec->flag_count, <=, CTL_FLAGS_MAX - CTL_COMMON_FLAG_COUNT);
    for (size_t i = 0; i < spec->flag_count; i++) {
        rows[i] = spec->flags[i];
    }
    ctl_common_flags(ctl, rows + spec->flag_count);
    (void)snprintf(program, sizeof program, "shardctl %s", spec->name);
    struct flag_set set = {
        .program = program,
        .summary = spec->summary,
        .usage = spec->usage,
        .details = spec->details,
        .flags = rows,
        .count = spec->flag_count + CTL_COMMON_FLAG_COUNT,
    };
    ctl->command = spec->name;
    int error = flags_parse(&set, argc, argv, positional, count, message, sizeof message);
    if (error == ERR_EXISTS) {
        flags_help(&set, stdout);
        *exit_code = CTL_DONE;
        return false;
    }
    if (error != 0) {
        *exit_code = ctl_usage(ctl, "%s", message);
        return false;
    }
    if (*count < spec->positional_min || *count > spec->positional_max) {
        *exit_code = ctl_usage(ctl, "want: shardctl %s %s (see shardctl %s --help)", spec->name,
                               spec->usage, spec->name);
        return false;
    }
    return true;
}

uint64_t ctl_deadline_ns(const struct ctl *ctl)
{
    return clock_now_ns(ctl->clock) + ctl->timeout_ns;
}

bool ctl_number(const struct ctl *ctl, const char *text, const char *what, uint64_t *out)
{
    if (parse_uint(text, out) != 0) {
        (void)ctl_usage(ctl, "'%s' is not a %s: a number is wanted", text, what);
        return false;
    }
    return true;
}

/* ---- errors ---- */

static int say_failure(const struct ctl *ctl, int code, const char *text)
{
    static const char *const outcomes[] = {
        [CTL_DONE] = "done",
        [CTL_NOT_DONE] = "not_done",
        [CTL_USAGE] = "usage",
        [CTL_UNKNOWN] = "unknown",
        [CTL_NOT_FOUND] = "not_found",
        [CTL_VERSION_MISMATCH] = "version_mismatch",
        [CTL_UNREACHABLE] = "unreachable",
        [CTL_NOT_SETTLED] = "not_settled",
    };
    if (ctl->quiet) {
        return code;
    }
    (void)fflush(stdout);
    fprintf(stderr, "error: %s: %s\n", ctl->command, text);
    if (ctl->json) {
        ctl_print_json(json_pack("{s:s, s:s}", "outcome", outcomes[code], "message", text));
    }
    return code;
}

int ctl_fail(const struct ctl *ctl, int code, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return say_failure(ctl, code, text);
}

int ctl_usage(const struct ctl *ctl, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return say_failure(ctl, CTL_USAGE, text);
}

int ctl_fail_error(const struct ctl *ctl, int error, bool read_only, const char *text)
{
    int code;
    switch (error) {
    case ERR_NOT_FOUND:
    case ERR_CONFIG_UNKNOWN:
    case ERR_GROUP_UNKNOWN:
        code = CTL_NOT_FOUND;
        break;
    case ERR_UNAVAILABLE:
    case ERR_NOT_LEADER:
    case ERR_NO_QUORUM:
        code = CTL_UNREACHABLE;
        break;
    case ERR_VERSION_MISMATCH:
        code = CTL_VERSION_MISMATCH;
        break;
    default:
        code = err_outcome(error) != OUTCOME_UNKNOWN ? CTL_NOT_DONE
               : read_only                           ? CTL_UNREACHABLE
                                                     : CTL_UNKNOWN;
        break;
    }
    if (text == NULL || text[0] == '\0') {
        text = err_text(error);
    }
    if (error == ERR_UNSUPPORTED && strstr(text, "no such method") != NULL) {
        return ctl_fail(ctl, code, "these are no controllers: %s (%s)", ctl->controllers, text);
    }
    if (error == ERR_WRONG_CLUSTER && ctl->cluster != NULL) {
        return ctl_fail(ctl, code, "the servers at %s are not of cluster '%s'", ctl->controllers,
                        ctl->cluster);
    }
    return ctl_fail(ctl, code, "%s%s", code == CTL_UNKNOWN ? "outcome unknown: " : "", text);
}

/* ---- connections ---- */

static int need_controllers(const struct ctl *ctl)
{
    if (ctl->controllers == NULL || ctl->controllers[0] == '\0') {
        return ctl_usage(ctl, "no controllers: give --controllers=HOST:PORT,... or set "
                              "SHARDKV_CONTROLLERS");
    }
    return CTL_DONE;
}

static int need_tls_files(const struct ctl *ctl)
{
    int given = (ctl->tls_ca != NULL) + (ctl->tls_certificate != NULL) + (ctl->tls_key != NULL);
    if (given != 0 && given != 3) {
        return ctl_usage(ctl, "--tls-ca, --tls-cert and --tls-key go together: give all three or "
                              "none");
    }
    return CTL_DONE;
}

int ctl_connect(struct ctl *ctl)
{
    char why[512] = "";
    int code = need_controllers(ctl);
    if (code != CTL_DONE) {
        return code;
    }
    if (need_tls_files(ctl) != CTL_DONE) {
        return CTL_USAGE;
    }
    struct client_tls_files files = {ctl->tls_ca, ctl->tls_certificate, ctl->tls_key};
    ctl->cluster_id = ctl->cluster != NULL ? cluster_id_of_name(ctl->cluster) : 0;
    int error = client__rpc_create(&files, &ctl->rpc, why, sizeof why);
    if (error != 0) {
        return ctl_usage(ctl, "%s", why);
    }
    error = controller_client_create(ctl->rpc, ctl->clock, ctl->controllers, ctl->cluster_id,
                                     rng_seed_from_system(), &ctl->controller, why, sizeof why);
    return error != 0 ? ctl_usage(ctl, "%s", why) : CTL_DONE;
}

void ctl_disconnect(struct ctl *ctl)
{
    controller_client_destroy(ctl->controller);
    if (ctl->rpc != NULL) {
        rpc_destroy(ctl->rpc);
    }
    ctl->controller = NULL;
    ctl->rpc = NULL;
}

int ctl_open(struct ctl *ctl, uint32_t outstanding_max, struct skv_client **out)
{
    char why[SKV_ERROR_TEXT_BYTES] = "";
    int code = need_controllers(ctl);
    if (code != CTL_DONE) {
        return code;
    }
    if (need_tls_files(ctl) != CTL_DONE) {
        return CTL_USAGE;
    }
    uint64_t timeout_ms = ctl->timeout_ns / NS_PER_MS;
    struct skv_options options = {
        .controllers = ctl->controllers,
        .cluster = ctl->cluster,
        .outstanding_max = outstanding_max,
        .open_timeout_ms = timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)timeout_ms,
        .tls_ca_file = ctl->tls_ca,
        .tls_certificate_file = ctl->tls_certificate,
        .tls_key_file = ctl->tls_key,
    };
    int error = skv_open(&options, out, why, sizeof why);
    if (error == SKV_OK) {
        return CTL_DONE;
    }
    code = error == SKV_INVALID || error == SKV_IO                  ? CTL_USAGE
           : error == SKV_WRONG_CLUSTER || error == SKV_UNSUPPORTED ? CTL_NOT_DONE
                                                                    : CTL_UNREACHABLE;
    if (error == SKV_WRONG_CLUSTER || error == SKV_UNSUPPORTED) {
        return ctl_fail_error(ctl, error == SKV_UNSUPPORTED ? ERR_UNSUPPORTED : ERR_WRONG_CLUSTER,
                              false, why);
    }
    return ctl_fail(ctl, code, "%s", why);
}

int ctl_call(struct ctl *ctl, const char *method, struct buf *request, struct buf *reply,
             char *text, size_t text_size)
{
    text[0] = '\0';
    return controller_client_call_wait(ctl->controller, method, request, ctl_deadline_ns(ctl),
                                       reply, text, text_size);
}

int ctl_query(struct ctl *ctl, uint64_t number, struct config **out)
{
    struct msg_query_request query = {.header = {.cluster_id = ctl->cluster_id},
                                      .number = number == UINT64_MAX ? 0 : number,
                                      .latest = number == UINT64_MAX};
    struct msg_query_response response = {0};
    struct buf request = {0};
    struct buf reply = {0};
    char text[RPC_ERROR_TEXT_BYTES_MAX];
    msg_query_request_encode(&query, &request);
    int error = ctl_call(ctl, METHOD_CONTROLLER_QUERY, &request, &reply, text, sizeof text);
    if (error == 0) {
        error = msg_query_response_decode(buf_view(&reply), &response);
        if (error == 0 && response.config == NULL) {
            error = ERR_PROTOCOL;
        }
    }
    int code = CTL_DONE;
    if (error != 0) {
        code = ctl_fail_error(ctl, error, true, text);
    } else {
        *out = config_clone(response.config);
    }
    msg_query_response_deinit(&response);
    buf_deinit(&request);
    buf_deinit(&reply);
    return code;
}

/* ---- output ---- */

void ctl_print_json(json_t *json)
{
    if (json != NULL) {
        (void)json_dumpf(json, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
        (void)fputc('\n', stdout);
        json_decref(json);
    }
}

json_t *ctl_json_text(struct bytes bytes)
{
    return json_stringn(bytes.size > 0 ? (const char *)bytes.data : "", bytes.size);
}

const char *ctl_size_text(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}
