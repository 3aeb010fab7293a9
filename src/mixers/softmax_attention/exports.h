// SPDX-License-Identifier: Apache-2.0
// How layers of softmax attention are written in export formats.
#pragma once

#include <utility>
#include <vector>

#include "mixers/implementation.h"

namespace amalgam {

std::vector<LayerExport> softmax_attention_exports();

/// Of a teacher without q/k norm, for formats that always have one (qwen3_5): q_proj and k_proj times s = 2^-20, so
/// that mean(x^2) << eps and the norm divides by sqrt(eps); the two norm weights multiply to eps / s^2. These are two
/// numbers, exact in bf16, stored as norm weights a and b with (1 + a) (1 + b) = eps / 2^-40 up to 1e-5.
std::pair<double, double> neutral_norm_weights(double eps);

}  // namespace amalgam
