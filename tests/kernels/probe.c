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
    else ATTENTION(q, queries, k, v, count, width, scratch, &to, 0, 0);
}

/* Of a linear layer in floats. */
CK_API int64_t probe_packed(int32_t inputs, int32_t outputs) {
    ck_shape s = {1, inputs, 1, outputs, CK_MEAN, CK_FP32, 0};
    return places_of(&s, UP).end;
}
CK_API int64_t probe_room(int64_t count, int32_t hidden) { return room_of(count, hidden); }

/* `weight` [inputs, outputs], into `packed`, aligned to 64 bytes. */
CK_API void probe_pack(const float *weight, const float *bias, int32_t inputs, int32_t outputs, char *packed) {
    ck_shape s = {1, inputs, 1, outputs, CK_MEAN, CK_FP32, 0};
    ck_linear given = {weight, NULL, bias, 0, 0};
    pack_linear(&given, CK_FP32, places_of(&s, UP), packed, outputs, 0, 1);
}

/* `a` [count, inputs] times it, plus the bias, added to `out` [count, outputs]. */
CK_API void probe_linear(const float *a, int64_t count, int32_t inputs, int32_t outputs, const char *packed,
                         void *room, float *out) {
#ifdef INTEGERS
    (void)a, (void)count, (void)inputs, (void)outputs, (void)packed, (void)room, (void)out;
#else
    ck_shape s = {1, inputs, 1, outputs, CK_MEAN, CK_FP32, 0};
    places p = places_of(&s, UP);
    packed_linear w = {packed, NULL, NULL, (const float *)(packed + p.bias), 0, 0, inputs, outputs};
    target to = {out, 0, 0, NULL, room};
#ifdef AMX
    _tile_loadconfig(&tiles_of_64);
#endif
    linear(CK_FP32, ADDED, a, &w, 0, outputs / NR, 0, count, &to);
#ifdef AMX
    _tile_release();
#endif
#endif
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
