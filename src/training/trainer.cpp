// SPDX-License-Identifier: Apache-2.0
#include "training/trainer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "checkpoints/checkpoint_saver.h"
#include "job/training_plan.h"
#include "operations/kernel_views.h"
#include "optimizer/adamw.h"
#include "optimizer/trained_weights.h"
#include "optimizer/update_guard.h"
#include "system/activity.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {

class Trainer::Loop {
  public:
    Loop(CausalLM& model, Objective& objective, const TrainingJob& job, const Batches& batches,
         const Communicator& group, const TrainerSetup& setup)
        : model_(model),
          objective_(objective),
          optimizer_(job.optimizer),
          plan_(job),
          batches_(batches),
          group_(group),
          setup_(setup),
          ranks_(group, setup.context),
          parameters_(objective.trained()),
          weights_(make_trained_weights(model, setup.shards, parameters_, group,
                                        {optimizer_, setup.deterministic, most_micro_batches() * ranks_.pieces()})),
          steps_(plan_.steps()),
          guard_(setup.spike_guard, setup.max_skipped_updates, steps_) {
        if (setup.checkpoints) saver_ = std::make_unique<CheckpointSaver>(*setup.checkpoints, setup.checkpoint, group);
    }

    void start() {
        resume();
        first_step_ = step_;
        if (setup_.on_step) setup_.on_step(step_);
    }

    bool is_done() const { return stopped_ || step_ >= steps_; }

    void step() {
        const PlannedPhase& phase = plan_.phase_of_step(step_);
        if (&phase != in_phase_.phase) begin_phase(phase);
        const Stopwatch watch;
        const std::vector<double> losses = one_step(phase);
        const double seconds = watch.seconds();
        in_phase_.seconds += seconds;
        ++in_phase_.steps;
        outcome_.seconds += seconds;
        outcome_.step_losses.push_back(losses[0]);
        if (step_ % setup_.log_every_steps == 0 || step_ == steps_ || step_ == first_step_ + 1) report(losses);
        if (setup_.on_step) setup_.on_step(step_);
        stopped_ = handle_requests(watch.seconds());
    }

    const TrainerOutcome& outcome() const { return outcome_; }

    double next_step_cost() const {
        const auto cost = [&](int64_t step) {
            const PlannedPhase& phase = plan_.phase_of_step(step);
            return double(phase.step_tokens()) * cost_of_token(phase.sequence_length);
        };
        return step_ == 0 ? 1.0 : cost(step_) / cost(step_ - 1);
    }

    void save_to_go_on() {
        saver_->save_now(header(true), weights_->pieces(true));
        stopped_ = true;
    }

    TrainerOutcome finish() {
        if (!stopped_ && saver_ && !setup_.only_on_the_way) {
            expect_finite_result();
            saver_->save_finished(header(false), weights_->pieces(false));
        }
        outcome_.finished = !stopped_;
        outcome_.steps = step_;
        outcome_.tokens = tokens();
        outcome_.skipped_updates = guard_.skipped();
        outcome_.seconds_waited = weights_->seconds_waited();
        return outcome_;
    }

  private:
    void resume() {
        if (!setup_.checkpoints) return;
        std::string latest;  // the root looks, so that all ranks start from the same step
        group_.on_root([&] { latest = setup_.checkpoints->latest().value_or("").string(); });
        latest = group_.broadcast(latest);
        if (latest.empty()) return;
        std::unique_ptr<Checkpoint> checkpoint;
        group_.together([&] {
            checkpoint = setup_.checkpoints->open(latest);
            require(checkpoint->optimizer_steps().has_value(), latest,
                    ": holds no optimizer state (training cannot go on from it)");
        });
        weights_->load(*checkpoint);
        step_ = checkpoint->state().step;
        cursor_ = checkpoint->state().data_cursor;
        guard_.resume(checkpoint->state().update_guard);
        outcome_.resumed_at = step_;
        if (!setup_.candidate) info(text(setup_.stage, ": goes on from step ", step_, " (", latest, ")"));
    }

