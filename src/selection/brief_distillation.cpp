// SPDX-License-Identifier: Apache-2.0
#include "selection/brief_distillation.h"

#include <algorithm>
#include <stdexcept>

#include "job/job_values.h"
#include "job/training_plan.h"
#include "model/weights.h"
#include "objectives/distillation.h"
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

double cache_bytes(const ScoreJob& job) {
    return job.teacher_cache_gib * double(1 << 30);
}

class BriefDistillation : public Measurement {
  public:
    explicit BriefDistillation(MeasurementSetup setup)
        : setup_(std::move(setup)),
          training_states_(setup_.teacher, int64_t(cache_bytes(setup_.job))),
          held_out_states_(setup_.teacher, int64_t(cache_bytes(setup_.job))) {}

    std::vector<double> all_linear_kl() override {
        const Layout layout = all_linear(setup_.teacher.config().layers, setup_.mixer);
        const Student student = setup_.make_student(layout, {setup_.all_linear.get()});
        if (!student.shards) keep_in_memory(*student.model);
        return measure(*student.model, setup_.world);
    }

    int64_t in_step(int64_t candidates) const override {
        const ScoreJob& job = setup_.job;
        if (job.candidates_in_step > 0) return std::min(job.candidates_in_step, std::max<int64_t>(1, candidates));
        const double bytes = setup_.teacher.compute_type() == at::kBFloat16 ? 2 : 4;
        const double of_states = double(training_steps(job) * job.batch_sequences * job.sequence_length) /
                                 double(setup_.group.size()) * double(setup_.teacher.config().hidden_size) * bytes;
        if (of_states <= cache_bytes(job)) return 1;  // the teacher runs once for all anyway
        return setup_.candidates_that_fit(candidates);
    }

    void begin(int64_t candidates) override {
        training_states_.forget();
        if (candidates > 1) training_states_.keep_until_forgotten();
    }

    std::unique_ptr<CandidateInTraining> make(int64_t number, const Candidate& candidate) override;

    void end_step() override { training_states_.forget(); }

  private:
    class Distilled;

    std::vector<double> measure(const CausalLM& student, const Communicator& ranks) {
        return held_out_kl(student, held_out_states_, setup_.held_out, held_out_micro_batch,
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
        : measurement_(measurement), number_(number) {
        const Stopwatch watch;
        const MeasurementSetup& all = measurement.setup_;
        fault_point("score.candidate", number);
        if (!candidate.numbers.empty())
            throw std::logic_error("brief distillation does not know " + candidate.numbers.begin()->first);
        student_ = all.make_student(candidate.layout, {&measurement.start(), &all.teacher_weights});
        objective_ =
            std::make_unique<Distillation>(*student_.model, measurement.training_states_, all.job, all.activations);
        result_.rank = all.world.rank() - all.group.rank();
        trainer_ =
            std::make_unique<Trainer>(*student_.model, *objective_, all.job, *all.batches, all.group, trainer_setup());
        seconds_ = watch.seconds();
    }

    bool is_done() const override { return trainer_->is_done(); }

    void step() override {
        const Stopwatch watch;
        trainer_->step();
        seconds_ += watch.seconds();
    }

    CandidateResult result() override {
        const TrainerOutcome outcome = trainer_->finish();
        result_.train_loss = outcome.step_losses;
        result_.logged = outcome.logged;
        result_.seconds = seconds_;
        return result_;
    }

  private:
    TrainerSetup trainer_setup() {
        const MeasurementSetup& all = measurement_.setup_;
        const ScoreJob& job = all.job;
        TrainerSetup setup = all.trainer;
        setup.candidate = number_;
        setup.announce = result_.rank == 0;  // one group speaks for all: their steps are alike
        setup.stop = nullptr;                // asked once for all candidates that are trained in step
        setup.checkpoints.reset();
        setup.shards = student_.shards.get();
        setup.in_step = student_.shards || all.teacher.weights_on_demand();
        // Most candidates find the teacher's states kept by those before or beside them.
        setup.flops_per_token = all.flops_per_token(student_.model->spec());
        setup.on_step = [this, &job, steps = measured_steps(job)](int64_t done) {
            if (std::find(steps.begin(), steps.end(), done) == steps.end()) return;
            result_.measured_tokens.push_back(done * job.batch_sequences * job.sequence_length);
            result_.kl.push_back(measurement_.measure(*student_.model, measurement_.setup_.group));
        };
        return setup;
    }

    BriefDistillation& measurement_;
    int64_t number_;
    Student student_;
    CandidateResult result_;
    std::unique_ptr<Distillation> objective_;
    std::unique_ptr<Trainer> trainer_;
    double seconds_ = 0.0;
};

std::unique_ptr<CandidateInTraining> BriefDistillation::make(int64_t number, const Candidate& candidate) {
    return std::make_unique<Distilled>(*this, number, candidate);
}

}  // namespace

std::unique_ptr<Measurement> brief_distillation(MeasurementSetup setup) {
    return std::make_unique<BriefDistillation>(std::move(setup));
}

}  // namespace amalgam
