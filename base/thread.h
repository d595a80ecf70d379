/* Starting a thread. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include "base/error.h"
#include <pthread.h>

/* The thread takes no signals: those are for whoever waits for them in the program's main part.
 * `name`: what tools show, at most 15 characters. ERR_BUSY: the system has no room for another. */
int thread_start(pthread_t *thread, const char *name, void *(*run)(void *context),
                 void *context) MUST_USE;

#endif