    /// What is measured of a phase begins anew with it.
    void begin_phase(const PlannedPhase& phase) {
        in_phase_ = {.phase = &phase};
        if (step_ == phase.first_step) guard_.forget_losses();
        if (plan_.phases().size() == 1 || !setup_.announce || !group_.is_root()) return;
        log_rank(LogLevel::info, text(setup_.stage, setup_.candidate ? text(" candidate ", *setup_.candidate) : "",
                                      ": phase ", &phase - plan_.phases().data() + 1, " of ", plan_.phases().size(),
                                      ", steps ", phase.first_step + 1, " to ", phase.first_step + phase.steps, ", of ",
                                      phase.batch_sequences, " x ", phase.sequence_length, " tokens"));
    }

    std::vector<double> one_step(const PlannedPhase& phase) {
        const InPhase activity(Phase::step, step_, setup_.candidate.value_or(-1));
        fault_point(setup_.stage + ".step", step_);
        begin_batch(phase);
        const int64_t all = micro_batches_of(phase), sharers = ranks_.sharers();
        SumsOfPieces parts(all, objective_.losses(), ranks_);
        const auto [begin, end] = own_micro_batches(phase);
        for (int64_t m = begin; m < end; ++m) {
            const std::vector<double> row = accumulate(phase, m);
            std::copy(row.begin(), row.end(), parts.of(m).begin());
        }
        const int64_t most = (all + sharers - 1) / sharers;
        for (int64_t m = end; setup_.in_step && m < begin + most; ++m) accumulate(phase, cursor_ + m, 0);
        weights_->reduce();
        const std::vector<double> rows = parts.total();
        std::vector<double> losses(size_t(objective_.losses()), 0.0);
        for (size_t i = 0; i < rows.size(); ++i) losses[i % losses.size()] += rows[i];
        update(losses);
        ++step_;
        cursor_ += phase.batch_sequences;
        return losses;
    }

    /// Weights that the last update left may be finite and what the model computes from them not. So the result is
    /// tried out before it gets its name: each rank computes one micro-batch of the step that would come next.
    void expect_finite_result() {
        const InPhase trial(Phase::step, step_, setup_.candidate.value_or(-1));
        const PlannedPhase& phase = plan_.phase_of_step(step_);
        begin_batch(phase);
        const auto [begin, end] = own_micro_batches(phase);
        double loss[1] = {0.0};
        if (begin < end)
            loss[0] = accumulate(phase, begin)[0];
        else if (setup_.in_step)
            accumulate(phase, cursor_ + begin, 0);
        weights_->reduce();
        group_.sum_in_place(std::span<double>(loss));
        group_.together([&] {
            if (std::isfinite(loss[0])) return;
            throw Error(text(setup_.stage, ": the trained model computes a loss of ", loss[0],
                             " (the training diverged; its result is not kept)", advice()),
                        ExitCode::diverged);
        });
    }

    void begin_batch(const PlannedPhase& phase) {
        weights_->begin_step();
        counted_ = objective_.counted(phase.step_tokens(), batches_.texts(cursor_, phase.batch_sequences));
    }

    /// Those of this rank: first and end.
    std::pair<int64_t, int64_t> own_micro_batches(const PlannedPhase& phase) const {
        const int64_t sharer = ranks_.sharer(), sharers = ranks_.sharers(), all = micro_batches_of(phase);
        return {all * sharer / sharers, all * (sharer + 1) / sharers};
    }

    int64_t micro_batches_of(const PlannedPhase& phase) const {
        return micro_batches(phase, ranks_.sharers(), setup_.deterministic);
    }

    int64_t most_micro_batches() const {
        int64_t most = 0;
        for (const PlannedPhase& phase : plan_.phases()) most = std::max(most, micro_batches_of(phase));
        return most;
    }

    std::vector<double> accumulate(const PlannedPhase& phase, int64_t micro_batch) {
        const int64_t sequences = micro_batch_sequences(phase, ranks_.sharers(), setup_.deterministic);
        const int64_t first = micro_batch * sequences;
        return accumulate(phase, cursor_ + first, std::min(sequences, phase.batch_sequences - first));
    }

