/* JSON lines over jansson. Pure but for the FILE; any thread. */
#include "client/ctl/jsonl.h"

#include "client/ctl/encoding.h"
#include "proto/limits.h"
#include <jansson.h>
#include <string.h>

/* The part `name` or `name`_base64 of the row, which must be there exactly once. */
static int take_part(json_t *row, const char *name, size_t size_max, struct buf *out, char *why,
                     size_t why_size)
{
    char coded_name[32];
    (void)snprintf(coded_name, sizeof coded_name, "%s_base64", name);
    json_t *plain = json_object_get(row, name);
    json_t *coded = json_object_get(row, coded_name);
    buf_clear(out);
    if ((plain == NULL) == (coded == NULL)) {
        (void)snprintf(why, why_size, "want either \"%s\" or \"%s\"", name, coded_name);
        return ERR_INVALID;
    }
    json_t *part = plain != NULL ? plain : coded;
    if (!json_is_string(part)) {
        (void)snprintf(why, why_size, "\"%s\" is not a string", plain != NULL ? name : coded_name);
        return ERR_INVALID;
    }
    struct bytes text = bytes_of(json_string_value(part), json_string_length(part));
    if (encoding_decode(plain != NULL ? ENCODING_PLAIN : ENCODING_BASE64, text, out) != 0) {
        (void)snprintf(why, why_size, "\"%s\" is not base64", coded_name);
        return ERR_INVALID;
    }
    if (out->size > size_max) {
        (void)snprintf(why, why_size, "the %s has %zu bytes, at most %zu are possible", name,
                       out->size, size_max);
        return ERR_INVALID;
    }
    return 0;
}

int jsonl_parse(struct bytes line, struct jsonl_row *out, char *why, size_t why_size)
{
    json_error_t json_error;
    json_t *row = json_loadb((const char *)line.data, line.size,
                             JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &json_error);
    int error = ERR_INVALID;
    if (row == NULL) {
        (void)snprintf(why, why_size, "not JSON: %s", json_error.text);
    } else if (!json_is_object(row)) {
        (void)snprintf(why, why_size, "want an object {\"key\": ..., \"value\": ...}");
    } else {
        error = take_part(row, "key", KEY_BYTES_MAX, &out->key, why, why_size);
        if (error == 0 && out->key.size == 0) {
            (void)snprintf(why, why_size, "the key is empty");
            error = ERR_INVALID;
        }
        if (error == 0) {
            error = take_part(row, "value", VALUE_BYTES_MAX, &out->value, why, why_size);
        }
    }
    json_decref(row);
    return error;
}

void jsonl_row_deinit(struct jsonl_row *row)
{
    buf_deinit(&row->key);
    buf_deinit(&row->value);
}

static void add_part(json_t *row, const char *name, struct bytes bytes)
{
    char coded_name[32];
    json_t *part = json_stringn(bytes.size > 0 ? (const char *)bytes.data : "", bytes.size);
    if (part == NULL) { /* not UTF-8 */
        struct buf text = {0};
        encoding_encode(ENCODING_BASE64, bytes, &text);
        part = json_stringn((const char *)text.data, text.size);
        buf_deinit(&text);
        (void)snprintf(coded_name, sizeof coded_name, "%s_base64", name);
        name = coded_name;
    }
    (void)json_object_set_new(row, name, part);
}

int jsonl_print(FILE *out, struct bytes key, const struct bytes *value)
{
    json_t *row = json_object();
    add_part(row, "key", key);
    if (value != NULL) {
        add_part(row, "value", *value);
    }
    int error = json_dumpf(row, out, JSON_COMPACT) != 0 || fputc('\n', out) == EOF ? ERR_IO : 0;
    json_decref(row);
    return error;
}
