// SPDX-License-Identifier: Apache-2.0
// Align: every linear mixer is fitted to the teacher's attention output on the teacher's own hidden states.
#include "objectives/alignment.h"
#include "stages/training_stage.h"

namespace amalgam {

StageOutcome align(Run& run) {
    const ModelSpec spec = run.student_spec(all_linear(run.teacher_config().layers, run.job.student.mixer));
    const auto is_trained = [&](const Parameter& p) { return Alignment::trains(spec, p); };
    const ShardingStrategy sharding = run.sharding("align", run.world.size());
    CausalLM& teacher = run.teacher(sharding, run.world);
    std::unique_ptr<Checkpoint> transferred;
    run.world.together([&] { transferred = run.checkpoints("transfer").open(run.checkpoints("transfer").finished()); });
    const auto flops = [&](int64_t time) { return alignment_flops(spec, time); };
    return train_stage(run, "align", &teacher, run.job.align, flops, [&] {
        Trainee made{run.make_student(spec.layout, {transferred.get()}, run.world, sharding, is_trained), nullptr};
        made.objective = std::make_unique<Alignment>(*made.student.model, teacher, run.job.align.loss, run.context());
        return made;
    });
}

}  // namespace amalgam
