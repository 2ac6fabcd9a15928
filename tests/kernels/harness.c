/* Synthetic encoders through the kernels, in one instruction set; what came out, as bits.
 *
 *     harness ISA end|start
 *
 * It exists so that processors that Python's tests cannot run on (under qemu or wine) can be
 * compared with this one: the same output everywhere means the same vectors. It prints nothing
 * that depends on the processor. Beside that it holds, for every shape:
 *
 * - nothing outside a buffer is touched: each ends at a page that must not be read (`end`), or
 *   begins behind one (`start`), the workspace being exactly as large as the kernels asked for;
 * - nothing is read that was not written: a workspace full of NaN gives what one of zeros gives;
 * - a text alone gives what it gives in a batch, and threads give what one thread gives, whether
 *   they share its rows or, of a short one, its columns.
 *
 * Compile it with -ffp-contract=off, or its own data differ from one processor to the next. Exit
 * status: 0, 1 for what does not hold, 2 for wrong arguments, 3 for no such instruction set here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kernels.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#endif

enum { HIDDEN = 128, WIDE = 192, VOCABULARY = 50, POSITIONS = 130, MOST_LAYERS = 3, MOST_RANKS = 3 };
enum { PAGE = 1 << 16 }; /* of every system: 4, 16 or 64 KiB */

/* --- buffers between forbidden pages ----------------------------------------------------- */

static int at_end;
static struct { char *base; size_t size; } taken[256];
static int takes;

static void *guarded(int64_t bytes) {
    size_t inside = ((size_t)bytes + PAGE - 1) / PAGE * PAGE, whole = inside + 2 * PAGE;
#if defined(_WIN32)
    DWORD before;
    char *base = VirtualAlloc(NULL, whole, MEM_RESERVE | MEM_COMMIT, PAGE_NOACCESS);
    int wrong = !base || !VirtualProtect(base + PAGE, inside, PAGE_READWRITE, &before);
#else
    char *base = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int wrong = base == MAP_FAILED || mprotect(base + PAGE, inside, PROT_READ | PROT_WRITE);
#endif
    if (wrong || takes == sizeof taken / sizeof *taken) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    taken[takes].base = base;
    taken[takes++].size = whole;
    return at_end ? base + PAGE + inside - bytes : base + PAGE;
}

static void give_back(int until) {
    while (takes > until) {
        takes--;
#if defined(_WIN32)
        VirtualFree(taken[takes].base, 0, MEM_RELEASE);
#else
        munmap(taken[takes].base, taken[takes].size);
#endif
    }
}

/* --- an encoder of chance ---------------------------------------------------------------- */

static uint32_t seed;

/* -0.5 to 0.5, exactly. */
static float chance(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8 & 0xffff) / 65536.0f - 0.5f;
}

static float *floats(int64_t count, float spread, float middle) {
    float *made = guarded(count * 4);
    for (int64_t i = 0; i < count; i++) made[i] = chance() * spread + middle;
    return made;
}

/* [in, out], of which two neighbours along `in` stay within what AVX2 can add: see `_bounds` in
 * build/quantize.py. */
static int8_t *codes(int64_t in, int64_t out) {
    int8_t *made = guarded(in * out);
    for (int64_t i = 0; i < in * out; i++) {
        int value = (int)(chance() * 254.9f), beside = i / out % 2 ? made[i - out] : 0;
        if (value + beside > 128) value = 128 - beside;
        if (value + beside < -128) value = -128 - beside;
        made[i] = (int8_t)value;
    }
    return made;
}

static ck_norm norm(int smoothed) {
    ck_norm made = {floats(HIDDEN, 0.2f, 1), floats(HIDDEN, 0.2f, 0),
                    smoothed ? floats(HIDDEN, 0.2f, 1) : NULL};
    return made;
}

static ck_linear linear(int quantized, int part, float gain) {
    int64_t in = part == 5 ? WIDE : HIDDEN, out = part == 4 ? WIDE : HIDDEN;
    ck_linear made = {NULL, NULL, NULL, 0, 0};
    if (part > 1) gain = 1;
    if (quantized) {
        made.weight = codes(in, out);
        made.scale = floats(out, 0.0005f * gain, 0.002f * gain);
        made.step = part == 5 ? 0 : 0.03f;
        made.zero = part == 5 ? 32 : 128;
    } else {
        made.weight = floats(in * out, 0.3f * gain, 0);
    }
    made.bias = floats(out, 0.2f * gain, 0);
    return made;
}

