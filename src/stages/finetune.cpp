// SPDX-License-Identifier: Apache-2.0
// Finetune: a little next-token training, usually at a longer context.
#include "stages/training_stage.h"

namespace amalgam {

StageOutcome finetune(Run& run) {
    const auto distilled = run.newest_student();
    auto student = run.make_student(distilled->spec().layout, {distilled.get()}, run.world);
    NextToken objective(*student, run.job.finetune.loss_chunk_tokens);
    const double flops =
        3.0 * forward_flops(student->config(), student->spec().layout, run.job.finetune.sequence_length, true);
    return train_stage(run, "finetune", *student, objective, run.job.finetune, flops);
}

}  // namespace amalgam
