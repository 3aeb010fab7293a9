// SPDX-License-Identifier: Apache-2.0
#include "stages/learning_rate_race.h"

#include <exception>
#include <limits>

#include "evaluation/statistics.h"
#include "job/training_plan.h"
#include "stages/learning_rate_file.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {
namespace {

std::string words(const AutomaticRates& automatic, const LearningRates& rates) {
    std::string mixers = automatic.mixers ? text(rates.mixers) : "", rest = automatic.rest ? text(rates.rest) : "";
    if (!automatic.rest) return mixers;
    if (!automatic.mixers) return rest + " (rest)";
    return text(mixers, " (mixers) and ", rest, " (rest)");
}

class Race {
  public:
    Race(Run& run, const LearningRateRace& race)
        : run_(run),
          race_(race),
          automatic_(automatic_rates(race.stage, race.job.optimizer)),
          plan_(trial_plan(race.stage, race.job, race.candidates, run.training_tokens().size())) {}

    std::optional<OptimizerJob> find() {
        OptimizerJob optimizer = race_.job.optimizer;
        if (automatic_.any() && race_.job.tokens > 0) {
            resume();
            if (!record_.chosen && !run_trials()) return std::nullopt;
            info(text(race_.stage, ": learning rate ", words(automatic_, *record_.chosen), ", ", reason()));
            fill(optimizer, *record_.chosen);
        }
        // Align has one group of parameters.
        if (!optimizer.learning_rate_rest) optimizer.learning_rate_rest = optimizer.learning_rate;
        return optimizer;
    }

  private:
    /// The record of the run folder, or a new one. The root reads it: thousands of ranks would open the same file.
    void resume() {
        record_.stage = race_.stage;
        record_.rule = rule_of_thumb(race_.stage, run_.teacher_config().hidden_size);
        if (plan_) {
            record_.sequence_length = TrainingPlan(plan_->training).block_length();
            record_.trained_steps = plan_->trained_steps();
            record_.measured_steps = plan_->measured_steps;
        }
        bool is_there = false;
        run_.world.on_root([&] {
            is_there = std::filesystem::exists(file());
            if (!is_there) return;
            const LearningRateRecord found = read_learning_rates(file());
            const bool fits = found.chosen || (found.measured_steps == record_.measured_steps &&
                                               found.trained_steps == record_.trained_steps);
            if (found.stage != record_.stage || !fits)
                throw Error(text(file().string(),
                                 ": is of another stage or of another race (its trials do not compare "
                                 "with new ones); remove it to run the race again"),
                            ExitCode::damaged_file);
            record_ = found;
        });
        if (run_.world.broadcast(int64_t{is_there}) == 0) return;
        std::vector<double> numbers = {
            record_.rule.mixers,           record_.rule.rest, not_chosen, not_chosen, double(record_.trials.size()),
            double(record_.measured_steps)};
        if (record_.chosen) numbers[2] = record_.chosen->mixers, numbers[3] = record_.chosen->rest;
        run_.world.broadcast(std::span<double>(numbers));
        record_.rule = {numbers[0], numbers[1]};
        if (numbers[2] != not_chosen) record_.chosen = LearningRates{numbers[2], numbers[3]};
        record_.trials.resize(size_t(numbers[4]));
        record_.measured_steps = int64_t(numbers[5]);
        for (RateTrial& trial : record_.trials) share(trial);
        if (!record_.chosen)
            info(text(race_.stage, ": learning rates: ", record_.trials.size(), " trials were done before"));
    }

    /// The root's.
    void share(RateTrial& trial) const {
        for (int64_t& steps : trial.position) steps = run_.world.broadcast(steps);
        trial.losses.resize(size_t(record_.measured_steps));
        run_.world.broadcast(std::span<double>(trial.losses));
    }

    bool run_trials() {
        if (!plan_) {
            choose(record_.rule);
            return true;
        }
        info(text(race_.stage, ": race of learning rates: at most ", plan_->most_trials, " trials of ",
                  record_.trained_steps, " steps of ", batches_in_words(TrainingPlan(plan_->training)),
                  " tokens, measured on ", record_.measured_steps, " batches; ",
                  100.0 * plan_->most_tokens() / (double(race_.job.tokens) * double(race_.candidates)),
                  " % of the stage's tokens"));
        while (const auto position = next_trial(automatic_, record_.trials)) {
            RateTrial trial{*position, std::vector<double>(size_t(record_.measured_steps), not_finite), 0.0};
            if (!run_trial(trial)) return false;
            share(trial);
            record_.trials.push_back(trial);
            say(trial);
            save();
            if (run_.world.any(run_.stop.stopping())) return false;
        }
        choose(rates_at(record_.rule, best_trial(automatic_, record_.trials)));
        return true;
    }

