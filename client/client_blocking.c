/* The blocking functions: start, and sleep until the callback.
 * Thread: any of the user's; never a thread of the library (it would wait for itself). */
#include "client/client_internal.h"

#include "base/assert.h"
#include <semaphore.h>
#include <stdlib.h>

struct waiter {
    sem_t done;
    struct skv_result *result;
};

static void wake(void *context, const struct skv_result *result)
{
    struct waiter *waiter = context;
    *waiter->result = *result;
    waiter->result->value = NULL;
    if (result->value_size > 0) {
        waiter->result->owner = mem_dup(result->value, result->value_size);
        waiter->result->value = waiter->result->owner;
    }
    (void)sem_post(&waiter->done);
}

static int run(struct skv_client *client, const struct skv_command *command,
               struct skv_result *result)
{
    struct waiter waiter = {.result = result};
    *result = (struct skv_result){0};
    ASSERT(sem_init(&waiter.done, 0, 0) == 0);
    int error = client__start(client, command, true, wake, &waiter);
    if (error == 0) {
        while (sem_wait(&waiter.done) != 0) {
            /* EINTR: a signal of the user's; the command ends by its deadline all the same. */
        }
    } else {
        result->outcome = SKV_NOT_DONE;
        result->code = client__code(error);
    }
    (void)sem_destroy(&waiter.done);
    return result->code;
}

int skv_get(struct skv_client *client, const void *key, size_t key_size, uint32_t timeout_ms,
            struct skv_result *result)
{
    return run(client,
               &(struct skv_command){
                   .op = SKV_GET, .key = key, .key_size = key_size, .timeout_ms = timeout_ms},
               result);
}

int skv_put(struct skv_client *client, const void *key, size_t key_size, const void *value,
            size_t value_size, uint32_t timeout_ms, struct skv_result *result)
{
    return run(client,
               &(struct skv_command){.op = SKV_PUT,
                                     .key = key,
                                     .key_size = key_size,
                                     .value = value,
                                     .value_size = value_size,
                                     .timeout_ms = timeout_ms},
               result);
}

int skv_append(struct skv_client *client, const void *key, size_t key_size, const void *value,
               size_t value_size, uint32_t timeout_ms, struct skv_result *result)
{
    return run(client,
               &(struct skv_command){.op = SKV_APPEND,
                                     .key = key,
                                     .key_size = key_size,
                                     .value = value,
                                     .value_size = value_size,
                                     .timeout_ms = timeout_ms},
               result);
}

int skv_delete(struct skv_client *client, const void *key, size_t key_size, uint32_t timeout_ms,
               struct skv_result *result)
{
    return run(client,
               &(struct skv_command){
                   .op = SKV_DELETE, .key = key, .key_size = key_size, .timeout_ms = timeout_ms},
               result);
}

int skv_cas(struct skv_client *client, const void *key, size_t key_size, uint64_t expected,
            const void *value, size_t value_size, uint32_t timeout_ms, struct skv_result *result)
{
    return run(client,
               &(struct skv_command){.op = SKV_CAS,
                                     .key = key,
                                     .key_size = key_size,
                                     .value = value,
                                     .value_size = value_size,
                                     .expected = expected,
                                     .timeout_ms = timeout_ms},
               result);
}

void skv_result_free(struct skv_result *result)
{
    if (result != NULL) {
        free(result->owner);
        result->owner = NULL;
        result->value = NULL;
        result->value_size = 0;
    }
}