    /// Losses of one micro-batch, whose gradients are added.
    std::vector<double> accumulate(const PlannedPhase& phase, int64_t cursor, int64_t count) {
        std::vector<double> losses(size_t(objective_.losses()), 0.0);
        const TokenBatch batch(batches_.sequences(cursor, count).to(model_.device()), batches_.borders(cursor, count));
        const int64_t own = objective_.counted(batch.tokens.numel(), batch.texts());
        if (count > 0 && fault_point(setup_.stage + ".gradient", step_))
            weights_->gradients().of(*parameters_.front()).fill_(NAN);
        objective_.accumulate(batch, cursor, own > 0 ? double(own) / double(counted_) : 0.0, weights_->gradients(),
                              losses);
        weights_->end_micro_batch();
        mark_progress();
        return losses;
    }

    void update(const std::vector<double>& losses) {
        if (step_ >= trained_steps()) return;
        // The norm of rank 0 is everybody's: replicas must not drift apart by a last bit.
        double norm[1] = {weights_->norm(kernel_threads())};
        group_.broadcast(std::span<double>(norm));
        norm_ = norm[0];
        const std::string objection = guard_.objection(losses[0], norm_);
        if (!objection.empty()) return skip(losses, objection);
        const double clip = optimizer_.gradient_clip;
        const double factor = clip > 0.0 && norm_ > clip ? clip / norm_ : 1.0;
        weights_->update(schedule_factor(optimizer_, step_, trained_steps()), factor, kernel_threads());
    }

    /// All ranks come here alike.
    void skip(const std::vector<double>& losses, const std::string& objection) {
        const std::string parameter = weights_->not_finite();
        // The first rank whose own part was bad before the sum.
        const int64_t ranks = group_.size(), bad = group_.max(weights_->own_finite() ? 0 : ranks - group_.rank());
        std::string what = text(setup_.stage, setup_.candidate ? text(" candidate ", *setup_.candidate) : "", ": step ",
                                step_, ": ", objection, ": loss ", losses[0], ", gradient norm ", norm_);
        if (!parameter.empty()) what += ", first in " + parameter;
        if (bad > 0) what += text(", from rank ", ranks - bad, setup_.candidate ? " of its group" : "");
        if (setup_.announce && group_.is_root()) log_rank(LogLevel::warning, what + " (update skipped)");
        const std::string verdict = guard_.verdict();
        group_.together([&] {
            if (!verdict.empty()) throw Error(text(what, " (", verdict, ")", advice()), ExitCode::diverged);
        });
    }

    /// What a user whose training diverged can do.
    std::string advice() const {
        if (weights_->updates() == 0)
            return "; no update was made: the weights it began with, or the data, give these numbers";
        const std::string kept = saver_ ? "; checkpoints from before are kept" : "";
        return text(kept, "; another learning rate (", setup_.stage,
                    ".optimizer.learning_rate) needs a run of another name, which can take over earlier stages with "
                    "reuse: THIS RUN'S FOLDER");
    }

    /// What was reached is possible: a peak that was measured beside other programs, or given, may be lower.
    std::optional<double> utilisation(double flops_per_second) {
        if (setup_.peak_flops <= 0.0) return std::nullopt;
        peak_flops_ = std::max({peak_flops_, setup_.peak_flops, flops_per_second});
        return flops_per_second / peak_flops_;
    }

    double cost_of_token(int64_t length) const { return setup_.flops_per_token ? setup_.flops_per_token(length) : 1.0; }

