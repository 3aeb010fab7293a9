// SPDX-License-Identifier: Apache-2.0
#include "stages/training_stage.h"

#include "estimate/model_sizes.h"
#include "job/training_plan.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

StageOutcome train_stage(Run& run, const std::string& stage, const CausalLM* teacher, const TrainingJob& job,
                         const std::function<double(int64_t time)>& flops_per_token,
                         const std::function<Trainee()>& make) {
    const auto optimizer = find_learning_rates(
        run,
        {.stage = stage, .job = job, .group = run.world, .context = run.context(), .teacher = teacher, .make = make});
    if (!optimizer) return StageOutcome::stopped;
    TrainingJob with_rates = job;
    with_rates.optimizer = *optimizer;
    const Trainee trainee = make();
    run.training_tokens();
    std::unique_ptr<Batches> batches;
    run.world.together([&] { batches = std::make_unique<Batches>(run.batches(stage, with_rates, stage)); });
    TrainerSetup setup = run.trainer_setup(stage);
    setup.flops_per_token = flops_per_token;
    setup.context = run.context();
    setup.shards = trainee.student.shards.get();
    setup.in_step = trainee.student.shards || (teacher && teacher->weights_on_demand());
    const TrainerOutcome outcome =
        train(*trainee.student.model, *trainee.objective, with_rates, *batches, run.world, setup);
    if (training_steps(job) == 0) {
        info(text(stage, ": skipped (", stage, ".tokens is ", job.tokens,
                  "): the student is kept as it was put together"));
        return StageOutcome::finished;
    }
    const double last = outcome.step_losses.empty() ? 0.0 : outcome.step_losses.back();
    info(text(stage, ": ", outcome.steps, " steps, ", outcome.tokens, " tokens, last loss ", last, ", ",
              format_duration(outcome.seconds), " of training here",
              outcome.skipped_updates > 0 ? text(", ", outcome.skipped_updates, " updates skipped") : ""));
    return outcome.finished ? StageOutcome::finished : StageOutcome::stopped;
}

namespace {

ModelSizes sizes_of(const ModelSpec& spec) {
    const std::string linear = linear_mixer(spec.layout);
    return {spec.config, linear.empty() ? softmax_mixer : linear, spec.options};
}

ModelSpec teacher_of(const ModelSpec& student) {
    return {student.config, all_softmax(student.config.layers), {}};
}

}  // namespace

double forward_flops(const ModelSpec& spec, int64_t time, bool with_head) {
    const ModelSizes sizes = sizes_of(spec);
    const double blocks = sizes.block_flops(double(softmax_layers(spec.layout).size()), double(time));
    return blocks + (with_head ? sizes.head_flops() : 0.0);
}

double alignment_flops(const ModelSpec& student, int64_t time) {
    return forward_flops(teacher_of(student), time, false) +
           3.0 * double(student.config.layers) * sizes_of(student).linear_mixer_flops(double(time));
}

double distillation_flops(const ModelSpec& student, int64_t time) {
    return 3.0 * forward_flops(student, time, true) + forward_flops(teacher_of(student), time, true);
}

double known_states_flops(const ModelSpec& student, int64_t time) {
    return 3.0 * forward_flops(student, time, true) + sizes_of(student).head_flops();
}

}  // namespace amalgam
