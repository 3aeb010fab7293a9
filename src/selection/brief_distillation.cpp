// SPDX-License-Identifier: Apache-2.0
#include "selection/brief_distillation.h"

#include <algorithm>
#include <stdexcept>

#include "job/job_values.h"
#include "job/training_plan.h"
#include "model/weights.h"
#include "objectives/distillation.h"
#include "selection/candidate_state.h"
#include "system/available_memory.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {
namespace {

/// Steps after which the held-out KL is measured: 0, then `measurements` evenly spaced ones up to the last.
std::vector<int64_t> measured_steps(const ScoreJob& job) {
    std::vector<int64_t> steps = {0};
    const int64_t last = training_steps(job);
    for (int64_t m = 1; m <= job.measurements; ++m)
        if (const int64_t step = last * m / job.measurements; step > steps.back()) steps.push_back(step);
    return steps;
}

class BriefDistillation : public Measurement {
  public:
    explicit BriefDistillation(MeasurementSetup setup)
        : setup_(std::move(setup)),
          training_states_(setup_.teacher, int64_t(setup_.cache_bytes())),
          held_out_states_(setup_.teacher, int64_t(setup_.cache_bytes())) {}

    std::vector<double> all_linear_kl() override {
        const Layout layout = all_linear(setup_.teacher.config().layers, setup_.mixer);
        const Student student = setup_.make_student(layout, {setup_.all_linear.get()});
        if (!student.shards) keep_in_memory(*student.model);
        return measure(*student.model, {setup_.world, setup_.context});
    }

    int64_t in_step(int64_t candidates) const override {
        const ScoreJob& job = setup_.job;
        if (job.candidates_in_step > 0) return std::min(job.candidates_in_step, std::max<int64_t>(1, candidates));
        const double bytes = setup_.teacher.compute_type() == at::kBFloat16 ? 2 : 4;
        const double of_states = double(TrainingPlan(job).tokens()) / double(setup_.group.size()) *
                                 double(setup_.teacher.config().hidden_size) * bytes;
        if (of_states <= setup_.cache_bytes()) return 1;  // the teacher runs once for all anyway
        return setup_.candidates_that_fit(candidates);
    }

    void expect_better_than(std::optional<int64_t>) override {}

    void begin(int64_t candidates) override {
        training_states_.forget();
        if (candidates > 1) training_states_.keep_until_forgotten();
    }

    std::unique_ptr<CandidateInTraining> make(int64_t number, const Candidate& candidate) override;

    void end_step() override { training_states_.forget(); }

  private:
    class Distilled;

    std::vector<double> measure(const CausalLM& student, const SequenceRanks& ranks) {
        return held_out_kl(student, held_out_states_, setup_.held_out, held_out_batch(setup_.held_out.time()),
                           setup_.job.loss_chunk_tokens, ranks);
    }

    /// All candidates start from these weights; reading and checking the file for each took half of its time on a GPU.
    void keep_in_memory(CausalLM& student) {
        const int64_t bytes = student.parameters().elements() * int64_t(sizeof(float));
        const int64_t share = available_memory() / setup_.node.size();
        if (setup_.world.any(bytes > share / 4)) {
            info("score: too little host memory to keep the aligned student; it is read again for every candidate");
            return;
        }
        in_memory_ = std::make_unique<ModelSource>(student, setup_.all_linear->where());
    }

    const TensorSource& start() const {
        if (in_memory_) return *in_memory_;
        return *setup_.all_linear;
    }

    const MeasurementSetup setup_;
    TeacherStates training_states_, held_out_states_;
    std::unique_ptr<ModelSource> in_memory_;  // the weights of all_linear
};

class BriefDistillation::Distilled : public CandidateInTraining {
  public:
    Distilled(BriefDistillation& measurement, int64_t number, const Candidate& candidate)
        : measurement_(measurement), number_(number), state_(measurement.setup_.candidate_file(number)) {
        const Stopwatch watch;
        const MeasurementSetup& all = measurement.setup_;
        fault_point("score.candidate", number);
        if (!candidate.numbers.empty())
            throw std::logic_error("brief distillation does not know " + candidate.numbers.begin()->first);
        all.group.on_root([&] { before_ = state_.read(number, candidate); });
        steps_before_ = all.group.broadcast(before_ ? int64_t(before_->train_loss.size()) : int64_t{0});
        result_.number = number;
        result_.candidate = candidate;
        student_ = all.make_student(candidate.layout, {&measurement.start(), &all.teacher_weights});
        objective_ = std::make_unique<Distillation>(*student_.model, measurement.training_states_, all.job,
                                                    all.activations, all.context);
        result_.rank = all.world.rank() - all.group.rank();
        trainer_ =
            std::make_unique<Trainer>(*student_.model, *objective_, all.job, *all.batches, all.group, trainer_setup());
        seconds_ = watch.seconds();
    }

