/* What the files of this library share; none of it is visible outside. */
#ifndef CORTEX_EMBED_SHARED_H
#define CORTEX_EMBED_SHARED_H

#include "kernels.h"

/* The encoder in one instruction set (encoder.inc). */
typedef struct {
    int64_t (*packed_bytes)(const ck_shape *);
    void (*pack)(const ck_model *, void *);
    int64_t (*workspace_bytes)(const ck_shape *, int64_t, int64_t, int64_t, int32_t);
    void (*run)(const ck_model *, const int64_t *, const int64_t *, int64_t, float *, void *, ck_team *,
                int32_t);
} ck_kernels;

extern const ck_kernels ck_avx2, ck_avx_vnni, ck_avx512, ck_avx512_vnni, ck_amx, ck_neon_dot;

/* `bytes` rounded up to a cache line. */
static inline int64_t ck_round(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/* Bytes of the second-level cache of one core; 0 where that is not known. */
int64_t ck_second_level(void);

/* The next unit of `phase` that nobody has taken, of `units`; -1 where there is none, or the phase
 * is over. Without a team, `alone` counts, from 0. */
int64_t ck_take(ck_team *team, int64_t phase, int64_t units, int64_t *alone);
/* A unit that was taken is done; the last one opens the next phase. */
void ck_done(ck_team *team, int64_t phase, int64_t units);
/* Wait until `phase` is over. */
void ck_wait(ck_team *team, int64_t phase);

#endif
