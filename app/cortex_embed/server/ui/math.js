// The arithmetic of the page: cosines, and the two directions in which texts differ most.

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

export const cosine = (a, b) => dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) || 1);

/** Every cosine: n x n. */
export const cosines = (vectors) => vectors.map((a) => vectors.map((b) => cosine(a, b)));

/**
 * Principal component analysis to two dimensions: {points: [[x, y]], kept}, where `kept` is the
 * share of the variance on those two axes. By power iteration on the Gram matrix of the centred
 * vectors, n x n: there are fewer texts than dimensions. Deterministic.
 */
export function pca(vectors) {
  const n = vectors.length;
  const mean = vectors[0].map((_, k) => vectors.reduce((sum, v) => sum + v[k], 0) / n);
  const centred = vectors.map((v) => v.map((x, k) => x - mean[k]));
  const gram = centred.map((a) => centred.map((b) => dot(a, b)));
  const total = gram.reduce((sum, row, i) => sum + row[i], 0);
  const axes = [];
  for (let axis = 0; axis < 2; axis++) {
    let u = Array.from({ length: n }, (_, i) => Math.sin(1 + i * (axis + 1)));
    let value = 0;
    for (let round = 0; round < 2000; round++) {
      const next = gram.map((row) => dot(row, u));
      for (const known of axes) {
        const share = dot(next, known.u);
        for (let i = 0; i < n; i++) next[i] -= share * known.u[i];
      }
      const length = Math.sqrt(dot(next, next));
      if (length <= 1e-12 * (total || 1)) {
        value = 0;
        break;
      }
      const before = u;
      u = next.map((x) => x / length);
      value = length;
      if (Math.abs(1 - dot(u, before)) < 1e-14) break;
    }
    const largest = u.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    axes.push({ u: largest < 0 ? u.map((x) => -x) : u, value });
  }
  const points = vectors.map((_, i) => axes.map(({ u, value }) => Math.sqrt(value) * u[i]));
  return { points, kept: total > 0 ? (axes[0].value + axes[1].value) / total : 1 };
}
