// SPDX-License-Identifier: Apache-2.0
// What align, distill and finetune have in common: learning rates that are found first, batches of their own order, the
// trainer over all ranks, their checkpoints.
#pragma once

#include "stages/learning_rate_race.h"
#include "stages/stages.h"

namespace amalgam {

/// `teacher`: of the objective, or null. `flops_per_token`: of a sequence of so many. `make` gives the student where
/// the stage begins, as often as asked.
StageOutcome train_stage(Run& run, const std::string& stage, const CausalLM* teacher, const TrainingJob& job,
                         const std::function<double(int64_t time)>& flops_per_token,
                         const std::function<Trainee()>& make);

/// Floating-point operations of a forward pass over one token of a sequence of `time` tokens (estimate/model_sizes.h).
/// Training costs three times that.
double forward_flops(const ModelSpec& spec, int64_t time, bool with_head);

/// Of one alignment step, for one token: the teacher's blocks forward, the mixers of the all-linear student trained.
double alignment_flops(const ModelSpec& student, int64_t time);
/// Of one distillation step, for one token: the student trained, the softmax teacher forward.
double distillation_flops(const ModelSpec& student, int64_t time);
/// The same where the teacher's states are known from before: only its head is computed.
double known_states_flops(const ModelSpec& student, int64_t time);

}  // namespace amalgam
