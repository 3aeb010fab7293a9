// SPDX-License-Identifier: Apache-2.0
#include "stages/training_stage.h"

#include "system/clock.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

StageOutcome train_stage(Run& run, const std::string& stage, const Student& student, const CausalLM* teacher,
                         Objective& objective, const TrainingJob& plan, double flops_per_token) {
    const TokenFile& tokens = run.training_tokens();
    std::unique_ptr<Batches> batches;
    run.world.together(
        [&] { batches = std::make_unique<Batches>(tokens, plan.sequence_length, uint64_t(run.job.seed), stage); });
    TrainerSetup setup = run.trainer_setup(stage);
    setup.flops_per_token = flops_per_token;
    setup.shards = student.shards.get();
    setup.in_step = student.shards || (teacher && teacher->weights_on_demand());
    const TrainerOutcome outcome = train(*student.model, objective, plan, *batches, run.world, setup);
    const double last = outcome.step_losses.empty() ? 0.0 : outcome.step_losses.back();
    info(text(stage, ": ", outcome.steps, " steps, ", outcome.tokens, " tokens, last loss ", last, ", ",
              format_duration(outcome.seconds), " of training here",
              outcome.skipped_updates > 0 ? text(", ", outcome.skipped_updates, " updates skipped") : ""));
    return outcome.finished ? StageOutcome::finished : StageOutcome::stopped;
}

LinearOptions linear_options(const StudentJob& student, const ModelConfig& teacher) {
    LinearOptions options;
    options.short_convolution = student.short_convolution;
    options.output_gate = student.output_gate;
    options.output_norm = student.output_norm;
    options.activation = student.activation;
    options.rope = student.rope;
    options.norm_eps = student.output_norm_eps == OutputNormEps::reference ? 1e-5 : teacher.rms_norm_eps;
    return options;
}

namespace {

/// Of models with this linear mixer, if any.
ModelSizes sizes_of(const ModelConfig& c, const std::string& linear) {
    StudentJob student;
    if (!linear.empty()) student.mixer = linear;
    return {shape_of(c), student};
}

}  // namespace

double mixer_flops(const ModelConfig& c, const std::string& mixer, int64_t time) {
    const ModelSizes sizes = sizes_of(c, mixer == softmax_mixer ? "" : mixer);
    return mixer == softmax_mixer ? sizes.softmax_mixer_flops(double(time)) : sizes.linear_mixer_flops();
}

double forward_flops(const ModelConfig& c, const Layout& layout, int64_t time, bool with_head) {
    const ModelSizes sizes = sizes_of(c, linear_mixer(layout));
    const double blocks = sizes.block_flops(double(softmax_layers(layout).size()), double(time));
    return blocks + (with_head ? sizes.head_flops() : 0.0);
}

double distillation_flops(const ModelConfig& c, const Layout& layout, int64_t time) {
    return 3.0 * forward_flops(c, layout, time, true) + forward_flops(c, all_softmax(c.layers), time, true);
}

double known_states_flops(const ModelConfig& c, const Layout& layout, int64_t time) {
    return 3.0 * forward_flops(c, layout, time, true) + sizes_of(c, "").head_flops();
}

}  // namespace amalgam
