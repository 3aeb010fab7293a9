// SPDX-License-Identifier: Apache-2.0
#include "mixers/softmax_attention/neutral_norm.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace amalgam {
namespace {

double rounded_to_bf16(double x) {
    return double(float(at::BFloat16(float(x))));
}

}  // namespace

double mean_square_bound(const at::Tensor& weight, const at::Tensor& bias, int64_t head_dim) {
    // |w x| <= |w| |x| and |x| <= sqrt(hidden).
    at::Tensor largest = weight.to(at::kDouble).norm(2, {1}) * std::sqrt(double(weight.size(1)));
    if (bias.defined()) largest = largest + bias.to(at::kDouble).abs();
    return largest.square().view({-1, head_dim}).mean(1).max().item<double>();
}

double neutral_scale(double mean_square, double eps) {
    const double wanted = std::sqrt(std::ldexp(eps, -21) / std::max(mean_square, 1e-30));
    return std::ldexp(1.0, std::min(-20, int(std::floor(std::log2(wanted)))));
}

std::pair<double, double> neutral_norm_weights(double eps, double scale) {
    const double target = eps / (scale * scale);
    const double large = rounded_to_bf16(target - 1.0);
    return {rounded_to_bf16(target / (1.0 + large) - 1.0), large};
}

}  // namespace amalgam
