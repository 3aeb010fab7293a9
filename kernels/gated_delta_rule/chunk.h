// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the forward and the backward pass over one chunk share: dimensions, gates, decays, and the activations with
// SiLU and normalisation. Letters as in NOTES.md.

#include "kernels/gated_delta_rule/chunk_kernels.h"
#include "kernels/isa/elementary.h"
#include "kernels/isa/product.h"
#include "kernels/isa/row_of.h"

namespace amalgam::kernels::AMALGAM_ISA {

inline constexpr float normalize_epsilon = 1e-6F;

/// Dimensions known to the compiler, for the common heads.
template <int key, int value>
struct FixedDims {
    static constexpr int key_dim = key;
    static constexpr int value_dim = value;
    static constexpr int key_padded = padded(key);
    static constexpr int value_padded = padded(value);
};

struct AnyDims {
    int key_dim;
    int value_dim;
    int key_padded;
    int value_padded;
};

/// Calls visit with the dimensions of `shape`, as compile-time values where a specialisation exists.
template <class Visit>
inline void with_dims(const GatedDeltaRuleShape& shape, Visit visit) {
    if (shape.key_dim == 64 && shape.value_dim == 64) {
        visit(FixedDims<64, 64>{});
    } else if (shape.key_dim == 128 && shape.value_dim == 128) {
        visit(FixedDims<128, 128>{});
    } else if (shape.key_dim == 32 && shape.value_dim == 32) {
        visit(FixedDims<32, 32>{});
    } else {
        visit(AnyDims{static_cast<int>(shape.key_dim), static_cast<int>(shape.value_dim), padded(shape.key_dim),
                      padded(shape.value_dim)});
    }
}

/// Hands out consecutive 64-byte aligned pieces of a scratch block; with a null base it only measures.
class Scratch {
  public:
    explicit Scratch(std::byte* base) : base_(base) {}
    float* floats(int64_t n) { return reinterpret_cast<float*>(take(n * 4)); }
    Unit* units(int64_t n) { return reinterpret_cast<Unit*>(take(n * 4)); }
    size_t used() const { return used_; }

  private:
    std::byte* take(int64_t bytes) {
        std::byte* piece = base_ + used_;
        used_ += static_cast<size_t>((bytes + 63) / 64 * 64);
        return piece;
    }
    std::byte* base_;
    size_t used_ = 0;
};

/// Denormal numbers count as zero while this lives: decays reach them, and processors are slow in them.
class FlushDenormals {
  public:
    FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040U); }
    ~FlushDenormals() { _mm_setcsr(saved_); }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

  private:
    unsigned saved_;
};

inline float to_float(float x) {
    return x;
}
inline float to_float(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline void from_float(float x, float* out) {
    *out = x;
}
inline void from_float(float x, uint16_t* out) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = x == x ? bits + 0x7FFFU + ((bits >> 16) & 1U) : (bits | 0x400000U);
    *out = static_cast<uint16_t>(rounded >> 16);
}

/// Per-token scalars of the first `rows` tokens of a chunk, a multiple of 16. Tokens beyond the sequence's end have
/// beta = 0 and g = 0: they change nothing.
struct Gates {
    alignas(64) float beta[chunk_tokens];
    alignas(64) float g[chunk_tokens];           ///< log decay
    alignas(64) float slope[chunk_tokens];       ///< dg / da
    alignas(64) float high[chunk_tokens];        ///< G, the running sum of g, in two parts:
    alignas(64) float low[chunk_tokens];         ///< differences of large sums stay exact to fp32
    alignas(64) float from_start[chunk_tokens];  ///< e^G
    alignas(64) float to_end[chunk_tokens];      ///< e^(G_last - G)
    float total;                                 ///< e^G_last
};

template <class Element>
inline void load_gates(const GatedDeltaRuleInputs& inputs, int64_t head, int64_t token, int n, int rows, Gates& gates) {
    alignas(64) float a[chunk_tokens] = {};
    alignas(64) float b[chunk_tokens] = {};
    for (int i = 0; i < n; ++i) {
        a[i] = to_float(row_of<Element>(inputs.a, token + i)[head]) + inputs.dt_bias[head];
        b[i] = to_float(row_of<Element>(inputs.b, token + i)[head]);
    }
    alignas(64) float A[lanes];
    store(A, exponential(broadcast(inputs.A_log[head])));
    const Vector minus_A = broadcast(-A[0]);
    for (int i = 0; i < rows; i += lanes) {
        const Vector y = load(a + i);
        store(gates.beta + i, keep_first(sigmoid(load(b + i)), n - i));
        store(gates.g + i, keep_first(mul(minus_A, softplus(y)), n - i));
        store(gates.slope + i, keep_first(mul(minus_A, sigmoid(y)), n - i));
    }
    double G = 0;
    for (int i = 0; i < rows; ++i) {
        G += gates.g[i];
        gates.high[i] = static_cast<float>(G);
        gates.low[i] = static_cast<float>(G - gates.high[i]);
    }
    const Vector last_high = broadcast(gates.high[rows - 1]);
    const Vector last_low = broadcast(gates.low[rows - 1]);
    for (int i = 0; i < rows; i += lanes) {
        const Vector high = load(gates.high + i);
        const Vector low = load(gates.low + i);
        store(gates.from_start + i, decay_exponential(add(high, low)));
        store(gates.to_end + i, decay_exponential(add(sub(last_high, high), sub(last_low, low))));
    }
    gates.total = gates.from_start[rows - 1];
}

