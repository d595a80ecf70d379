/* Waiting until all shards are settled. */
#ifndef CLIENT_CTL_SETTLE_H
#define CLIENT_CTL_SETTLE_H

#include "client/ctl/ctl.h"

#define SETTLE_TIMEOUT_NS (600 * NS_PER_S)
#define SETTLE_TIMEOUT_FLAG(value)                                                                 \
    {                                                                                              \
        "wait-timeout", FLAG_DURATION, (value), NS_PER_S, 24 * 3600 * NS_PER_S, false, NULL,       \
            "TIME", "How long to wait for shards."                                                 \
    }

/* CTL_DONE; CTL_NOT_SETTLED at the deadline; what went wrong otherwise: said already. `reached`:
 * the controllers have answered before, so that their silence is waited out, too. Shows progress on
 * standard error. */
int settle_wait(struct ctl *ctl, uint64_t timeout_ns, bool reached);

#endif
