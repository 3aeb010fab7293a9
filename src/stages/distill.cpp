// SPDX-License-Identifier: Apache-2.0
// Distill: the selected hybrid, from the aligned linear layers and the teacher's softmax layers, all parameters
// trained.
#include "stages/training_stage.h"

namespace amalgam {

StageOutcome distill(Run& run) {
    CausalLM& teacher = run.teacher();
    const auto aligned = run.all_linear();
    const Layout layout = run.selected_layout();
    auto student = run.make_student(layout, {aligned.get(), &run.teacher_source()}, run.world);
    TeacherStates states(teacher, 0);
    Distillation objective(*student, states, run.job.distill);
    const double flops = distillation_flops(teacher.config(), layout, run.job.distill.sequence_length);
    return train_stage(run, "distill", *student, objective, run.job.distill, flops);
}

}  // namespace amalgam
