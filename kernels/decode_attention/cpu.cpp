// SPDX-License-Identifier: Apache-2.0
// A task is a piece of one sequence's keys for one key head: pieces are cut by the length alone, so that few sequences
// keep all threads busy and results do not depend on their number. The pieces of a head are then put together.
#include <omp.h>

#include <type_traits>

#include "kernels/decode_attention/decode_attention.h"
#include "kernels/elementwise/elements.h"
#include "kernels/elementwise/exponential.h"
#include "kernels/isa/row_of.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

constexpr std::int64_t piece_keys = 1024;
constexpr std::int64_t block_keys = 64;  // whose weights are in the first cache
constexpr int most_heads = 8;            // that share a pass over keys or values
constexpr float negative_infinity = -__builtin_inff();

/// y = x times its norm's factors, as stored; y may be x.
template <class T>
void norm_head(const T* x, const float* norm, float epsilon, std::int64_t width, float* y) {
    if (norm == nullptr) {
        for_each_vector(width, [&](std::int64_t j, auto part) { store(y + j, load(x + j, part), part); });
        return;
    }
    Vector squares = zero();
    for_each_vector(width, [&](std::int64_t j, auto part) {
        const Vector value = load(x + j, part);
        squares = fma(value, value, squares);
    });
    const float factor = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + epsilon);
    for_each_vector(width, [&](std::int64_t j, auto part) {
        const Vector normed = load(x + j, part) * broadcast(factor) * load(norm + j, part);
        store(y + j, as_stored(x, normed), part);
    });
}

template <class T>
void rotate(const float* x, const float* cos, const float* sin, std::int64_t width, T* y) {
    const std::int64_t half = width / 2;
    for_each_vector(half, [&](std::int64_t j, auto part) {
        const Vector low = load(x + j, part), high = load(x + half + j, part);
        store(y + j, low * load(cos + j, part) - high * load(sin + j, part), part);
        store(y + half + j, high * load(cos + half + j, part) + low * load(sin + half + j, part), part);
    });
}

template <class T>
T* in_cache(void* cache, const CacheShape& s, std::int64_t slot, std::int64_t head, std::int64_t position) {
    return static_cast<T*>(cache) + ((slot * s.key_value_heads + head) * s.capacity + position) * s.width;
}

/// One key head's part of a piece: the largest logit of every query head, the sum of weights relative to it, and the
/// weighted sum of values.
struct Piece {
    float *largest, *sum, *mixed;
    static std::int64_t size(const CacheShape& s) { return s.query_heads / s.key_value_heads * (s.width + 2); }
    Piece(float* memory, const CacheShape& s)
        : largest(memory), sum(memory + s.query_heads / s.key_value_heads), mixed(sum + (sum - largest)) {}
};

/// logits[h * block_keys + t] = q_h . k_t for `n` heads.
template <int n, class T>
void dot(const T* keys, const float* q, std::int64_t count, std::int64_t width, float* logits) {
    for (std::int64_t t = 0; t < count; ++t) {
        const T* key = keys + t * width;
        Vector sums[n];
        for (int h = 0; h < n; ++h) sums[h] = zero();
        for_each_vector(width, [&](std::int64_t j, auto part) {
            const Vector k = load(key + j, part);
#pragma GCC unroll 8
            for (int h = 0; h < n; ++h) sums[h] = fma(k, load(q + h * width + j, part), sums[h]);
        });
        for (int h = 0; h < n; ++h) logits[h * block_keys + t] = sum(sums[h]);
    }
}

/// mixed_h = factor_h mixed_h + sum_t weight[h * block_keys + t] v_t for `n` heads.
template <int n, class T>
void mix(const T* values, const float* weight, const float* factor, std::int64_t count, std::int64_t width,
         float* mixed) {
    for_each_vector(width, [&](std::int64_t j, auto part) {
        Vector sums[n];
#pragma GCC unroll 8
        for (int h = 0; h < n; ++h) sums[h] = load(mixed + h * width + j, part) * broadcast(factor[h]);
        for (std::int64_t t = 0; t < count; ++t) {
            const Vector v = load(values + t * width + j, part);
#pragma GCC unroll 8
            for (int h = 0; h < n; ++h) sums[h] = fma(broadcast(weight[h * block_keys + t]), v, sums[h]);
        }
#pragma GCC unroll 8
        for (int h = 0; h < n; ++h) store(mixed + h * width + j, sums[h], part);
    });
}

