// SPDX-License-Identifier: Apache-2.0
// Distill: the selected hybrid, from the aligned linear layers and the teacher's softmax layers, all parameters
// trained.
#include "objectives/distillation.h"
#include "stages/training_stage.h"

namespace amalgam {

StageOutcome distill(Run& run) {
    const auto aligned = run.all_linear();
    const Layout layout = run.selected_layout();
    expect_exportable(run, layout);
    const ShardingStrategy sharding = run.sharding("distill", run.world.size());
    CausalLM& teacher = run.teacher(sharding, run.world);
    TeacherStates states(teacher, 0);
    const auto flops = [spec = run.student_spec(layout)](int64_t time) { return distillation_flops(spec, time); };
    return train_stage(run, "distill", &teacher, run.job.distill, flops, [&] {
        Trainee made{run.make_student(layout, {aligned.get(), &run.teacher_source()}, run.world, sharding), nullptr};
        made.objective = std::make_unique<Distillation>(*made.student.model, states, run.job.distill,
                                                        run.job.sharding.activations, run.context());
        return made;
    });
}

}  // namespace amalgam
