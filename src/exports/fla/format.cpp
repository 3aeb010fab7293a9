// SPDX-License-Identifier: Apache-2.0
// What flash-linear-attention's models lack outside the mixers.
#include "exports/formats.h"

namespace amalgam {
namespace {

class FlaFormat : public ExportFormat {
  public:
    std::string name() const override { return "fla"; }
    bool scales_for_eps() const override { return true; }

  private:
    std::optional<std::string> refusal_outside_mixers(const ModelSpec& spec) const override {
        if (spec.config.mlp_bias) return "the MLP has biases (fla has none); keep the checkpoint";
        return std::nullopt;
    }
};

}  // namespace

const ExportFormat& fla_format() {
    static const FlaFormat format;
    return format;
}

}  // namespace amalgam