    int64_t steps_before() const { return steps_before_; }
    bool is_done() const override { return trainer_->is_done(); }

    void step() override {
        const Stopwatch watch;
        trainer_->step();
        seconds_ += watch.seconds();
    }

    double next_step_cost() const override { return trainer_->next_step_cost(); }

    int64_t save() override {
        const MeasurementSetup& all = measurement_.setup_;
        const CandidateResult so_far = with_before(trainer_->outcome());
        const int64_t steps = steps_before_ + int64_t(trainer_->outcome().step_losses.size());
        all.group.on_root([&] { state_.write_measured(so_far, all.trainer.provenance); });
        trainer_->save_to_go_on();
        all.group.on_root([&] { state_.keep_only(steps); });
        return steps;
    }

    CandidateResult result() override { return with_before(trainer_->finish()); }

  private:
    /// What earlier starts did, then what this one did.
    CandidateResult with_before(const TrainerOutcome& outcome) const {
        CandidateResult whole = before_.value_or(CandidateResult());
        whole.number = result_.number;
        whole.candidate = result_.candidate;
        whole.rank = result_.rank;
        const auto append = [](auto& list, const auto& more) { list.insert(list.end(), more.begin(), more.end()); };
        append(whole.measured_tokens, result_.measured_tokens);
        append(whole.kl, result_.kl);
        append(whole.train_loss, outcome.step_losses);
        append(whole.logged, outcome.logged);
        whole.seconds += seconds_;
        return whole;
    }

    TrainerSetup trainer_setup() {
        const MeasurementSetup& all = measurement_.setup_;
        TrainerSetup setup = all.trainer;
        setup.candidate = number_;
        setup.announce = result_.rank == 0;  // one group speaks for all: their steps are alike
        setup.stop = nullptr;                // asked once for all candidates that are trained in step
        setup.context = all.context;
        setup.checkpoints = state_.checkpoints();
        setup.checkpoint = {.every_steps = 0};  // only when the run is stopped
        setup.only_on_the_way = true;
        setup.shards = student_.shards.get();
        setup.in_step = student_.shards || all.teacher.weights_on_demand();
        // Most candidates find the teacher's states kept by those before or beside them.
        setup.flops_per_token = [&](int64_t time) { return all.flops_per_token(student_.model->spec(), time); };
        setup.on_step = [this, plan = TrainingPlan(all.job), steps = measured_steps(all.job)](int64_t done) {
            if (std::find(steps.begin(), steps.end(), done) == steps.end()) return;
            if (steps_before_ > 0 && done == steps_before_) return;  // was measured before the run was stopped
            result_.measured_tokens.push_back(plan.tokens(done));
            result_.kl.push_back(measurement_.measure(*student_.model, measurement_.setup_.ranks()));
        };
        return setup;
    }

    BriefDistillation& measurement_;
    int64_t number_;
    CandidateState state_;
    std::optional<CandidateResult> before_;  // of earlier starts, on the group's root
    int64_t steps_before_ = 0;
    Student student_;
    CandidateResult result_;  // of this start
    std::unique_ptr<Distillation> objective_;
    std::unique_ptr<Trainer> trainer_;
    double seconds_ = 0.0;
};

std::unique_ptr<CandidateInTraining> BriefDistillation::make(int64_t number, const Candidate& candidate) {
    const MeasurementSetup& all = setup_;
    try {
        auto made = std::make_unique<Distilled>(*this, number, candidate);
        if (made->steps_before() > 0 && all.group.is_root())
            log_rank(LogLevel::info, text("score: candidate ", number, " goes on from step ", made->steps_before()));
        return made;
    } catch (const SharedError& error) {  // of the whole group
        const CandidateState state(all.candidate_file(number));
        bool damaged = false;
        all.group.on_root([&] {
            damaged = error.code() == ExitCode::damaged_file && state.checkpoints().latest().has_value();
            if (damaged) state.keep_only(0);
        });
        if (all.group.broadcast(int64_t{damaged}) == 0) throw;
        if (all.group.is_root())
            log_rank(LogLevel::warning, text(error.what(), "; candidate ", number, " begins from its beginning"));
    }
    return std::make_unique<Distilled>(*this, number, candidate);
}

}  // namespace

std::unique_ptr<Measurement> brief_distillation(MeasurementSetup setup) {
    return std::make_unique<BriefDistillation>(std::move(setup));
}

}  // namespace amalgam