    void choose(const LearningRates& rates) {
        record_.chosen = rates;
        save();
    }

    /// False if a stop was asked for. A rank that fails must not leave the other groups waiting.
    bool run_trial(RateTrial& trial) {
        bool stopped = false;
        std::exception_ptr failure;
        try {
            if (race_.runs_trials) stopped = !train_and_measure(trial);
        } catch (const SharedError& error) {
            if (error.code() != ExitCode::diverged) failure = std::current_exception();
        } catch (...) {
            if (race_.group.size() > 1) throw;  // the others of the group wait for this rank: the job has to be ended
            failure = std::current_exception();
        }
        run_.world.together([&] {
            if (failure) std::rethrow_exception(failure);
        });
        return !run_.world.any(stopped);
    }

    bool train_and_measure(RateTrial& trial) {
        fault_point("learning_rates.trial", int64_t(record_.trials.size()));
        const Stopwatch watch;
        TrainingJob job = plan_->training;
        fill(job.optimizer, rates_at(record_.rule, trial.position));
        if (!job.optimizer.learning_rate_rest) job.optimizer.learning_rate_rest = job.optimizer.learning_rate;
        const Trainee trainee = race_.make();
        const Batches batches = run_.batches(race_.stage, job, race_.stage + " learning rates");
        TrainerSetup setup = run_.trainer_setup(race_.stage + ".trial");
        setup.checkpoints.reset();
        setup.metrics = nullptr;
        setup.announce = false;
        setup.spike_guard = 0.0;
        setup.max_skipped_updates = 0;  // one update that is not finite is enough
        setup.shards = trainee.student.shards.get();
        setup.in_step = trainee.student.shards || (race_.teacher && race_.teacher->weights_on_demand());
        setup.context = race_.context;
        setup.measured_steps = record_.measured_steps;
        const TrainerOutcome outcome =
            train(*trainee.student.model, *trainee.objective, job, batches, race_.group, setup);
        if (!outcome.finished) return false;
        trial.losses.assign(outcome.step_losses.end() - std::ptrdiff_t(record_.measured_steps),
                            outcome.step_losses.end());
        trial.seconds = watch.seconds();
        return true;
    }

    void fill(OptimizerJob& optimizer, const LearningRates& rates) const {
        if (automatic_.mixers) optimizer.learning_rate = rates.mixers;
        if (automatic_.rest) optimizer.learning_rate_rest = rates.rest;
    }

    void say(const RateTrial& trial) const {
        const auto loss = mean_and_error(trial.losses);
        info(text(race_.stage, ": learning rate ", words(automatic_, rates_at(record_.rule, trial.position)), ": ",
                  is_finite(trial) ? text("held-out loss ", loss.mean, plus_minus(loss.standard_error, 6))
                                   : std::string("diverged"),
                  " (", format_duration(trial.seconds), ")"));
    }

    std::string reason() const {
        if (race_.job.optimizer.race_fraction == 0.0) return "by the rule of thumb";
        if (record_.trials.empty()) return "by the rule of thumb (the stage is too short for a race)";
        const RatePosition best = best_trial(automatic_, record_.trials);
        for (const RateTrial& trial : record_.trials)
            if (trial.position == best && !is_finite(trial))
                return "the lowest that was tried, though no trial ended with finite losses";
        return text("chosen from ", record_.trials.size(),
                    " trials, where one has to be better by more than its error; the rule of thumb says ",
                    words(automatic_, record_.rule));
    }

    void save() const {
        run_.world.on_root([&] { write_learning_rates(file(), record_, run_.provenance()); });
    }

    std::filesystem::path file() const { return run_.learning_rates_file(race_.stage); }

    static constexpr double not_finite = std::numeric_limits<double>::quiet_NaN(), not_chosen = -1.0;

    Run& run_;
    const LearningRateRace& race_;
    const AutomaticRates automatic_;
    const std::optional<TrialPlan> plan_;
    LearningRateRecord record_;
};

}  // namespace

std::optional<OptimizerJob> find_learning_rates(Run& run, const LearningRateRace& race) {
    return Race(run, race).find();
}

}  // namespace amalgam
