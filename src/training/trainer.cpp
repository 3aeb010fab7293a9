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
    Loop(CausalLM& model, Objective& objective, const TrainingJob& plan, const Batches& batches,
         const Communicator& group, const TrainerSetup& setup)
        : model_(model),
          objective_(objective),
          plan_(plan),
          batches_(batches),
          group_(group),
          setup_(setup),
          sharers_(group.size() / setup.context),
          micro_(micro_batch_sequences(plan, sharers_, setup.deterministic)),
          micro_batches_((plan.batch_sequences + micro_ - 1) / micro_),
          parameters_(objective.trained()),
          weights_(make_trained_weights(model, setup.shards, parameters_, group,
                                        {plan.optimizer, setup.deterministic, micro_batches_ * setup.context})),
          steps_(training_steps(plan)),
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
        const Stopwatch watch;
        const std::vector<double> losses = one_step();
        seconds_ += watch.seconds();
        outcome_.step_losses.push_back(losses[0]);
        if (step_ % setup_.log_every_steps == 0 || step_ == steps_ || step_ == first_step_ + 1)
            report(losses, step_ - first_step_);
        if (setup_.on_step) setup_.on_step(step_);
        stopped_ = handle_requests(watch.seconds());
    }

    const TrainerOutcome& outcome() const { return outcome_; }

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
        outcome_.seconds = seconds_;
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

    std::vector<double> one_step() {
        const InPhase phase(Phase::step, step_, setup_.candidate.value_or(-1));
        fault_point(setup_.stage + ".step", step_);
        weights_->begin_step();
        // One row for each piece of a micro-batch, of one rank only: sums over ranks are exact, and rows are added in
        // their order.
        const size_t width = size_t(objective_.losses());
        std::vector<double> rows(size_t(micro_batches_ * setup_.context) * width, 0.0);
        const int64_t piece = group_.rank() % setup_.context;
        const auto [begin, end] = own_micro_batches();
        for (int64_t m = begin; m < end; ++m) {
            const std::vector<double> row = accumulate(m);
            std::copy(row.begin(), row.end(), rows.begin() + (m * setup_.context + piece) * int64_t(width));
        }
        const int64_t most = (micro_batches_ + sharers_ - 1) / sharers_;
        for (int64_t m = end; setup_.in_step && m < begin + most; ++m) accumulate(cursor_ + m, 0);
        weights_->reduce();
        group_.sum_in_place(rows);
        std::vector<double> losses(width, 0.0);
        for (size_t i = 0; i < rows.size(); ++i) losses[i % width] += rows[i];
        update(losses);
        ++step_;
        cursor_ += plan_.batch_sequences;
        return losses;
    }

    /// Weights that the last update left may be finite and what the model computes from them not. So the result is
    /// tried out before it gets its name: each rank computes one micro-batch of the step that would come next.
    void expect_finite_result() {
        const InPhase phase(Phase::step, step_, setup_.candidate.value_or(-1));
        weights_->begin_step();
        const auto [begin, end] = own_micro_batches();
        double loss[1] = {0.0};
        if (begin < end)
            loss[0] = accumulate(begin)[0];
        else if (setup_.in_step)
            accumulate(cursor_ + begin, 0);
        weights_->reduce();
        group_.sum_in_place(std::span<double>(loss));
        group_.together([&] {
            if (std::isfinite(loss[0])) return;
            throw Error(text(setup_.stage, ": the trained model computes a loss of ", loss[0],
                             " (the training diverged; its result is not kept)", advice()),
                        ExitCode::diverged);
        });
    }

    /// Those of this rank: first and end.
    std::pair<int64_t, int64_t> own_micro_batches() const {
        const int64_t sharer = group_.rank() / setup_.context;
        return {micro_batches_ * sharer / sharers_, micro_batches_ * (sharer + 1) / sharers_};
    }

    std::vector<double> accumulate(int64_t micro_batch) {
        const int64_t first = micro_batch * micro_;
        return accumulate(cursor_ + first, std::min(micro_, plan_.batch_sequences - first));
    }

    /// Losses of one micro-batch, whose gradients are added.
    std::vector<double> accumulate(int64_t cursor, int64_t count) {
        std::vector<double> losses(size_t(objective_.losses()), 0.0);
        const at::Tensor tokens = batches_.sequences(cursor, count).to(model_.device());
        if (count > 0 && fault_point(setup_.stage + ".gradient", step_))
            weights_->gradients().of(*parameters_.front()).fill_(NAN);
        objective_.accumulate(tokens, cursor, double(count) / double(plan_.batch_sequences), weights_->gradients(),
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
        const double clip = plan_.optimizer.gradient_clip;
        const double factor = clip > 0.0 && norm_ > clip ? clip / norm_ : 1.0;
        weights_->update(schedule_factor(plan_.optimizer, step_, trained_steps()), factor, kernel_threads());
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

    void report(const std::vector<double>& losses, int64_t steps_here) {
        if (!group_.is_root()) return;
        StepMetrics m;
        m.stage = setup_.stage;
        m.candidate = setup_.candidate;
        m.step = step_;
        m.steps = steps_;
        m.tokens = tokens();
        m.losses = losses;
        m.gradient_norm = norm_;
        m.learning_rate =
            plan_.optimizer.learning_rate.value() * schedule_factor(plan_.optimizer, step_ - 1, trained_steps());
        const double per_step = seconds_ / double(steps_here);
        m.tokens_per_second = double(plan_.batch_sequences * plan_.sequence_length) / per_step;
        m.memory_gib = peak_memory_gib();
        m.skipped_updates = guard_.skipped();
        m.seconds_left = per_step * double(steps_ - step_);
        m.utilisation = utilisation(m.tokens_per_second * setup_.flops_per_token);
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
        if (setup_.stop) asked = setup_.stop->ask(group_, step_seconds + (saver_ ? saver_->seconds() : 0.0));
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
    int64_t tokens() const { return step_ * plan_.batch_sequences * plan_.sequence_length; }

    CausalLM& model_;
    Objective& objective_;
    const TrainingJob& plan_;
    const Batches& batches_;
    const Communicator& group_;
    const TrainerSetup setup_;
    int64_t sharers_;                // of the batch: ranks, or groups of ranks that share sequences
    int64_t micro_, micro_batches_;  // sequences of one, and how many of them make a batch
    std::vector<Parameter*> parameters_;
    std::unique_ptr<TrainedWeights> weights_;
    std::unique_ptr<CheckpointSaver> saver_;  // none: nothing is saved
    int64_t steps_, first_step_ = 0, step_ = 0;
    int64_t cursor_ = 0;  // sequences taken from the stage's order
    bool stopped_ = false;
    UpdateGuard guard_;
    double norm_ = 0.0, seconds_ = 0.0, peak_flops_ = 0.0;
    TrainerOutcome outcome_;
};

Trainer::Trainer(CausalLM& model, Objective& objective, const TrainingJob& plan, const Batches& batches,
                 const Communicator& group, const TrainerSetup& setup)
    : loop_(std::make_unique<Loop>(model, objective, plan, batches, group, setup)) {
    loop_->start();
}

Trainer::~Trainer() = default;

bool Trainer::is_done() const {
    return loop_->is_done();
}

void Trainer::step() {
    loop_->step();
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

TrainerOutcome train(CausalLM& model, Objective& objective, const TrainingJob& plan, const Batches& batches,
                     const Communicator& group, const TrainerSetup& setup) {
    Trainer trainer(model, objective, plan, batches, group, setup);
    while (!trainer.is_done()) trainer.step();
    return trainer.finish();
}

}  // namespace amalgam
