// SPDX-License-Identifier: Apache-2.0
// Align: every linear mixer is fitted to the teacher's attention output on the teacher's own hidden states.
#include "stages/training_stage.h"
#include "training/alignment.h"

namespace amalgam {

StageOutcome align(Run& run) {
    CausalLM& teacher = run.teacher();
    const ModelConfig& config = teacher.config();
    std::unique_ptr<Checkpoint> transferred;
    run.world.together([&] { transferred = run.checkpoints("transfer").open(run.checkpoints("transfer").finished()); });
    auto student = run.make_student(all_linear(config.layers, run.job.student.mixer), {transferred.get()}, run.world);
    Alignment objective(*student, teacher, parse_alignment_loss(run.job.align.loss));
    const int64_t time = run.job.align.sequence_length;
    const double flops = forward_flops(config, teacher.spec().layout, time, false) +
                         3.0 * double(config.layers) * mixer_flops(config, run.job.student.mixer, time);
    return train_stage(run, "align", *student, objective, run.job.align, flops);
}

}  // namespace amalgam
