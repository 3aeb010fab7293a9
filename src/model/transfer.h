// SPDX-License-Identifier: Apache-2.0
// Attention weight transfer: the weights of linear mixers made from the teacher's softmax attention, as the mixers'
// declarations say: copied, expanded to all query heads, or drawn. Or made from a trained student of another mixer.
#pragma once

#include "mixers/implementation.h"
#include "model/weights.h"
#include "options/choices.h"

namespace amalgam {

/// Rows of a k or v projection expanded from `key_value_heads` to `query_heads` heads.
at::Tensor expand_key_value(const at::Tensor& weight, int64_t key_value_heads, int64_t query_heads,
                            KeyValueExpansion expansion);

/// Answers the names of the parameters of a student's mixers from a teacher's softmax attention, and everything else
/// from the teacher itself. Random numbers depend on seed and tensor name only.
class TransferSource : public TensorSource {
  public:
    TransferSource(const TensorSource& teacher, const ModelSpec& student, KeyValueExpansion expansion, uint64_t seed);
    std::optional<at::Tensor> find(const std::string& name) const override;
    std::string where() const override { return teacher_.where() + " (transferred)"; }

  private:
    const TensorSource& teacher_;
    ModelConfig config_;
    std::map<std::string, ParameterDeclaration> declared_;  // by the tensor's name
    KeyValueExpansion expansion_;
    uint64_t seed_;
};

/// How layers of `student` start from those of another student, whose checkpoint is `where`; null: as they are, since
/// the mixer is the same. Throws Error(bad_input) with the reason if they cannot.
const LayerStart* find_start(const ModelSpec& student, const ModelSpec& trained, const std::string& where);

/// The same for a student whose linear layers start from those of a trained student of the same teacher, of its own
/// mixer or of one that its mixer can start from (LayerStart). Everything else is the trained student's too, if it has
/// it.
class ContinuedSource : public TensorSource {
  public:
    /// Throws what find_start() throws.
    ContinuedSource(const TransferSource& transferred, const ModelSpec& student, const TensorSource& trained,
                    const ModelSpec& trained_spec);
    std::optional<at::Tensor> find(const std::string& name) const override;
    std::string where() const override { return trained_.where() + " (continued)"; }

  private:
    const TransferSource& transferred_;
    const TensorSource& trained_;
    const LayerStart* start_ = nullptr;  // null: the mixer is the same
};

}  // namespace amalgam
