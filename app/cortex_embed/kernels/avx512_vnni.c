/* AVX-512 with the integer dot product (Ice Lake, Zen 4 and later). */
#include <immintrin.h>
#define VW 16
#define NR 64
#define GROUP 2
#define NAME ck_avx512_vnni
#define dot4(sum, x, w) ((vi)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w)))
/* In assembly, since clang makes two slower instructions of the intrinsic where it does not tune
 * for one processor (TuningFastDPWSSD in LLVM's X86.td). */
#define dot2(sum, x, y)                                                                  \
    ({                                                                                   \
        vi sum_ = (sum);                                                                 \
        __asm__("vpdpwssd %2, %1, %0" : "+v"(sum_) : "v"(x), "v"(y)); \
        sum_;                                                                            \
    })
#include "encoder.inc"
