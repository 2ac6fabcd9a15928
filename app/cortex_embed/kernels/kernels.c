/* The library's functions: which instruction set runs, and how the threads of one run meet. */
#if defined(__linux__)
#define _DEFAULT_SOURCE /* syscall */
#endif
#include "kernels.h"
#include "shared.h"

#if defined(_WIN32)
__declspec(dllimport) int __stdcall SwitchToThread(void);
static void let_others_run(void) { SwitchToThread(); }
#else
#include <sched.h>
static void let_others_run(void) { sched_yield(); }
#endif

#if defined(__x86_64__)
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include <cpuid.h>
#include <immintrin.h>

static void rest(void) { _mm_pause(); }

/* XCR0: which registers the system saves. (Intel SDM volume 1, 13.3; bits 1-2 YMM, 5-7 ZMM) */
static uint32_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Linux gives a process the tiles' registers only when it asks (Documentation/arch/x86/xstate.rst),
 * for all its threads; other systems are not asked here. */
static int may_use_tiles(void) {
#if defined(__linux__)
    enum { REQ_XCOMP_PERM = 0x1023, TILEDATA = 18 };
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, TILEDATA) == 0;
#else
    return 0;
#endif
}

uint32_t ck_supported(void) {
    uint32_t a, b, c, d, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const uint32_t osxsave = 1u << 27, avx = 1u << 28, fma = 1u << 12;
    if ((c & (osxsave | avx | fma)) != (osxsave | avx | fma)) return 0;
    uint32_t saved = saved_registers();
    if ((saved & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    /* EBX: AVX2 5, AVX512F 16, DQ 17, BW 30, VL 31; ECX: AVX512_VNNI 11 (SDM volume 2, CPUID) */
    const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    if (!(b & 1u << 5)) return 0;
    found = 1u << CK_AVX2;
    if ((b & avx512) == avx512 && (saved & 0xe6) == 0xe6) {
        found |= 1u << CK_AVX512;
        if (c & 1u << 11) {
            found |= 1u << CK_AVX512_VNNI;
            /* EDX: AMX-BF16 22, AMX-TILE 24, AMX-INT8 25; XCR0: TILECFG 17, TILEDATA 18 */
            const uint32_t amx = 1u << 22 | 1u << 24 | 1u << 25, tiles = 1u << 17 | 1u << 18;
            if ((d & amx) == amx && (saved & tiles) == tiles && may_use_tiles()) found |= 1u << CK_AMX;
        }
    }
    /* Subleaf 1, EAX bit 4: AVX-VNNI. */
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 4) found |= 1u << CK_AVX_VNNI;
    return found;
}

/* CPUID 0x80000006, ECX 16-31: KiB (AMD APM volume 3, E.4.5; Intel SDM volume 2). The first answer
 * stays: cores may differ, and a run must find the workspace that it was promised. */
int64_t ck_second_level(void) {
    static int64_t known = -1;
    int64_t bytes = __atomic_load_n(&known, __ATOMIC_ACQUIRE);
    if (bytes >= 0) return bytes;
    uint32_t a, b, c, d;
    int64_t found = __get_cpuid(0x80000006, &a, &b, &c, &d) ? (int64_t)(c >> 16) << 10 : 0;
    int is_first = __atomic_compare_exchange_n(&known, &bytes, found, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return is_first ? found : bytes;
}

static const ck_kernels *const table[CK_ISAS] = {&ck_avx2, &ck_avx_vnni, &ck_avx512, &ck_avx512_vnni,
                                               &ck_amx, NULL};

#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#endif

static void rest(void) { __asm__ volatile("yield"); }

uint32_t ck_supported(void) {
#if defined(__linux__)
    /* HWCAP_ASIMDDP (Linux, arch/arm64/include/uapi/asm/hwcap.h) */
    return getauxval(AT_HWCAP) & 1u << 20 ? 1u << CK_NEON_DOT : 0;
#else
    return 1u << CK_NEON_DOT; /* every Mac with an ARM processor has it */
#endif
}

int64_t ck_second_level(void) { return 0; }

static const ck_kernels *const table[CK_ISAS] = {NULL, NULL, NULL, NULL, NULL, &ck_neon_dot};
#endif

int32_t ck_abi(void) { return CK_ABI; }

static int is_supported(const ck_shape *s, int32_t isa) {
    if (isa < 0 || isa >= CK_ISAS || !table[isa] || !(ck_supported() >> isa & 1)) return 0;
    if (s->layers < 1 || s->heads < 1 || s->hidden < 64 || s->hidden % 64 || s->hidden % s->heads) return 0;
    if (s->intermediate < 64 || s->intermediate % 64) return 0;
    int32_t width = s->hidden / s->heads;
    return width == 32 || width == 64;
}

/* Dot products multiply integers (INTEGERS): floats are those of the set without them, and are not in the
 * library twice. */
static const ck_kernels *kernels_of(const ck_shape *shape, int32_t isa) {
    if (shape->precision != CK_FP32) return table[isa];
    if (isa == CK_AVX_VNNI) return table[CK_AVX2];
    return table[isa == CK_AVX512_VNNI ? CK_AVX512 : isa];
}

int64_t ck_packed_bytes(const ck_shape *shape, int32_t isa) {
    return is_supported(shape, isa) ? kernels_of(shape, isa)->packed_bytes(shape) : 0;
}

void ck_pack(const ck_model *model, void *packed) { kernels_of(&model->shape, model->isa)->pack(model, packed); }

int64_t ck_workspace_bytes(const ck_model *model, int64_t tokens, int64_t texts, int64_t longest,
                           int32_t ranks) {
    return kernels_of(&model->shape, model->isa)->workspace_bytes(&model->shape, tokens, texts, longest, ranks);
}

void ck_run(const ck_model *model, const int64_t *ids, const int64_t *offsets, int64_t texts, float *out,
            void *workspace, ck_team *team, int32_t rank) {
    kernels_of(&model->shape, model->isa)->run(model, ids, offsets, texts, out, workspace, team, rank);
}

/* `team->next` holds the phase above UNIT_BITS, and the next unit below. */
#define UNIT_BITS 40

static int64_t phase_of(const ck_team *team) {
    return __atomic_load_n(&team->next, __ATOMIC_ACQUIRE) >> UNIT_BITS;
}

int64_t ck_take(ck_team *team, int64_t phase, int64_t units, int64_t *alone) {
    if (!team) return *alone < units ? (*alone)++ : -1;
    int64_t next = __atomic_load_n(&team->next, __ATOMIC_ACQUIRE);
    for (;;) {
        int64_t unit = next & (((int64_t)1 << UNIT_BITS) - 1);
        if (next >> UNIT_BITS != phase || unit >= units) return -1;
        if (__atomic_compare_exchange_n(&team->next, &next, next + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return unit;
    }
}

void ck_done(ck_team *team, int64_t phase, int64_t units) {
    if (!team || __atomic_add_fetch(&team->done, 1, __ATOMIC_ACQ_REL) < units) return;
    __atomic_store_n(&team->done, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&team->next, (phase + 1) << UNIT_BITS, __ATOMIC_RELEASE);
}

void ck_wait(ck_team *team, int64_t phase) {
    for (int spins = 0; team && phase_of(team) == phase; spins++) {
        if (spins < 2000) rest();
        else let_others_run();
    }
}
