// SPDX-License-Identifier: Apache-2.0
// Finetune: a little next-token training, usually at a longer context.
#include "objectives/distillation.h"
#include "stages/training_stage.h"

namespace amalgam {

StageOutcome finetune(Run& run) {
    const auto distilled = run.newest_student();
    const Layout& layout = distilled->spec().layout;
    const ShardingStrategy sharding = run.sharding("finetune", run.world.size());
    const auto flops = [spec = run.student_spec(layout)](int64_t time) {
        return 3.0 * forward_flops(spec, time, true);
    };
    return train_stage(run, "finetune", nullptr, run.job.finetune, flops, [&] {
        Trainee made{run.make_student(layout, {distilled.get()}, run.world, sharding), nullptr};
        made.objective = std::make_unique<NextToken>(*made.student.model, run.job.finetune.loss_chunk_tokens,
                                                     run.job.sharding.activations, run.context());
        return made;
    });
}

}  // namespace amalgam
