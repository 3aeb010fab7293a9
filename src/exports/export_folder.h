// SPDX-License-Identifier: Apache-2.0
// What the export formats share: tensors read in fp32 from the student one after the other, written under new names as
// safetensors with config.json and the teacher's tokenizer files.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "mixers/implementation.h"
#include "model/weights.h"
#include "options/choices.h"
#include "storage/safetensors.h"

namespace amalgam {

class ExportFolder : public TensorWriter {
  public:
    /// Throws where what was written, with the config.json to come, must not be published.
    using Check = std::function<void(const TensorSource& written, const nlohmann::json& config)>;

    /// `readme`: the text of README.md.
    ExportFolder(const TensorSource& student, ExportPrecision precision, std::filesystem::path teacher_folder,
                 std::filesystem::path target, std::string readme, Check check);

    at::Tensor take(const std::string& name) const override;
    void put(const std::string& name, const at::Tensor& tensor, bool full_precision = false) override;

    /// To be called when all tensors were put: checks them, then replaces an earlier export, whose config.json goes
    /// before its weights; the new one comes last.
    void finish(const nlohmann::json& config);

    const char* dtype() const { return precision_ == ExportPrecision::bfloat16 ? "bfloat16" : "float32"; }

  private:
    void write_generation_config(bool use_cache) const;

    const TensorSource& student_;
    ExportPrecision precision_;
    std::filesystem::path teacher_folder_, target_;
    std::string readme_;
    Check check_;
    SafetensorsWriter tensors_;
};

/// bos_token_id and eos_token_id as the config has them.
void add_special_tokens(nlohmann::json& json, const ModelConfig& config);

}  // namespace amalgam
