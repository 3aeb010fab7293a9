// SPDX-License-Identifier: Apache-2.0
// What flash-linear-attention computes from what was written. Its layers have the student's formulas, so the student's
// own modules run with the tensors under fla's names: a tensor that is missing, misshapen or in another's place shows.
#include <ATen/ATen.h>

#include "exports/export_check.h"

namespace amalgam {
namespace {

void replace(std::string& name, const std::string& part, const std::string& by) {
    if (const size_t at = name.find(part); at != std::string::npos) name.replace(at, part.size(), by);
}

class FlaSource : public TensorSource {
  public:
    explicit FlaSource(const TensorSource& written) : written_(written) {}

    std::optional<at::Tensor> find(const std::string& ours) const override {
        std::string name = ours;
        const bool linear = name.find("linear_attn.") != std::string::npos;
        replace(name, "model.embed_tokens.", "model.embeddings.");
        replace(name, "input_layernorm", "attn_norm");
        replace(name, "post_attention_layernorm", "mlp_norm");
        replace(name, linear ? "linear_attn." : "self_attn.", "attn.");
        if (linear && name.ends_with("conv1d.weight")) return convolutions(name);
        if (const auto found = written_.find(name)) return found;
        for (const char* norm : {"g_norm_swish_gate", "g_norm"}) {  // gated linear attention's output norm
            std::string other = name;
            replace(other, "o_norm", norm);
            if (const auto found = written_.find(other)) return found;
        }
        return std::nullopt;
    }
    std::string where() const override { return written_.where(); }

  private:
    /// The student has one kernel for q, k and v.
    std::optional<at::Tensor> convolutions(const std::string& name) const {
        std::vector<at::Tensor> parts;
        for (const char* part : {"q_conv1d", "k_conv1d", "v_conv1d"}) {
            std::string one = name;
            replace(one, "conv1d", part);
            const auto found = written_.find(one);
            if (!found) return std::nullopt;
            parts.push_back(found->squeeze(1));
        }
        return at::cat(parts);
    }

    const TensorSource& written_;
};

}  // namespace

at::Tensor logits_of_fla(const TensorSource& written, const nlohmann::json& config, const ModelSpec& spec,
                         const at::Tensor& tokens) {
    ModelSpec as_written = spec;
    as_written.config.rms_norm_eps = as_written.output_norm_eps = config.at("norm_eps");
    return logits_block_by_block(FlaSource(written), as_written, tokens);
}

}  // namespace amalgam