/// Calls body(first head, constant number of heads) for all heads of a group.
template <class Body>
void for_heads(int group, Body&& body) {
    int h = 0;
    for (; h + most_heads <= group; h += most_heads) body(h, std::integral_constant<int, most_heads>{});
    const auto rest = [&](auto n) {
        if (group - h == n) {
            body(h, n);
            h = group;
        }
    };
    rest(std::integral_constant<int, 1>{});
    rest(std::integral_constant<int, 2>{});
    rest(std::integral_constant<int, 3>{});
    rest(std::integral_constant<int, 4>{});
    rest(std::integral_constant<int, 5>{});
    rest(std::integral_constant<int, 6>{});
    rest(std::integral_constant<int, 7>{});
}

/// Turns a block's logits into weights relative to the largest so far; returns by how much what was summed before
/// shrinks.
float weigh(float* logits, std::int64_t count, float& largest, float& weights) {
    float block = negative_infinity;
    for (std::int64_t t = 0; t < count; ++t) block = logits[t] > block ? logits[t] : block;
    const float now = block > largest ? block : largest;
    Vector sums = zero();
    for_each_vector(count, [&](std::int64_t t, auto part) {
        const Vector weight = accurate_exponential(load(logits + t, part) - broadcast(now));
        store(logits + t, weight, part);
        sums = sums + fill_absent(weight, part, 0.0F);
    });
    const float factor = __builtin_expf(largest - now);
    largest = now;
    weights = weights * factor + sum(sums);
    return factor;
}

/// `q` [group, width] is scaled. `logits` [group, block_keys] is scratch.
template <class T>
void attend(const T* keys, const T* values, const float* q, std::int64_t count, int group, std::int64_t width,
            float* logits, float* factor, const Piece& piece) {
    for (int h = 0; h < group; ++h) {
        piece.largest[h] = negative_infinity;
        piece.sum[h] = 0;
    }
    for (std::int64_t i = 0; i < group * width; ++i) piece.mixed[i] = 0;
    for (std::int64_t first = 0; first < count; first += block_keys) {
        const std::int64_t n = count - first < block_keys ? count - first : block_keys;
        for_heads(group, [&](int h, auto heads) {
            dot<heads>(keys + first * width, q + h * width, n, width, logits + h * block_keys);
        });
        for (int h = 0; h < group; ++h) factor[h] = weigh(logits + h * block_keys, n, piece.largest[h], piece.sum[h]);
        for_heads(group, [&](int h, auto heads) {
            mix<heads>(values + first * width, logits + h * block_keys, factor + h, n, width, piece.mixed + h * width);
        });
    }
}

/// o = the weighted sum of all pieces of one query head.
template <class T>
void combine(const CacheShape& s, float* pieces, std::int64_t count, int head, T* o) {
    const std::int64_t size = Piece::size(s);
    float largest = negative_infinity, weights = 0;
    for (std::int64_t p = 0; p < count; ++p) {
        const float of_piece = Piece(pieces + p * size, s).largest[head];
        largest = of_piece > largest ? of_piece : largest;
    }
    for (std::int64_t p = 0; p < count; ++p) {
        const Piece piece(pieces + p * size, s);
        weights += piece.sum[head] * __builtin_expf(piece.largest[head] - largest);
    }
    for_each_vector(s.width, [&](std::int64_t j, auto part) {
        Vector mixed = zero();
        for (std::int64_t p = 0; p < count; ++p) {
            const Piece piece(pieces + p * size, s);
            mixed = fma(broadcast(__builtin_expf(piece.largest[head] - largest)),
                        load(piece.mixed + head * s.width + j, part), mixed);
        }
        store(o + j, mixed * broadcast(1.0F / weights), part);
    });
}

/// The keys of a row, and their pieces; of a row that is left alone none.
struct RowKeys {
    std::int64_t first, count, pieces;
    RowKeys(const DecodeAttention& a, std::int64_t row) : first(0), count(0), pieces(0) {
        if (a.slot[row] < 0) return;
        count = a.length[row] + 1;
        if (a.window > 0 && a.window < count) {
            first = count - a.window;
            count = a.window;
        }
        pieces = (count + piece_keys - 1) / piece_keys;
    }
};

