/* AVX-512 without the integer dot product (Skylake-X): pairs of products in 16 bits, which the
 * weights are kept small enough for (build/quantize.py, `round_weight`). */
#include <immintrin.h>
#define VW 16
#define NR 64
#define BYTE_ROWS 6
#define GROUP 2
#define NAME ck_avx512
#define dot4(sum, x, w)                                                                  \
    ((vi)_mm512_add_epi32((__m512i)(sum),                                                \
                          _mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)(x), (__m512i)(w)), \
                                            _mm512_set1_epi16(1))))
#define dot2(sum, x, y) \
    ((vi)_mm512_add_epi32((__m512i)(sum), _mm512_madd_epi16((__m512i)(x), (__m512i)(y))))
#define ATTENTION ck_attention_avx512
#include "encoder.inc"
