// SPDX-License-Identifier: Apache-2.0
#include "job/job_recipe.h"

namespace amalgam {

void apply_recipe(Job& job) {
    if (job.recipe != Recipe::reference) return;
    job.student.key_value_expansion = KeyValueExpansion::per_row;
    job.student.output_norm_eps = OutputNormEps::reference;
    for (TrainingJob* stage : {static_cast<TrainingJob*>(&job.align), static_cast<TrainingJob*>(&job.score),
                               static_cast<TrainingJob*>(&job.distill), static_cast<TrainingJob*>(&job.finetune)}) {
        stage->optimizer.weight_decay = 0.01;
        stage->optimizer.schedule = Schedule::constant;
        stage->optimizer.final_fraction = 0.0;
        stage->optimizer.warmup_steps = 0;
    }
    job.align.optimizer.schedule = Schedule::cosine;
    job.align.loss = AlignmentLoss::norm;
}

void apply_variant(StudentJob& student) {
    const std::string& variant = student.variant;
    const bool bare = variant == "gdn_v6", linear_attention = variant == "gla_v1";
    student.mixer = linear_attention ? "gated_linear_attention" : "gated_delta_net";
    student.short_convolution = variant == "gdn_v1" || variant == "gdn_v3";
    student.output_gate = variant == "gdn_v3" || variant == "gdn_v4" || linear_attention;
    student.output_norm = !bare;
    student.activation = !bare && !linear_attention;
}

}  // namespace amalgam
