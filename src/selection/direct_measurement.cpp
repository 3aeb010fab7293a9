// SPDX-License-Identifier: Apache-2.0
#include "selection/direct_measurement.h"

#include "selection/assembled_model.h"
#include "selection/probe.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {
namespace {

class DirectMeasurement : public Measurement {
  public:
    explicit DirectMeasurement(MeasurementSetup setup)
        : setup_(std::move(setup)),
          aligned_(
              setup_.make_student(all_linear(setup_.teacher.config().layers, setup_.mixer), {setup_.all_linear.get()})),
          model_(setup_.teacher, *aligned_.model, int64_t(setup_.cache_bytes())),
          probe_(setup_.teacher, setup_.held_out, setup_.questions.get(), setup_.job.loss_chunk_tokens,
                 int64_t(setup_.cache_bytes()), setup_.group, setup_.job.far_context) {
        if (setup_.job.far_context.weight > 0.0)
            info(text("score: ", probe_.far_tokens(), " of ", setup_.held_out.tokens.numel(),
                      " held-out tokens need far context"));
    }

    std::vector<double> all_linear_kl() override {
        return measure(all_linear(setup_.teacher.config().layers, setup_.mixer)).at("kl");
    }
    int64_t in_step(int64_t) const override { return 1; }
    void begin(int64_t) override {}
    std::unique_ptr<CandidateInTraining> make(int64_t number, const Candidate& candidate) override;
    void end_step() override {}

  private:
    class Measured;

    ProbeSamples measure(const Layout& layout) {
        return probe_.measure(
            [&](const TokenBatch& batch, int64_t number) { return model_.hidden(batch, layout, number); });
    }

    const MeasurementSetup setup_;
    const Student aligned_;
    AssembledModel model_;
    const Probe probe_;
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
        result_.samples = measurement_.measure(result_.candidate.layout);
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
