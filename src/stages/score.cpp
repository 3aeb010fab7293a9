// SPDX-License-Identifier: Apache-2.0
// Score: measures the candidates that the job's selection rule chooses by (selection/race.h). Those that are distilled
// all have the same learning rates, which are found before them.
#include "job/training_plan.h"
#include "objectives/distillation.h"
#include "rules/race_option.h"
#include "selection/gate_training.h"
#include "selection/race.h"
#include "stages/training_stage.h"

namespace amalgam {

namespace {

/// One setting for all candidates: the rates that suit the student which all of them come from. Nothing if a stop was
/// asked for before. Collective.
std::optional<OptimizerJob> rates_of_candidates(Run& run, const Scorer& scorer, const RaceGroups& groups,
                                                const CausalLM& teacher, const Checkpoint& all_linear,
                                                ShardingStrategy sharding) {
    TeacherStates trial_states(teacher, 0);
    return find_learning_rates(
        run, {.stage = "score",
              .job = run.job.score,
              .candidates = scorer.count({run.teacher_config().layers, run.job.student.mixer}),
              .group = groups.group,
              .runs_trials = groups.mine == 0,
              .context = run.context(),
              .teacher = &teacher,
              .make = [&] {
                  const Layout layout = amalgam::all_linear(run.teacher_config().layers, run.job.student.mixer);
                  Trainee made{run.make_student(layout, {&all_linear}, groups.group, sharding), nullptr};
                  made.objective = std::make_unique<Distillation>(*made.student.model, trial_states, run.job.score,
                                                                  run.job.sharding.activations, run.context());
                  return made;
              }});
}

/// What candidates that are not distilled are asked; null: nothing. Collective.
std::unique_ptr<RecallQuestions> questions_of_candidates(Run& run) {
    if (run.job.score.recall.questions == 0) return nullptr;
    const TokenFile& text = run.validation_tokens();
    std::unique_ptr<RecallQuestions> questions;
    run.world.together([&] {
        const std::string section = "score.recall";
        questions = std::make_unique<RecallQuestions>(
            run.job.score.recall, read_recall_wording(run.job.data.validation, run.job.score.recall, section), text,
            section);
    });
    return questions;
}

/// Standard errors by which candidates of the job's rule have to be worse than the best one to leave early; 0: they do
/// not race.
double race_errors_of_rule(const SelectJob& select) {
    for (const Option& own : selection_rule(select.rule).options)
        if (own == race_option()) return race_errors(select.options);
    return 0.0;
}

/// Nothing if a stop was asked for before the end. Collective.
std::optional<GateCourse> trained_gates(Run& run, const Communicator& group, const CausalLM& teacher,
                                        const Checkpoint& all_linear, ShardingStrategy sharding) {
    const ScoreJob& job = run.job.score;
    const TokenFile& text = run.training_tokens();
    std::unique_ptr<GateBatches> batches;
    run.world.together([&] {
        RecallWording wording;
        if (job.recall.questions > 0)
            wording = read_recall_wording(run.job.data.validation, job.recall, "score.recall");
        batches = std::make_unique<GateBatches>(text, job, wording, run.job.seed);
    });
    const Layout layout = amalgam::all_linear(run.teacher_config().layers, run.job.student.mixer);
    const Student aligned = run.make_student(layout, {&all_linear}, group, sharding);
    const std::filesystem::path file = run.candidate_file(0).parent_path() / "gates.h5";
    return train_gates({.job = job,
                        .world = run.world,
                        .context = run.context(),
                        .teacher = teacher,
                        .aligned = *aligned.model,
                        .batches = *batches,
                        .activations = run.job.sharding.activations,
                        .file = file,
                        .save_every_steps = run.job.checkpoint.every_steps,
                        .log_every_steps = run.job.log_every_steps,
                        .provenance = run.provenance(),
                        .stop = run.stop});
}

}  // namespace

StageOutcome score(Run& run) {
    const Scorer& scorer = *selection_rule(run.job.select.rule).scorer;
    const int64_t layers = run.teacher_config().layers;
    ScoreJob job = run.job.score;
    const RaceGroups groups = race_groups(run.world, ranks_per_candidate(run.job));
    const Communicator& group = groups.group;

    // Most of this is collective, so the order counts.
    HeldOutSet held_out = run.held_out(job.validation_sequences, job.sequence_length);
    const ShardingStrategy sharding = run.sharding("score", groups.size);
    const CausalLM& teacher = run.teacher(sharding, group);
    std::unique_ptr<Checkpoint> all_linear = run.all_linear();
    std::unique_ptr<Batches> batches;
    std::unique_ptr<RecallQuestions> questions;
    ScoresSoFar start = {.layers = layers, .mixer = run.job.student.mixer, .options = run.job.select.options};
    std::optional<GateCourse> gates;
    if (scorer.trains_gates) {
        gates = trained_gates(run, group, teacher, *all_linear, sharding);
        if (!gates) return StageOutcome::stopped;
        start.order_of_gates = gates->order();
    }
    if (scorer.distils) {
        const auto optimizer = rates_of_candidates(run, scorer, groups, teacher, *all_linear, sharding);
        if (!optimizer) return StageOutcome::stopped;
        job.optimizer = *optimizer;
        run.training_tokens();
        run.world.together([&] { batches = std::make_unique<Batches>(run.batches("score", job, "score")); });
    } else {
        questions = questions_of_candidates(run);
    }
    TrainerSetup trainer = run.trainer_setup("score");
    trainer.peak_flops = run.compute.peak_flops * group.size();
    const auto measurement = make_measurement(
        scorer,
        {.job = job,
         .mixer = run.job.student.mixer,
         .world = run.world,
         .node = run.node,
         .group = group,
         .context = run.context(),
         .teacher = teacher,
         .teacher_weights = run.teacher_source(),
         .all_linear = std::move(all_linear),
         .held_out = std::move(held_out),
         .questions = std::move(questions),
         .race_errors = race_errors_of_rule(run.job.select),
         .batches = std::move(batches),
         .activations = run.job.sharding.activations,
         .trainer = trainer,
         .candidate_file = [&](int64_t number) { return run.candidate_file(number); },
         .make_student =
             [&](const Layout& layout, const std::vector<const TensorSource*>& sources) {
                 return run.make_student(layout, sources, group, sharding);
             },
         .flops_per_token = [](const ModelSpec& spec, int64_t length) { return known_states_flops(spec, length); },
         .candidates_that_fit =
             [&](int64_t candidates) {
                 return candidates_that_fit(run.estimate("score"), sharding, run.memory(), candidates);
             }});

    const RaceSetup setup = {.rule = selection_rule(run.job.select.rule),
                             .start = start,
                             .gates = gates,
                             .races = race_errors_of_rule(run.job.select) > 0.0,
                             .world = run.world,
                             .groups = groups,
                             .candidate_file = [&](int64_t number) { return run.candidate_file(number); },
                             .scores_file = run.scores_file(),
                             .provenance = run.provenance(),
                             .metrics = run.metrics(),
                             .stop = run.stop};
    return race(setup, *measurement) ? StageOutcome::finished : StageOutcome::stopped;
}

}  // namespace amalgam