/* `gain` is of queries and keys: 0 makes all keys alike, much makes one of them outweigh all. */
static ck_model encoder(const ck_shape *shape, int isa, float gain) {
    ck_layer *layers = guarded((int64_t)sizeof(ck_layer) * shape->layers);
    const int q = shape->precision == CK_INT8;
    ck_model made = {0};
    for (int layer = 0; layer < shape->layers; layer++) {
        for (int part = 0; part < 6; part++) layers[layer].linears[part] = linear(q, part, gain);
        layers[layer].attention_norm = norm(q);
        layers[layer].output_norm = norm(q && layer + 1 < shape->layers);
    }
    made.shape = *shape;
    made.isa = isa;
    made.words = q ? (void *)codes(VOCABULARY, HIDDEN) : (void *)floats(VOCABULARY * HIDDEN, 1, 0);
    made.word_scale = q ? floats(VOCABULARY, 0.001f, 0.01f) : NULL;
    made.positions = floats(POSITIONS * HIDDEN, 0.3f, 0);
    made.embedding_norm = norm(q);
    made.layers = layers;
    return made;
}

/* --- running it -------------------------------------------------------------------------- */

typedef struct {
    const ck_model *model;
    const int64_t *ids, *offsets;
    int64_t texts;
    float *out;
    void *workspace;
    ck_team *team;
    int32_t rank;
} call;

static void make(const call *c) {
    ck_run(c->model, c->ids, c->offsets, c->texts, c->out, c->workspace, c->team, c->rank);
}

#if defined(_WIN32)
typedef HANDLE thread;
static DWORD WINAPI entry(void *c) { return make(c), 0; }
static thread begin(call *c) { return CreateThread(NULL, 0, entry, c, 0, NULL); }
static void end(thread t) { WaitForSingleObject(t, INFINITE), CloseHandle(t); }
#else
typedef pthread_t thread;
static void *entry(void *c) { return make(c), NULL; }
static thread begin(call *c) {
    thread made;
    if (pthread_create(&made, NULL, entry, c)) exit(1);
    return made;
}
static void end(thread t) { pthread_join(t, NULL); }
#endif

/* `texts` of the ids between their offsets, by `ranks` threads (0: without a team), in buffers of
 * their own whose bytes are all `filled` before. */
static float *run(const ck_model *model, const int64_t *ids, const int64_t *offsets, int64_t texts,
                  int32_t ranks, int filled) {
    const int64_t tokens = offsets[texts] - offsets[0];
    int64_t longest = 0;
    int64_t *own = guarded((texts + 1) * 8), *mine = guarded(tokens * 8);
    for (int64_t i = 0; i < texts; i++)
        if (offsets[i + 1] - offsets[i] > longest) longest = offsets[i + 1] - offsets[i];
    for (int64_t i = 0; i <= texts; i++) own[i] = offsets[i] - offsets[0];
    memcpy(mine, ids + offsets[0], (size_t)tokens * 8);
    int64_t bytes = ck_workspace_bytes(model, tokens, texts, longest, ranks ? ranks : 1);
    float *out = guarded(texts * HIDDEN * 4);
    void *workspace = guarded(bytes);
    memset(workspace, filled, (size_t)bytes);
    memset(out, filled, (size_t)texts * HIDDEN * 4);
    ck_team team = {ranks, 0, 0, 0};
    call calls[MOST_RANKS];
    thread threads[MOST_RANKS];
    for (int32_t rank = 0; rank < (ranks ? ranks : 1); rank++) {
        call c = {model, mine, own, texts, out, workspace, ranks ? &team : NULL, rank};
        calls[rank] = c;
    }
    for (int32_t rank = 1; rank < ranks; rank++) threads[rank] = begin(&calls[rank]);
    make(&calls[0]);
    for (int32_t rank = 1; rank < ranks; rank++) end(threads[rank]);
    return out;
}

static void hold(int same, const char *what) {
    if (same) return;
    printf("NOT THE SAME: %s\n", what);
    exit(1);
}

/* FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/) over the bits of all vectors, and some of
 * these, with which a difference can be judged. */
