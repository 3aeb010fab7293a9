// SPDX-License-Identifier: Apache-2.0
#include "job/job_recipe.h"

#include <stdexcept>

#include "mixers/declaration.h"

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
        stage->optimizer.warmup_fraction = 0.0;
        stage->optimizer.learning_rate = 1e-4;
        stage->optimizer.learning_rate_rest = 7e-6;
    }
    job.select.rule = "kl_guided";
    job.align.optimizer.schedule = Schedule::cosine;
    job.align.loss = AlignmentLoss::norm;
    job.align.batch_sequences = 96;
    job.align.optimizer.learning_rate = job.align.optimizer.learning_rate_rest = 1e-3;
    job.finetune.optimizer.learning_rate = job.finetune.optimizer.learning_rate_rest = 1e-5;
}

void apply_variant(StudentJob& student) {
    const std::optional<FoundVariant> variant = find_variant(student.variant);
    if (!variant) throw std::logic_error("student.variant " + student.variant + " is of no mixer");
    student.mixer = variant->mixer->name();
    student.options = variant->options;
}

void apply_mixer(StudentJob& student) {
    if (find_variant(student.variant)->mixer->name() == student.mixer) return;
    student.options = default_values(find_mixer(student.mixer).options());
}

StudentJob::StudentJob() {
    apply_variant(*this);
}

}  // namespace amalgam
