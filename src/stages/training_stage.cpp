// SPDX-License-Identifier: Apache-2.0
#include "stages/training_stage.h"

#include "system/clock.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

StageOutcome train_stage(Run& run, const std::string& stage, CausalLM& student, Objective& objective,
                         const TrainingJob& plan, double flops_per_token) {
    const TokenFile& tokens = run.training_tokens();
    std::unique_ptr<Batches> batches;
    run.world.together(
        [&] { batches = std::make_unique<Batches>(tokens, plan.sequence_length, uint64_t(run.job.seed), stage); });
    TrainerSetup setup = run.trainer_setup(stage);
    setup.flops_per_token = flops_per_token;
    const TrainerOutcome outcome = train(student, objective, plan, *batches, run.world, setup);
    const double last = outcome.step_losses.empty() ? 0.0 : outcome.step_losses.back();
    info(text(stage, ": ", outcome.steps, " steps, ", outcome.tokens, " tokens, last loss ", last, ", ",
              format_duration(outcome.seconds), " of training here",
              outcome.skipped_updates > 0 ? text(", ", outcome.skipped_updates, " updates skipped") : ""));
    return outcome.finished ? StageOutcome::finished : StageOutcome::stopped;
}

double mixer_flops(const ModelConfig& c, const std::string& mixer, int64_t time) {
    const double heads = double(c.query_heads), dim = double(c.head_dim), width = heads * dim,
                 hidden = double(c.hidden_size);
    if (mixer == softmax_mixer) {
        const double projections = 2.0 * hidden * (2.0 * width + 2.0 * double(c.key_value_heads) * dim);
        return projections + 2.0 * width * double(time);  // QK^T and PV over half of the positions in the mean
    }
    const double projections = 2.0 * hidden * (5.0 * width + 2.0 * heads);
    return projections + heads * (6.0 * dim * dim + 4.0 * 64.0 * 2.0 * dim);  // chunk form B, chunks of 64
}

double forward_flops(const ModelConfig& c, const Layout& layout, int64_t time, bool with_head) {
    double flops = with_head ? 2.0 * double(c.hidden_size) * double(c.vocabulary_size) : 0.0;
    for (const std::string& mixer : layout)
        flops += mixer_flops(c, mixer, time) + 6.0 * double(c.hidden_size * c.intermediate_size);
    return flops;
}

double distillation_flops(const ModelConfig& c, const Layout& layout, int64_t time) {
    return 3.0 * forward_flops(c, layout, time, true) + forward_flops(c, all_softmax(c.layers), time, true);
}

}  // namespace amalgam