    void report(const std::vector<double>& losses) {
        if (!group_.is_root()) return;
        StepMetrics m;
        m.stage = setup_.stage;
        m.candidate = setup_.candidate;
        m.step = step_;
        m.steps = steps_;
        m.tokens = tokens();
        m.losses = losses;
        m.gradient_norm = norm_;
        m.learning_rate = optimizer_.learning_rate.value() * schedule_factor(optimizer_, step_ - 1, trained_steps());
        const PlannedPhase& phase = *in_phase_.phase;
        const double of_token = cost_of_token(phase.sequence_length);
        m.tokens_per_second = double(in_phase_.steps * phase.step_tokens()) / in_phase_.seconds;
        m.memory_gib = peak_memory_gib();
        m.skipped_updates = guard_.skipped();
        const auto cost = [&](int64_t length) { return cost_of_token(length) / of_token; };
        m.seconds_left = plan_.cost_from(step_, cost) / m.tokens_per_second;
        if (setup_.flops_per_token) m.utilisation = utilisation(m.tokens_per_second * of_token);
        if (setup_.candidate) outcome_.logged.push_back(m);
        if (!setup_.announce) return;
        if (setup_.metrics) setup_.metrics->append(m);
        log_rank(LogLevel::info, progress_line(m));
    }

    /// True if the run must stop now.
    bool handle_requests(double step_seconds) {
        if (saver_) saver_->poll();
        if (saver_ && guard_.is_finite()) saver_->purge();
        Requests asked;
        if (setup_.stop)
            asked = setup_.stop->ask(group_, step_seconds * next_step_cost() + (saver_ ? saver_->seconds() : 0.0));
        if (step_ == steps_) return false;
        if (saver_ && asked.stop)
            saver_->save_now(header(true), weights_->pieces(true));
        else if (saver_ && (asked.save || saver_->is_due(step_)) && guard_.is_finite())
            saver_->save(header(true), weights_->pieces(true));
        return asked.stop;
    }

    CheckpointHeader header(bool moments) const {
        CheckpointHeader header{
            {setup_.checkpoints->stage(), step_, tokens(), cursor_, setup_.seed}, model_.spec(), {}, {}};
        if (moments) {
            header.optimizer_steps = weights_->updates();
            header.state.update_guard = guard_.state();
        }
        header.provenance = setup_.provenance;
        return header;
    }

    int64_t trained_steps() const { return steps_ - setup_.measured_steps; }
    int64_t tokens() const { return plan_.tokens(step_); }

    struct InThisPhase {
        const PlannedPhase* phase = nullptr;
        int64_t steps = 0;  // of this process
        double seconds = 0.0;
    };

    CausalLM& model_;
    Objective& objective_;
    const OptimizerJob& optimizer_;
    const TrainingPlan plan_;
    const Batches& batches_;
    const Communicator& group_;
    const TrainerSetup setup_;
    const SequenceRanks ranks_;
    std::vector<Parameter*> parameters_;
    std::unique_ptr<TrainedWeights> weights_;
    std::unique_ptr<CheckpointSaver> saver_;  // none: nothing is saved
    int64_t steps_, first_step_ = 0, step_ = 0;
    int64_t cursor_ = 0;   // sequences taken from the stage's order
    int64_t counted_ = 0;  // tokens of the batch that have a loss
    bool stopped_ = false;
    UpdateGuard guard_;
    InThisPhase in_phase_;
    double norm_ = 0.0, peak_flops_ = 0.0;
    TrainerOutcome outcome_;
};

Trainer::Trainer(CausalLM& model, Objective& objective, const TrainingJob& job, const Batches& batches,
                 const Communicator& group, const TrainerSetup& setup)
    : loop_(std::make_unique<Loop>(model, objective, job, batches, group, setup)) {
    loop_->start();
}

Trainer::~Trainer() = default;

bool Trainer::is_done() const {
    return loop_->is_done();
}

void Trainer::step() {
    loop_->step();
}

double Trainer::next_step_cost() const {
    return loop_->next_step_cost();
}

void Trainer::save_to_go_on() {
    loop_->save_to_go_on();
}

const TrainerOutcome& Trainer::outcome() const {
    return loop_->outcome();
}

TrainerOutcome Trainer::finish() {
    return loop_->finish();
}

TrainerOutcome train(CausalLM& model, Objective& objective, const TrainingJob& job, const Batches& batches,
                     const Communicator& group, const TrainerSetup& setup) {
    Trainer trainer(model, objective, job, batches, group, setup);
    while (!trainer.is_done()) trainer.step();
    return trainer.finish();
}

}  // namespace amalgam
