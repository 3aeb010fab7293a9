// SPDX-License-Identifier: Apache-2.0
// What Qwen3.5's text model lacks outside the mixers.
#include "exports/formats.h"

namespace amalgam {
namespace {

class Qwen3_5Format : public ExportFormat {
  public:
    std::string name() const override { return "qwen3_5"; }
    std::string folder() const override { return "student"; }
    /// Programs that serve Qwen3.5 attach things to its hidden states (adapters, draft models): these stay the
    /// student's.
    bool scales_for_eps() const override { return false; }

  private:
    std::optional<std::string> refusal_outside_mixers(const ModelSpec& spec) const override {
        if (spec.config.mlp_bias) return "the MLP has biases (Qwen3.5 has none); keep the checkpoint";
        return std::nullopt;
    }
};

}  // namespace

const ExportFormat& qwen3_5_format() {
    static const Qwen3_5Format format;
    return format;
}

}  // namespace amalgam
