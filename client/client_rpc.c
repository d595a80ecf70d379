/* Reads PEM files and makes the rpc. Thread: the caller's. Keys are wiped from memory after use. */
#include "client/client_rpc.h"

#include "base/codec.h"
#include "base/vfs.h"
#include "rpc/rpc.h"
#include <stdio.h>
#include <string.h>

enum { TLS_FILE_COUNT = 3, TLS_FILE_BYTES_MAX = 1024 * 1024 };

static int read_pem(const char *path, struct buf *out, char *why, size_t why_size)
{
    int error = vfs_read_all(vfs_system(), path, TLS_FILE_BYTES_MAX, out);
    if (error != 0) {
        (void)snprintf(why, why_size, "cannot read %.150s: %s", path, err_text(error));
        return error == ERR_NOT_FOUND ? ERR_IO : error;
    }
    put_u8(out, 0);
    if (strstr((const char *)out->data, "-----BEGIN ") == NULL) {
        (void)snprintf(why, why_size, "%.150s holds no PEM: a line -----BEGIN ... is wanted", path);
        return ERR_INVALID; /* gRPC would take it, and never connect */
    }
    return 0;
}

int client__rpc_create(const struct client_tls_files *files, struct rpc **out, char *why,
                       size_t why_size)
{
    struct rpc_options options = rpc_options_default();
    const char *paths[TLS_FILE_COUNT] = {files->ca, files->certificate, files->key};
    struct buf pems[TLS_FILE_COUNT] = {{0}, {0}, {0}};
    struct rpc_tls tls;
    uint32_t given = 0;
    int error = 0;
    for (uint32_t i = 0; i < TLS_FILE_COUNT; i++) {
        given += paths[i] != NULL;
    }
    if (given != 0 && given != TLS_FILE_COUNT) {
        (void)snprintf(why, why_size,
                       "TLS needs all three files: CA, certificate and key; %u given", given);
        return ERR_INVALID;
    }
    for (uint32_t i = 0; i < given && error == 0; i++) {
        error = read_pem(paths[i], &pems[i], why, why_size);
    }
    if (error == 0) {
        if (given == TLS_FILE_COUNT) {
            tls = (struct rpc_tls){.ca_pem = (const char *)pems[0].data,
                                   .certificate_pem = (const char *)pems[1].data,
                                   .key_pem = (const char *)pems[2].data};
            options.tls = &tls;
        }
        error = rpc_create(&options, out);
        if (error != 0) {
            (void)snprintf(why, why_size, "cannot start gRPC: %s", err_text(error));
        }
    }
    for (uint32_t i = 0; i < TLS_FILE_COUNT; i++) {
        if (pems[i].data != NULL) {
            explicit_bzero(pems[i].data, pems[i].size);
        }
        buf_deinit(&pems[i]);
    }
    return error;
}

const char *client__plain_text(const char *text)
{
    if (strncmp(text, "failed to connect", strlen("failed to connect")) != 0) {
        return text;
    }
    const char *plain = text;
    for (const char *at = text; (at = strstr(at, ": ")) != NULL; at += 2) {
        plain = at + 2;
    }
    return plain;
}
