/* A program of somebody else's: it has a symbol that is also one of the library's inside, and no cluster to speak to. */
#include <shardkv.h>
#include <stdio.h>
#include <string.h>

int buf_append(void);
int buf_append(void)
{
    return 42;
}

int main(void)
{
    struct skv_client *client = NULL;
    char why[SKV_ERROR_TEXT_BYTES];
    struct skv_options options = {.controllers = "127.0.0.1:1", .open_timeout_ms = 300};
    int error = skv_open(&options, &client, why, sizeof why);
    printf("shardkv %s: %d %s\n", skv_version(), error, why);
    return error == SKV_UNAVAILABLE && strstr(why, "127.0.0.1:1") != NULL && buf_append() == 42 ? 0 : 1;
}
