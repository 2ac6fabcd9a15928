/* What is inside one instruction set's encoder, for Python to call: its attentions, alone, and its
 * approximations. SOURCE is the instruction set's file. */
#include SOURCE

int64_t ck_take(ck_team *team, int64_t phase, int64_t units, int64_t *alone) {
    return (void)team, (void)phase, (void)units, (void)alone, -1;
}
void ck_done(ck_team *team, int64_t phase, int64_t units) { (void)team, (void)phase, (void)units; }
void ck_wait(ck_team *team, int64_t phase) { (void)team, (void)phase; }
int64_t ck_second_level(void) { return 0; }

CK_API int64_t probe_scratch(int64_t queries, int64_t count, int32_t width) {
    int64_t words = attention_scratch(count, width), words16 = attention16_scratch(count, queries, width);
    return words > words16 ? words : words16;
}

/* Queries [queries, width], keys and values [count, width] → out [queries, width]. */
CK_API void probe_attention(int32_t integers, const float *q, int64_t queries, const float *k, const float *v,
                            int64_t count, int32_t width, float *scratch, float *out) {
    mixed_target to = {NULL, out, 0, 0, width};
    if (integers) ATTENTION16(q, queries, k, v, count, width, scratch, &to, 0, 0);
    else attention(q, queries, k, v, count, width, scratch, &to, 0, 0);
}

/* `count` is a multiple of 16. */
CK_API void probe_exponential(const float *x, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += VW) store(out + i, exponential(load(x + i)));
}
CK_API void probe_gelu(const float *x, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += VW) store(out + i, gelu(load(x + i)));
}
CK_API void probe_near_gelu(const float *x, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += VW) store(out + i, near_gelu(load(x + i)));
}
