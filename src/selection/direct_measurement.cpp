// SPDX-License-Identifier: Apache-2.0
#include "selection/direct_measurement.h"

#include <algorithm>

#include "selection/assembled_model.h"
#include "selection/early_exit.h"
#include "selection/probe.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {
namespace {

constexpr int64_t parts_of_a_race = 4;

class DirectMeasurement : public Measurement {
  public:
    explicit DirectMeasurement(MeasurementSetup setup)
        : setup_(std::move(setup)),
          aligned_(
              setup_.make_student(all_linear(setup_.teacher.config().layers, setup_.mixer), {setup_.all_linear.get()})),
          model_(setup_.teacher, *aligned_.model, int64_t(setup_.cache_bytes())),
          probe_(setup_.teacher, setup_.held_out, setup_.questions.get(), setup_.job.loss_chunk_tokens,
                 int64_t(setup_.cache_bytes()), setup_.ranks(), setup_.job.far_context,
                 setup_.race_errors > 0.0 ? parts_of_a_race : 1) {
        if (setup_.job.far_context.weight > 0.0)
            info(text("score: ", probe_.far_tokens(), " of ", setup_.held_out.tokens.numel(),
                      " held-out tokens need far context"));
    }

    std::vector<double> all_linear_kl() override {
        return measure(all_linear(setup_.teacher.config().layers, setup_.mixer)).at("kl");
    }
    int64_t in_step(int64_t) const override { return 1; }
    void expect_better_than(std::optional<int64_t> number) override {
        if (number == best_number_) return;
        best_number_ = number;
        if (number) best_ = read_samples(*number);
    }
    void begin(int64_t) override {}
    std::unique_ptr<CandidateInTraining> make(int64_t number, const Candidate& candidate) override;
    void end_step() override {}

  private:
    class Measured;

    Probe::Forward forward(const Layout& layout) {
        return [this, layout](const TokenBatch& batch, int64_t number) {
            return model_.hidden(batch, layout, number, setup_.context);
        };
    }

    ProbeSamples measure(const Layout& layout) { return probe_.measure(forward(layout)); }

    /// Until the end, or until it is surely not better than the best one; then the rest is filled in.
    ProbeProgress measure_in_parts(const Layout& layout) {
        ProbeProgress progress = probe_.begin();
        while (progress.parts < probe_.parts()) {
            probe_.measure_next(forward(layout), progress);
            if (!best_number_ || progress.parts == probe_.parts()) continue;
            if (!is_surely_worse(progress, best_, weights(), setup_.race_errors)) continue;
            fill_in(progress, best_);
            break;
        }
        return progress;
    }

    ScoreWeights weights() const {
        const double per_sum = double(setup_.held_out.sequences()) / double(std::max<int64_t>(1, probe_.far_tokens()));
        return {.recall = setup_.job.recall_weight, .far = setup_.job.far_context.weight * per_sum};
    }

    /// Of a candidate that has its file, far_kl in sums.
    ProbeSamples read_samples(int64_t number) const {
        ProbeSamples samples = probe_.begin().samples;
        setup_.group.on_root([&] {
            const CandidateResult result = read_candidate(setup_.candidate_file(number), {});
            for (auto& [name, values] : samples) {
                values = name == "kl" ? result.kl.back() : result.samples.at(name);
            }
        });
        for (auto& [name, values] : samples) setup_.group.broadcast(std::span<double>(values));
        return probe_.in_sums(samples);
    }

    const MeasurementSetup setup_;
    const Student aligned_;
    AssembledModel model_;
    const Probe probe_;
    std::optional<int64_t> best_number_;
    ProbeSamples best_;  // far_kl in sums
};

/// Is done after one step.
class DirectMeasurement::Measured : public CandidateInTraining {
  public:
    Measured(DirectMeasurement& measurement, int64_t number, const Candidate& candidate) : measurement_(measurement) {
        fault_point("score.candidate", number);
        result_.number = number;
        result_.candidate = candidate;
        result_.recall_weight = measurement.setup_.job.recall_weight;
        result_.far_weight = measurement.setup_.job.far_context.weight;
        result_.rank = measurement.setup_.world.rank() - measurement.setup_.group.rank();
    }
    bool is_done() const override { return !result_.kl.empty(); }
    void step() override {
        const Stopwatch watch;
        const ProbeProgress progress = measurement_.measure_in_parts(result_.candidate.layout);
        result_.samples = measurement_.probe_.whole(progress);
        result_.measured_share = double(progress.tokens) / double(measurement_.probe_.tokens());
        result_.kl = {result_.samples.at("kl")};
        result_.samples.erase("kl");
        result_.measured_tokens = {0};
        result_.seconds = watch.seconds();
    }
    int64_t save() override { return 0; }
    CandidateResult result() override { return result_; }

  private:
    DirectMeasurement& measurement_;
    CandidateResult result_;
};

std::unique_ptr<CandidateInTraining> DirectMeasurement::make(int64_t number, const Candidate& candidate) {
    return std::make_unique<Measured>(*this, number, candidate);
}

}  // namespace

std::unique_ptr<Measurement> direct_measurement(MeasurementSetup setup) {
    return std::make_unique<DirectMeasurement>(std::move(setup));
}

}  // namespace amalgam
