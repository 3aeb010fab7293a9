// SPDX-License-Identifier: Apache-2.0
#include "mixers/kimi_delta_attention/start.h"

#include <ATen/ATen.h>

#include "mixers/kimi_delta_attention/options.h"

namespace amalgam {
namespace {

/// Whether a gated delta net has what `name` says; what its options do not name has the default.
bool has(const ModelSpec& spec, const std::string& name, bool standard) {
    read_option(spec.options, name, standard);
    return standard;
}

std::optional<std::string> refusal(const ModelSpec& ours, const ModelSpec& theirs) {
    const KimiDeltaAttentionOptions options(ours.options);
    if (has(theirs, "output_gate", true))
        return "its output gate is a SiLU (a sigmoid cannot be one); use gdn_v1 or gdn_v2";
    if (!has(theirs, "output_norm", true)) return "it has no output norm";
    if (!has(theirs, "activation", true) || has(theirs, "rope", false)) return "its q, k and v are made in another way";
    if (has(theirs, "short_convolution", false) && !options.short_convolution)
        return "it has short convolutions; set student.short_convolution";
    if (options.lower_bound < 0) return "its decays are of a softplus; set student.lower_bound: 0";
    if (ours.config.query_heads > ours.config.head_dim) return "it has more heads than the rank of our decays";
    return std::nullopt;
}

at::Tensor value(const std::string& name, const at::Tensor& transferred,
                 const std::function<std::optional<at::Tensor>(const std::string&)>& theirs) {
    if (name == "linear_attn.f_proj.0.weight") {
        const at::Tensor rows = theirs("linear_attn.a_proj.weight").value();
        return at::cat({rows, transferred.narrow(0, rows.size(0), transferred.size(0) - rows.size(0))});
    }
    const auto found = theirs(name);
    if (!found) return transferred;
    if (name == "linear_attn.dt_bias") return found->repeat_interleave(transferred.size(0) / found->size(0));
    if (name == "linear_attn.o_norm.weight") return 2.0 * *found;
    return *found;
}

}  // namespace

std::vector<LayerStart> kimi_delta_attention_starts() {
    return {{"gated_delta_net", refusal, value}};
}

}  // namespace amalgam
