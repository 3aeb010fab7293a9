// SPDX-License-Identifier: Apache-2.0
#include "exports/one_eps.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace amalgam {
namespace {

bool ends_with_any(const std::string& name, std::initializer_list<const char*> ends) {
    return std::any_of(ends.begin(), ends.end(), [&](const char* end) { return name.ends_with(end); });
}

}  // namespace

OneEps::OneEps(const TensorSource& student, const ModelSpec& spec) : student_(student), spec_(spec) {
    double& eps = spec_.config.rms_norm_eps;
    if (linear_mixer(spec.layout).empty() || eps == spec.output_norm_eps) return;
    scale_ = std::sqrt(spec.output_norm_eps / eps);
    eps = spec.output_norm_eps;
}

std::optional<at::Tensor> OneEps::find(const std::string& name) const {
    auto found = student_.find(name);
    const double by = factor(name);
    if (found && by != 1.0) *found = found->to(at::kFloat) * by;
    return found;
}

double OneEps::factor(const std::string& name) const {
    // All that is added to the stream.
    if (ends_with_any(name, {"embed_tokens.weight", "o_proj.weight", "o_proj.bias", "down_proj.weight"})) return scale_;
    // The head is the embedding, scaled.
    if (spec_.config.tied_head && name == "model.norm.weight") return 1.0 / scale_;
    // The norms of queries and keys have the blocks' eps.
    if (spec_.config.qk_norm && ends_with_any(name, {"self_attn.q_proj.weight", "self_attn.k_proj.weight",
                                                     "self_attn.q_proj.bias", "self_attn.k_proj.bias"}))
        return scale_;
    return 1.0;
}

}  // namespace amalgam
