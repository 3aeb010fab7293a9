// SPDX-License-Identifier: Apache-2.0
#include "operations/rope.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

namespace amalgam {
namespace {

constexpr double two_pi = 2.0 * std::numbers::pi;

/// Long wavelengths are stretched by `factor`, short ones kept, those between blended.
double llama3_frequency(double frequency, const RopeConfig& rope) {
    const double wavelength = two_pi / frequency;
    const double low = double(rope.original_max_position_embeddings) / rope.low_freq_factor;
    const double high = double(rope.original_max_position_embeddings) / rope.high_freq_factor;
    if (wavelength > low) return frequency / rope.factor;
    if (wavelength < high) return frequency;
    const double smooth = (double(rope.original_max_position_embeddings) / wavelength - rope.low_freq_factor) /
                          (rope.high_freq_factor - rope.low_freq_factor);
    return (1.0 - smooth) * frequency / rope.factor + smooth * frequency;
}

/// The channel pair whose wavelength fits `rotations` times into the original context.
double yarn_dimension(double rotations, const RopeConfig& rope, int64_t head_dim) {
    return double(head_dim) * std::log(double(rope.original_max_position_embeddings) / (rotations * two_pi)) /
           (2.0 * std::log(rope.rope_theta));
}

double yarn_mscale(double factor, double mscale) {
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeConfig& rope) {
    if (rope.attention_factor > 0.0) return rope.attention_factor;
    if (rope.mscale > 0.0 && rope.mscale_all_dim > 0.0)
        return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
    return yarn_mscale(rope.factor, 1.0);
}

}  // namespace

std::vector<double> inverse_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t length, double& scale) {
    scale = 1.0;
    double theta = rope.rope_theta;
    if (rope.rope_type == "dynamic" && length > rope.original_max_position_embeddings) {
        const double stretch =
            rope.factor * double(length) / double(rope.original_max_position_embeddings) - (rope.factor - 1.0);
        theta *= std::pow(stretch, double(head_dim) / double(head_dim - 2));
    }
    const int64_t half = head_dim / 2;
    std::vector<double> frequencies(half);
    for (int64_t i = 0; i < half; ++i) frequencies[i] = std::pow(theta, -2.0 * double(i) / double(head_dim));

    if (rope.rope_type == "linear") {
        for (double& f : frequencies) f /= rope.factor;
    } else if (rope.rope_type == "llama3") {
        for (double& f : frequencies) f = llama3_frequency(f, rope);
    } else if (rope.rope_type == "yarn") {
        double low = yarn_dimension(rope.beta_fast, rope, head_dim),
               high = yarn_dimension(rope.beta_slow, rope, head_dim);
        if (rope.truncate) low = std::floor(low), high = std::ceil(high);
        low = std::max(low, 0.0), high = std::min(high, double(head_dim - 1));
        if (low == high) high += 0.001;  // no division by zero below
        for (int64_t i = 0; i < half; ++i) {
            const double interpolated = std::clamp((double(i) - low) / (high - low), 0.0, 1.0);
            frequencies[i] = interpolated * frequencies[i] / rope.factor + (1.0 - interpolated) * frequencies[i];
        }
        scale = yarn_attention_factor(rope);
    }
    return frequencies;
}

RotaryTables rotary_tables(const RopeConfig& rope, int64_t head_dim, int64_t first, int64_t count, at::Device device,
                           int64_t length) {
    double scale = 1.0;
    const auto frequencies = inverse_frequencies(rope, head_dim, length > 0 ? length : first + count, scale);
    const int64_t half = head_dim / 2;
    at::Tensor cos = at::empty({count, head_dim}, at::kFloat), sin = at::empty({count, head_dim}, at::kFloat);
    float* c = cos.data_ptr<float>();
    float* s = sin.data_ptr<float>();
    for (int64_t t = 0; t < count; ++t)
        for (int64_t i = 0; i < half; ++i) {
            const double angle = double(first + t) * frequencies[i];
            c[t * head_dim + i] = c[t * head_dim + i + half] = float(scale * std::cos(angle));
            s[t * head_dim + i] = s[t * head_dim + i + half] = float(scale * std::sin(angle));
        }
    return {cos.to(device), sin.to(device)};
}

RotaryTables rotary_step_tables(const RopeConfig& rope, int64_t head_dim, int64_t count, at::Device device) {
    if (rope.rope_type != "dynamic") return rotary_tables(rope, head_dim, 0, count, device);
    std::vector<at::Tensor> cos, sin;
    for (int64_t p = 0; p < count; ++p) {
        const RotaryTables row = rotary_tables(rope, head_dim, p, 1, at::kCPU);
        cos.push_back(row.cos);
        sin.push_back(row.sin);
    }
    return {at::cat(cos).to(device), at::cat(sin).to(device)};
}

}  // namespace amalgam