/// decay[i][j] = e^(G_i - G_j) for j <= i, zero above the diagonal inside the diagonal blocks of 16 columns.
/// Left of them it is the product of the decays from j to the block's first row and from there to i.
inline void fill_decay(const Gates& gates, int rows, float* decay) {
    for (int block = 0; block < rows; block += 16) {
        const Vector first_high = broadcast(gates.high[block]);
        const Vector first_low = broadcast(gates.low[block]);
        alignas(64) float from_first[16];
        for (int i = 0; i < 16; i += lanes) {
            store(from_first + i, decay_exponential(add(sub(load(gates.high + block + i), first_high),
                                                        sub(load(gates.low + block + i), first_low))));
        }
        for (int j = 0; j < block; j += lanes) {
            const Vector to_first =
                decay_exponential(add(sub(first_high, load(gates.high + j)), sub(first_low, load(gates.low + j))));
            for (int i = 0; i < 16; ++i) {
                store(decay + (block + i) * chunk_tokens + j, mul(broadcast(from_first[i]), to_first));
            }
        }
        for (int i = block; i < block + 16; ++i) {
            for (int j = block; j < block + 16; j += lanes) {
                const Vector difference = add(sub(broadcast(gates.high[i]), load(gates.high + j)),
                                              sub(broadcast(gates.low[i]), load(gates.low + j)));
                store(decay + i * chunk_tokens + j, keep_first(decay_exponential(difference), i - j + 1));
            }
        }
    }
}

/// Precision that SiLU needs: bf16 activations carry 8 bits.
template <class Element>
inline Vector sigmoid_of(Vector x) {
    return sizeof(Element) == 2 ? coarse_sigmoid(x) : sigmoid(x);
}

/// Loads n rows of `dim` raw elements into a tile of rows x cols values (the rest zero).
template <class Element>
inline void load_rows(const Element* raw, int64_t stride, int n, int rows, int dim, int cols, float* tile) {
    for (int i = 0; i < n; ++i) {
        for (int c = 0; c < cols; c += lanes) store(tile + i * cols + c, load_first(raw + i * stride + c, dim - c));
    }
    for (int at = n * cols; at < rows * cols; at += lanes) store(tile + at, zero());
}

/// The same through SiLU when `silu`.
template <class Element>
inline void load_activated_rows(const Element* raw, int64_t stride, int n, int rows, int dim, int cols, bool silu,
                                float* tile) {
    load_rows(raw, stride, n, rows, dim, cols, tile);
    if (!silu) return;
    for (int at = 0; at < n * cols; at += lanes) {
        const Vector x = load(tile + at);
        store(tile + at, mul(x, sigmoid_of<Element>(x)));
    }
}

/// Replaces n rows of raw values by SiLU's derivative there, and fills `activated` (unless null) with SiLU itself.
template <class Element>
inline void activate_with_slopes(int n, int cols, float* raw_then_slopes, float* activated) {
    for (int at = 0; at < n * cols; at += lanes) {
        const Vector x = load(raw_then_slopes + at);
        const Vector s = sigmoid_of<Element>(x);
        const Vector y = mul(x, s);
        if (activated != nullptr) store(activated + at, y);
        store(raw_then_slopes + at, fma(y, sub(broadcast(1.0F), s), s));
    }
}

/// Divides each row by its length (plus epsilon); `inverse_lengths`, if not null, receives the factors.
inline void normalize_rows(int n, int cols, float* tile, float* inverse_lengths) {
    for (int i = 0; i < n; ++i) {
        float* row = tile + i * cols;
        Vector squares = zero();
        for (int c = 0; c < cols; c += lanes) squares = fma(load(row + c), load(row + c), squares);
        const float factor = 1.0F / __builtin_sqrtf(sum(squares) + normalize_epsilon);
        for (int c = 0; c < cols; c += lanes) store(row + c, mul(broadcast(factor), load(row + c)));
        if (inverse_lengths != nullptr) inverse_lengths[i] = factor;
    }
}

}  // namespace amalgam::kernels::AMALGAM_ISA
