// SPDX-License-Identifier: Apache-2.0
// Distillation by forward KL divergence to the teacher's logits, all parameters trained (the paper's stage 2), and
// plain next-token training (stage 3).
#pragma once

#include <map>

#include "job/job.h"
#include "training/blockwise_forward.h"
#include "training/objective.h"

namespace amalgam {

/// The teacher's final hidden states of training sequences. What fits into `cache_bytes` is kept, since all candidates
/// of the score stage train on the same sequences: each is then computed once. The latest micro-batch is always kept,
/// for candidates that are trained in step.
class TeacherStates {
  public:
    TeacherStates(const CausalLM& teacher, int64_t cache_bytes) : teacher_(teacher), cache_bytes_(cache_bytes) {}
    /// [sequences * time, width] for the micro-batch that starts at global sequence `cursor`.
    at::Tensor hidden(const at::Tensor& tokens, int64_t cursor);
    /// For use while `weights()` are held.
    const at::Tensor& head() const { return teacher_.head().compute; }
    WeightsOnDemand* weights() const { return teacher_.weights_on_demand(); }

  private:
    using Key = std::pair<int64_t, int64_t>;  // cursor, sequences
    const CausalLM& teacher_;
    int64_t cache_bytes_;
    std::map<Key, at::Tensor> cache_;
    Key latest_key_ = {-1, -1};
    at::Tensor latest_;
};

class Distillation : public Objective {
  public:
    Distillation(CausalLM& student, TeacherStates& teacher, const DistillJob& job,
                 Activations activations = Activations::keep)
        : student_(student), teacher_(teacher), job_(job), activations_(activations) {}
    std::vector<Parameter*> trained() override { return all_parameters(student_); }
    void accumulate(const at::Tensor& tokens, int64_t cursor, double weight, GradientSink& gradients,
                    std::vector<double>& losses) override;

  private:
    CausalLM& student_;
    TeacherStates& teacher_;
    DistillJob job_;
    Activations activations_;
};

class NextToken : public Objective {
  public:
    NextToken(CausalLM& student, int64_t chunk, Activations activations = Activations::keep)
        : student_(student), chunk_(chunk), activations_(activations) {}
    std::vector<Parameter*> trained() override { return all_parameters(student_); }
    void accumulate(const at::Tensor& tokens, int64_t cursor, double weight, GradientSink& gradients,
                    std::vector<double>& losses) override;

  private:
    CausalLM& student_;
    int64_t chunk_;
    Activations activations_;
};

/// The token after each token of a sequence, -1 after the last: tokens [sequences, time] -> [sequences * time].
at::Tensor next_tokens(const at::Tensor& tokens);

}  // namespace amalgam
