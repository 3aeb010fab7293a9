// SPDX-License-Identifier: Apache-2.0
// Distillation by forward KL divergence to the teacher's logits, all parameters trained (the paper's stage 2), and
// plain next-token training (stage 3).
#pragma once

#include <map>
#include <optional>

#include "job/job.h"
#include "objectives/blockwise_forward.h"
#include "objectives/objective.h"

namespace amalgam {

/// The teacher's final hidden states of training sequences. What fits into `cache_bytes` is kept, since all candidates
/// of the score stage train on the same sequences: each is then computed once. Candidates trained in step share
/// those of each step besides.
class TeacherStates {
  public:
    TeacherStates(const CausalLM& teacher, int64_t cache_bytes) : teacher_(teacher), cache_bytes_(cache_bytes) {}
    /// [sequences * time, width] for the micro-batch that starts at global sequence `cursor`.
    /// With `context`, which must be the same each time, of this rank's piece of the sequences.
    at::Tensor hidden(const TokenBatch& batch, int64_t cursor, ContextGroup* context = nullptr);
    /// Keeps everything from now on until forget(), which is to be called after each step of all candidates.
    void keep_until_forgotten() { keeps_ = true; }
    void forget() { kept_.clear(); }
    /// Micro-batches that the teacher has computed.
    int64_t computed() const { return computed_; }
    const CausalLM& model() const { return teacher_; }

  private:
    using Key = std::pair<int64_t, int64_t>;  // cursor, sequences
    std::optional<at::Tensor> find(const Key& key) const;

    const CausalLM& teacher_;
    int64_t cache_bytes_;
    std::map<Key, at::Tensor> cache_, kept_;
    bool keeps_ = false;
    int64_t computed_ = 0;
};

/// The sum over tokens of weight * |h_T - h_S|^2 / |h_T|^2, of final hidden states [tokens, width] as the head gets
/// them; its gradient with respect to the student's is added to `d_student`.
double add_hidden_state_loss(const at::Tensor& student, const at::Tensor& teacher, double weight,
                             at::Tensor& d_student);

/// The KL divergence, and distill.hidden_state_weight times the loss above.
class Distillation : public Objective {
  public:
    Distillation(CausalLM& student, TeacherStates& teacher, const DistillJob& job,
                 Activations activations = Activations::keep, ContextGroup* context = nullptr)
        : student_(student), teacher_(teacher), job_(job), activations_(activations), context_(context) {}
    std::vector<Parameter*> trained() override { return all_parameters(student_); }
    void accumulate(const TokenBatch& batch, int64_t cursor, double weight, GradientSink& gradients,
                    std::vector<double>& losses) override;

  private:
    CausalLM& student_;
    TeacherStates& teacher_;
    DistillJob job_;
    Activations activations_;
    ContextGroup* context_;
};

/// The loss of every token that has a next one in its text.
class NextToken : public Objective {
  public:
    NextToken(CausalLM& student, int64_t chunk, Activations activations = Activations::keep,
              ContextGroup* context = nullptr)
        : student_(student), chunk_(chunk), activations_(activations), context_(context) {}
    std::vector<Parameter*> trained() override { return all_parameters(student_); }
    int64_t counted(int64_t tokens, int64_t texts) const override { return tokens - texts; }
    void accumulate(const TokenBatch& batch, int64_t cursor, double weight, GradientSink& gradients,
                    std::vector<double>& losses) override;

  private:
    CausalLM& student_;
    int64_t chunk_;
    Activations activations_;
    ContextGroup* context_;
};

}  // namespace amalgam
