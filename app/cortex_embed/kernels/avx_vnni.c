/* AVX2 with the integer dot product (Alder Lake and later without AVX-512). */
#include <immintrin.h>
#define VW 8
#define NR 16
#define GROUP 2
#define NAME ck_avx_vnni
#define dot4(sum, x, w) ((vi)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(x), (__m256i)(w)))
/* In assembly, since clang makes two slower instructions of the intrinsic where it does not tune
 * for one processor (TuningFastDPWSSD in LLVM's X86.td). */
#define dot2(sum, x, y)                                                                  \
    ({                                                                                   \
        vi sum_ = (sum);                                                                 \
        __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum_) : "x"(x), "x"(y)); \
        sum_;                                                                            \
    })
#include "encoder.inc"
