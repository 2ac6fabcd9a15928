/* AVX-512 with the integer dot product (Ice Lake, Zen 4 and later). */
#include <immintrin.h>
#define VW 16
#define NR 64
#define BYTE_ROWS 6
#define GROUP 2
#define INTEGERS 1
#define NAME ck_avx512_vnni
#define dot4(sum, x, w) ((vi)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w)))
#define dot2(sum, x, y) ((vi)_mm512_dpwssd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(y)))
#define ATTENTION16 ck_attention16_avx512_vnni
#include "encoder.inc"
