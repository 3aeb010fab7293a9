// SPDX-License-Identifier: Apache-2.0
// A hybrid of any teacher family as transformers' Qwen3_5ForCausalLM (model_type qwen3_5_text), exactly:
//   linear layers   gated delta nets of the same formula; without short convolution the kernel is [0, 0, 0, 1]
//   output gate     of softmax layers: gate rows of zero give sigmoid(0) = 1/2, so o_proj is doubled
//   q/k norm        of teachers without one: q_proj and k_proj times s = 2^-20, so that mean(x^2) << eps and the norm
//                   divides by sqrt(eps); the two norm weights multiply to eps / s^2
//   block norms     are stored minus one there, which loses bits in bf16: they are folded into the projections instead
#pragma once

#include <utility>

#include "exports/export_folder.h"

namespace amalgam {

void export_qwen3_5(ExportFolder& folder, const ModelSpec& spec);

/// Two numbers, exact in bf16, stored as norm weights a and b with (1 + a) (1 + b) = eps / 2^-40 up to 1e-5.
std::pair<double, double> neutral_norm_weights(double eps);

}  // namespace amalgam
