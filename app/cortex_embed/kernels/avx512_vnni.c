/* AVX-512 with the integer dot product (Ice Lake, Zen 4 and later). */
#include <immintrin.h>
#define VW 16
#define NR 64
#define GROUP 2
#define NAME ck_avx512_vnni
#define dot4(sum, x, w) ((vi)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w)))
#include "encoder.inc"