static void print(const char *name, const float *out, int64_t texts) {
    uint64_t hash = 14695981039346656037u;
    uint32_t bits;
    for (int64_t i = 0; i < texts * HIDDEN; i++) {
        memcpy(&bits, out + i, 4);
        for (int byte = 0; byte < 4; byte++) hash = (hash ^ (bits >> 8 * byte & 255)) * 1099511628211u;
    }
    printf("%s: %016" PRIx64, name, hash);
    for (int64_t text = 0; text < texts && text < 4; text++) {
        memcpy(&bits, out + text * HIDDEN + 17, 4);
        printf(" %08" PRIx32, bits);
    }
    printf("\n");
    fflush(stdout);
}

static void try(const ck_shape *shape, int isa, float gain, const int64_t *lengths, int64_t texts) {
    static const char *const names[] = {"fp32", "int8", "int16"};
    char name[100];
    seed = 7;
    ck_model model = encoder(shape, isa, gain);
    int64_t packed = ck_packed_bytes(shape, isa);
    if (!packed) {
        fprintf(stderr, "this processor does not run instruction set %d\n", isa);
        exit(3);
    }
    void *place = guarded(packed);
    ck_pack(&model, place);
    model.packed = place;
    int64_t *offsets = guarded((texts + 1) * 8);
    offsets[0] = 0;
    for (int64_t i = 0; i < texts; i++) offsets[i + 1] = offsets[i] + lengths[i];
    int64_t *ids = guarded(offsets[texts] * 8);
    for (int64_t i = 0; i < offsets[texts]; i++) ids[i] = i % 3 ? i * 37 % VOCABULARY : i % 2 ? 0 : VOCABULARY - 1;
    float *out = run(&model, ids, offsets, texts, 0, 0xff);
    size_t bytes = (size_t)texts * HIDDEN * 4;
    int32_t ranks = texts < 40 ? 1 + shape->layers % MOST_RANKS : 0;
    if (ranks) hold(!memcmp(out, run(&model, ids, offsets, texts, ranks, 0), bytes), "threads");
    for (int64_t i = 0; i < texts; i += texts > 40 ? 43 : 1) {
        const int before = takes;
        hold(!memcmp(out + i * HIDDEN, run(&model, ids, offsets + i, 1, 0, 0xff), HIDDEN * 4), "alone");
        if (ranks)
            hold(!memcmp(out + i * HIDDEN, run(&model, ids, offsets + i, 1, ranks, 0xff), HIDDEN * 4),
                 "alone, by threads");
        if (ranks && i + 1 < texts && lengths[i] + lengths[i + 1] < 30)
            hold(!memcmp(out + i * HIDDEN, run(&model, ids, offsets + i, 2, ranks, 0), 2 * HIDDEN * 4),
                 "two, by threads");
        give_back(before);
    }
    snprintf(name, sizeof name, "%s %s, heads of %d, layers %d, gain %d, texts %d",
             names[shape->precision], shape->pooling == CK_CLS ? "cls" : "mean",
             HIDDEN / shape->heads, shape->layers, (int)gain, (int)texts);
    print(name, out, texts);
    give_back(0);
}

int main(int count, char **words) {
    static const int64_t uneven[] = {1, 130, 2, 15, 16, 17, 33, 49};
    static const float gains[] = {1, 60, 0};
    int64_t every[POSITIONS];
    if (count != 3 || (strcmp(words[2], "end") && strcmp(words[2], "start"))) {
        fprintf(stderr, "usage: harness ISA end|start\n");
        return 2;
    }
    int isa = atoi(words[1]);
    at_end = !strcmp(words[2], "end");
    if (ck_abi() != CK_ABI) return 1;
    for (int i = 0; i < POSITIONS; i++) every[i] = i + 1;
    for (int kind = 0; kind < 12; kind++) {
        ck_shape shape = {1 + kind % 3, HIDDEN, kind & 1 ? 4 : 2, WIDE, kind >> 1 & 1, kind >> 2, 1e-12f};
        for (int gain = 0; gain < 3; gain++)
            try(&shape, isa, gains[gain], uneven, sizeof uneven / sizeof *uneven);
    }
    for (int precision = 0; precision < 3; precision++) {
        ck_shape shape = {1, HIDDEN, 4, WIDE, CK_MEAN, precision, 1e-12f};
        try(&shape, isa, 1, every, POSITIONS);
    }
    return 0;
}