template <class T>
void run(const DecodeAttention& a, int threads) {
    const CacheShape& s = a.shape;
    const int group = static_cast<int>(s.query_heads / s.key_value_heads);
    const float scale = a.scale == 0 ? 1.0F / __builtin_sqrtf(static_cast<float>(s.width)) : a.scale;
    const Scratch<std::int64_t> row_pieces(s.batch + 1);  // where the pieces of a row begin, for each key head
    std::int64_t* begin = row_pieces.get();
    begin[0] = 0;
    for (std::int64_t row = 0; row < s.batch; ++row) begin[row + 1] = begin[row] + RowKeys(a, row).pieces;
    const std::int64_t tasks = begin[s.batch] * s.key_value_heads, size = Piece::size(s);
    const Scratch<float> pieces(tasks * size);
    const auto first_piece = [&](std::int64_t row, std::int64_t head) {
        return begin[row] * s.key_value_heads + head * (begin[row + 1] - begin[row]);
    };
    const std::int64_t scratch_size = group * (s.width + block_keys + 1);
    const Scratch<float> scratch(threads * scratch_size);
#pragma omp parallel num_threads(threads)
    {
        float *q = scratch.get() + omp_get_thread_num() * scratch_size, *logits = q + group * s.width,
              *factor = logits + group * block_keys;
#pragma omp for schedule(dynamic)
        for (std::int64_t task = 0; task < tasks; ++task) {
            std::int64_t row = 0;
            while (begin[row + 1] * s.key_value_heads <= task) ++row;
            const RowKeys keys(a, row);
            const std::int64_t in_row = task - begin[row] * s.key_value_heads;
            const std::int64_t head = in_row / keys.pieces, from = in_row % keys.pieces * piece_keys;
            const std::int64_t count = keys.count - from < piece_keys ? keys.count - from : piece_keys;
            const T* rotated = row_of<T>(a.q, row, head * group * s.width);
            for_each_vector(group * s.width, [&](std::int64_t j, auto part) {
                store(q + j, load(rotated + j, part) * broadcast(scale), part);
            });
            const auto cached = [&](const void* cache) {
                return in_cache<T>(const_cast<void*>(cache), s, a.slot[row], head, keys.first + from);
            };
            attend(cached(a.keys), cached(a.values), q, count, group, s.width, logits, factor,
                   Piece(pieces.get() + task * size, s));
        }
#pragma omp for schedule(static)
        for (std::int64_t index = 0; index < s.batch * s.query_heads; ++index) {
            const std::int64_t row = index / s.query_heads, head = index % s.query_heads;
            const std::int64_t count = begin[row + 1] - begin[row];
            if (count > 0)
                combine(s, pieces.get() + first_piece(row, head / group) * size, count, static_cast<int>(head % group),
                        row_of<T>(a.o, row, head * s.width));
        }
    }
}

template <class T>
void append(const CacheAppend& a, int threads) {
    const CacheShape& s = a.shape;
    const Scratch<float> scratch(threads * s.width);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t row = 0; row < s.batch; ++row) {
        const std::int64_t position = a.length[row];
        if (a.slot[row] < 0) continue;
        float* normed = scratch.get() + omp_get_thread_num() * s.width;
        const float *cos = a.cos + position * s.width, *sin = a.sin + position * s.width;
        for (std::int64_t h = 0; h < s.query_heads; ++h) {
            norm_head(row_of<T>(a.q, row, h * s.width), a.q_norm, a.epsilon, s.width, normed);
            rotate(normed, cos, sin, s.width, row_of<T>(a.rotated, row, h * s.width));
        }
        for (std::int64_t h = 0; h < s.key_value_heads; ++h) {
            norm_head(row_of<T>(a.k, row, h * s.width), a.k_norm, a.epsilon, s.width, normed);
            rotate(normed, cos, sin, s.width, in_cache<T>(a.keys, s, a.slot[row], h, position));
            std::memcpy(in_cache<T>(a.values, s, a.slot[row], h, position), row_of<T>(a.v, row, h * s.width),
                        sizeof(T) * s.width);
        }
    }
}

}  // namespace

void append_to_cache(const CacheAppend& a, int threads) {
    with_element_type(a.type, [&](auto* element) { append<std::remove_pointer_t<decltype(element)>>(a, threads); });
}

void decode_attention(const DecodeAttention& a, int threads) {
    with_element_type(a.type, [&](auto* element) { run<std::remove_pointer_t<decltype(element)>>(a, threads); });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
