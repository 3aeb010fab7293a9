// SPDX-License-Identifier: Apache-2.0
// What align, distill and finetune have in common: batches of their own order, the trainer over all ranks, their
// checkpoints.
#pragma once

#include "estimate/model_sizes.h"
#include "stages/stages.h"

namespace amalgam {

/// `teacher`: of the objective, or null.
StageOutcome train_stage(Run& run, const std::string& stage, const Student& student, const CausalLM* teacher,
                         Objective& objective, const TrainingJob& plan, double flops_per_token);

/// The linear mixers of a student, as the job wants them.
LinearOptions linear_options(const StudentJob& student, const ModelConfig& teacher);

/// Floating-point operations of a forward pass over one token of a sequence of `time` tokens: 2 for each multiplication
/// with a weight, plus the attention products (job/model_sizes.h). Training costs three times that.
double mixer_flops(const ModelConfig& config, const std::string& mixer, int64_t time);
double forward_flops(const ModelConfig& config, const Layout& layout, int64_t time, bool with_head);

/// Of one distillation step, for one token: the student trained, the softmax teacher forward.
double distillation_flops(const ModelConfig& config, const Layout& layout, int64_t time);
/// The same where the teacher's states are known from before: only its head is computed.
double known_states_flops(const ModelConfig& config, const Layout& layout, int64_t time);

}  // namespace amalgam
