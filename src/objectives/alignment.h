// SPDX-License-Identifier: Apache-2.0
// Hidden-state alignment (the paper's stage 1, after RADLADS): in every layer, the student's mixer gets the teacher's
// own mixer input and is fitted to the teacher's attention output. Nothing flows between layers.
#pragma once

#include "objectives/objective.h"
#include "options/choices.h"

namespace amalgam {

class Alignment : public Objective {
  public:
    /// Student and teacher have the same sizes; the student's linear mixers are trained.
    Alignment(CausalLM& student, CausalLM& teacher, AlignmentLoss loss, ContextGroup* context = nullptr);
    std::vector<Parameter*> trained() override;
    /// Is `parameter` of a student of this kind trained?
    static bool trains(const ModelSpec& student, const Parameter& parameter);
    int64_t losses() const override { return 1 + teacher_.config().layers; }
    void accumulate(const TokenBatch& batch, int64_t cursor, double weight, GradientSink& gradients,
                    std::vector<double>& losses) override;

  private:
    /// Loss of one layer (fp64 scalar on the device), and its gradient with respect to the student's output.
    at::Tensor loss_and_gradient(const at::Tensor& teacher, const at::Tensor& student, double weight,
                                 at::Tensor& gradient) const;
    /// Adds the gradients of one layer's mixer; returns its loss.
    at::Tensor train_layer(const Block& block, int64_t layer, const at::Tensor& input, const at::Tensor& target,
                           const SequencePlaces& places, double weight, GradientSink& gradients) const;
    at::Tensor loss_by_kernel(const at::Tensor& teacher, const at::Tensor& student, double weight,
                              at::Tensor& gradient) const;

    CausalLM& student_;
    CausalLM& teacher_;
    AlignmentLoss loss_;
    ContextGroup* context_;
    std::vector<std::vector<Parameter*>> by_layer_;
};

}  // namespace amalgam
