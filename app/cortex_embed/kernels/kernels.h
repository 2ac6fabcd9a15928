/* The interface between Python (`cortex_embed.kernels`) and the compiled kernels.
 *
 * Plain C, no allocation, no I/O, no state: every buffer is the caller's, so that any number of
 * threads may run at once, and what a run takes is known before it starts. Nothing here may
 * reduce over a batch: a row's values depend on its own text alone, to the last bit.
 */
#ifndef CORTEX_EMBED_KERNELS_H
#define CORTEX_EMBED_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define CK_API __declspec(dllexport)
#else
#define CK_API __attribute__((visibility("default")))
#endif

/* Raised whenever a struct, a tensor's place or a function below changes. */
#define CK_ABI 8

/* Instruction sets, from the least to the most; the number is the bit in `ck_supported`. */
enum ck_isa { CK_AVX2 = 0, CK_AVX_VNNI = 1, CK_AVX512 = 2, CK_AVX512_VNNI = 3, CK_AMX = 4, CK_NEON_DOT = 5, CK_ISAS = 6 };

/* Where a run's time goes, for `ck_model.ticks`. UP has the GELU in it. */
enum ck_phase { CK_EMBED, CK_QKV, CK_ATTENTION, CK_OUTPUT, CK_NORM, CK_UP, CK_QUANTIZE, CK_DOWN, CK_POOL, CK_PHASES };

enum ck_pooling { CK_MEAN = 0, CK_CLS = 1 };

/* What the linear layers multiply. CK_INT16 is made of a float32 model's weights by `ck_pack`. */
enum ck_precision { CK_FP32 = 0, CK_INT8 = 1, CK_INT16 = 2 };

/* What `ck_model.shape` says of an encoder. `hidden` and `intermediate` are multiples of 64,
 * `hidden / heads` is 32 or 64. */
typedef struct {
    int32_t layers, hidden, heads, intermediate, pooling, precision;
    float epsilon;
} ck_shape;

/* One linear layer as the graph stores it: [in, out] row-major. In int8, `scale` is float32
 * [out], `step` the input's constant scale (0: each row by its own peak), `zero` its zero
 * point; in float32 and int16 they are NULL, 0 and 0. */
typedef struct {
    const void *weight;
    const float *scale, *bias;
    float step;
    int32_t zero;
} ck_linear;

/* float32 [hidden] each; `smoothing` may be NULL: what is added back is then what is read. */
typedef struct {
    const float *gamma, *beta, *smoothing;
} ck_norm;

/* In the order of running: query, key, value, output, up, down. */
typedef struct {
    ck_linear linears[6];
    ck_norm attention_norm, output_norm;
} ck_layer;

typedef struct {
    ck_shape shape;
    int32_t isa;
    const void *words;       /* int8 [vocabulary, hidden] in int8, else float32 */
    const float *word_scale; /* float32 [vocabulary] in int8, else NULL */
    const float *positions;  /* float32 [positions, hidden] */
    ck_norm embedding_norm;
    const ck_layer *layers;
    const void *packed; /* what ck_pack wrote */
    uint64_t *ticks;    /* [CK_PHASES], added to by every run on x86; NULL: nothing is measured */
} ck_model;

/* One run split over several threads: `ranks` is how many there are at most, the rest is zero
 * before the run. Each takes work as it comes, so none waits for one that is not running. */
typedef struct {
    int64_t ranks, done, next, returned;
} ck_team;

CK_API int32_t ck_abi(void);
/* Bits of the instruction sets that this library has and this processor and system run. On Linux it
 * asks, for the whole process, for the registers that AMX has: without them AMX is not among the bits. */
CK_API uint32_t ck_supported(void);
/* Bytes of the packed weights, a multiple of 64; 0 for a shape or an isa that is not supported. */
CK_API int64_t ck_packed_bytes(const ck_shape *shape, int32_t isa);
/* Rearrange the weights of `model` into `packed`, aligned to 64 bytes. */
CK_API void ck_pack(const ck_model *model, void *packed);
/* Bytes that a run of so many tokens in so many texts, the longest of `longest`, needs. */
CK_API int64_t ck_workspace_bytes(const ck_model *model, int64_t tokens, int64_t texts,
                                  int64_t longest, int32_t ranks);
/* Token ids of all texts one after the other, text i at offsets[i] .. offsets[i + 1]; every
 * text has at least one, every id is in the vocabulary, every length within the positions.
 * `out` is float32 [texts, hidden], pooled and not normalized. `team` is NULL for one thread;
 * otherwise its threads call this with the same arguments but `rank` (0 .. ranks - 1), in any
 * order. When one of them returns, the run is done; who comes later reads `offsets` and `team`,
 * finds nothing to do, and touches nothing else. */
CK_API void ck_run(const ck_model *model, const int64_t *ids, const int64_t *offsets,
                   int64_t texts, float *out, void *workspace, ck_team *team, int32_t rank);

/* Not on Windows: runs that threads take by themselves, whoever holds the caller's locks meanwhile. */
typedef struct ck_work {
    const ck_model *model;
    const int64_t *ids, *offsets; /* and the rest: as ck_run has them */
    int64_t texts;
    float *out;
    void *workspace;
    int64_t goes_on; /* whether the thread that ran it takes what is offered */
    ck_team *team;   /* NULL: one thread has all of it */
    int64_t rank;
    int64_t nanoseconds; /* that it took; 0 until it is done, and `out` is complete */
    struct ck_work *after;
} ck_work;

typedef struct ck_queue ck_queue;

/* After each run a byte is written to the file descriptor `told`: of a team's, by who returns first,
 * while the others still read `offsets` and `team`. `threads` is how many will serve it at the most.
 * NULL where there is no memory. */
CK_API ck_queue *ck_queue_new(int32_t told, int32_t threads);
/* Once no thread serves it. */
CK_API void ck_queue_free(ck_queue *queue);
/* Run what is submitted, in order, until the queue is closed and empty. */
CK_API void ck_serve(ck_queue *queue);
CK_API void ck_close(ck_queue *queue);
/* Have the next free threads run `work` and what comes `after` it, each staying where it is until it
 * is done. */
CK_API void ck_submit(ck_queue *queue, ck_work *work);
/* Have `work` lie ready for a thread that has just run another; NULL takes back what lies there.
 * What lay there comes back; NULL if a thread has it. */
CK_API ck_work *ck_offer(ck_queue *queue, ck_work *work);
/* Whether something lies ready; and `nanoseconds`, as it has to be read while a thread may write it. */
CK_API int32_t ck_has_offer(ck_queue *queue);
CK_API int64_t ck_nanoseconds(const ck_work *work);

#endif
