// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/decode_attention/decode_attention.h"

namespace amalgam::kernels::reference {
namespace {

/// y = rotation(norm(x)) of one head.
void norm_and_rotate(std::int64_t width, const double* x, const double* norm, double epsilon, const double* cos,
                     const double* sin, double* y) {
    double factor = 1.0;
    if (norm != nullptr) {
        double squares = 0;
        for (std::int64_t j = 0; j < width; ++j) squares += x[j] * x[j];
        factor = 1.0 / std::sqrt(squares / double(width) + epsilon);
    }
    const auto normed = [&](std::int64_t j) { return norm != nullptr ? x[j] * factor * norm[j] : x[j]; };
    const std::int64_t half = width / 2;
    for (std::int64_t j = 0; j < half; ++j) {
        const double low = normed(j), high = normed(j + half);
        y[j] = low * cos[j] - high * sin[j];
        y[j + half] = high * cos[j + half] + low * sin[j + half];
    }
}

std::int64_t place(const CacheShape& s, std::int64_t slot, std::int64_t head, std::int64_t position) {
    return ((slot * s.key_value_heads + head) * s.capacity + position) * s.width;
}

}  // namespace

void append_to_cache(const CacheShape& s, const std::int32_t* slot, const std::int32_t* length, const double* q,
                     const double* k, const double* v, const double* q_norm, const double* k_norm, double epsilon,
                     const double* cos, const double* sin, double* rotated, double* keys, double* values) {
    for (std::int64_t i = 0; i < s.batch; ++i) {
        if (slot[i] < 0) continue;
        const double *cosine = cos + length[i] * s.width, *sine = sin + length[i] * s.width;
        for (std::int64_t h = 0; h < s.query_heads; ++h) {
            const std::int64_t at = (i * s.query_heads + h) * s.width;
            norm_and_rotate(s.width, q + at, q_norm, epsilon, cosine, sine, rotated + at);
        }
        for (std::int64_t h = 0; h < s.key_value_heads; ++h) {
            const std::int64_t at = (i * s.key_value_heads + h) * s.width, to = place(s, slot[i], h, length[i]);
            norm_and_rotate(s.width, k + at, k_norm, epsilon, cosine, sine, keys + to);
            std::copy_n(v + at, s.width, values + to);
        }
    }
}

void decode_attention(const CacheShape& s, const std::int32_t* slot, const std::int32_t* length, std::int64_t window,
                      double scale, const double* q, const double* keys, const double* values, double* o) {
    for (std::int64_t i = 0; i < s.batch; ++i) {
        if (slot[i] < 0) continue;
        const std::int64_t end = length[i] + 1, first = window > 0 ? std::max<std::int64_t>(0, end - window) : 0;
        for (std::int64_t h = 0; h < s.query_heads; ++h) {
            const std::int64_t at = (i * s.query_heads + h) * s.width,
                               from = place(s, slot[i], h / (s.query_heads / s.key_value_heads), 0);
            std::vector<double> weight;
            for (std::int64_t t = first; t < end; ++t) {
                double product = 0;
                for (std::int64_t j = 0; j < s.width; ++j) product += q[at + j] * keys[from + t * s.width + j];
                weight.push_back(product * scale);
            }
            const double largest = *std::max_element(weight.begin(), weight.end());
            double sum = 0;
            for (double& w : weight) sum += w = std::exp(w - largest);
            for (std::int64_t j = 0; j < s.width; ++j) {
                double mixed = 0;
                for (std::int64_t t = first; t < end; ++t)
                    mixed += weight[std::size_t(t - first)] * values[from + t * s.width + j];
                o[at + j] = mixed / sum;
            }
        }
    }
}

}  // namespace amalgam::kernels::reference
