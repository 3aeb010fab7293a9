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
    const Student student = run.make_student(layout, {aligned.get(), &run.teacher_source()}, run.world, sharding);
    TeacherStates states(teacher, 0);
    Distillation objective(*student.model, states, run.job.distill, run.job.sharding.activations);
    const double flops = distillation_flops(student.model->spec(), run.job.distill.sequence_length);
    return train_stage(run, "distill", student, &teacher, objective, run.job.distill, flops);
}

}  // namespace amalgam
