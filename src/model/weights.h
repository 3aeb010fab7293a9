// SPDX-License-Identifier: Apache-2.0
// Filling models with weights and getting them out again, by global tensor name. A source is a Hugging Face folder, a
// checkpoint, or a model that is already there; conversions between layouts are chains of sources.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/causal_lm.h"
#include "model/teacher_folder.h"
#include "storage/safetensors.h"

namespace amalgam {

class TensorSource {
  public:
    virtual ~TensorSource() = default;
    /// The tensor of that name in its stored type, on the CPU; nothing if there is none.
    virtual std::optional<at::Tensor> find(const std::string& name) const = 0;
    /// For messages.
    virtual std::string where() const = 0;
    /// True if all values were found finite before, so that nobody needs to look again.
    virtual bool known_finite() const { return false; }
};

/// safetensors of a Hugging Face folder.
class HuggingFaceSource : public TensorSource {
  public:
    /// All tensors of any folder.
    explicit HuggingFaceSource(const std::filesystem::path& folder);
    /// Those of a teacher, under the model's names.
    explicit HuggingFaceSource(const TeacherFolder& teacher) : HuggingFaceSource(teacher.folder, teacher.tensors) {}
    /// These tensors, wherever they lie; `where` names them in messages.
    HuggingFaceSource(std::filesystem::path where, std::map<std::string, SafetensorsEntry> entries)
        : folder_(std::move(where)), entries_(std::move(entries)) {}
    std::optional<at::Tensor> find(const std::string& name) const override;
    std::string where() const override { return folder_.string(); }
    const std::filesystem::path& folder() const { return folder_; }

  protected:
    virtual void read(const SafetensorsEntry& entry, void* destination) const;

  private:
    std::filesystem::path folder_;
    std::map<std::string, SafetensorsEntry> entries_;
};

/// Named tensors of a model in memory whose weights were loaded or trained, so that they are finite. The tensors are
/// the model's own if it is on the CPU (they may outlive it), copies in host memory otherwise.
class ModelSource : public TensorSource {
  public:
    ModelSource(CausalLM& model, std::string where);
    std::optional<at::Tensor> find(const std::string& name) const override;
    std::string where() const override { return where_; }
    bool known_finite() const override { return true; }

  private:
    std::map<std::string, at::Tensor> tensors_;
    std::string where_;
};

/// The tensor from the first source that has it. Its shape must be `shape` and its values finite. Throws
/// Error(bad_input) naming the source and the tensor that is missing, misshapen or not finite.
at::Tensor find_tensor(const std::string& name, at::IntArrayRef shape, const std::vector<const TensorSource*>& sources);

/// Fills every parameter from the first source that has it. Throws as find_tensor.
void load_weights(CausalLM& model, const std::vector<const TensorSource*>& sources);

/// A frozen teacher of this config with the weights of `source`.
std::unique_ptr<CausalLM> load_teacher(const ModelConfig& config, const HuggingFaceSource& source, at::Device device,
                                       at::ScalarType compute_type);
/// The same of a folder. Warns of what is noteworthy in it; throws what read_teacher_folder throws.
std::unique_ptr<CausalLM> load_teacher(const std::filesystem::path& folder, at::Device device,
                                       at::ScalarType compute_type);

}  // namespace amalgam
