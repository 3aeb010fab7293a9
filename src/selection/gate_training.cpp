// SPDX-License-Identifier: Apache-2.0
#include "selection/gate_training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "job/training_plan.h"
#include "model/own_piece.h"
#include "objectives/chunked_losses.h"
#include "selection/far_context.h"
#include "selection/gated_pass.h"
#include "sharding/sequence_ranks.h"
#include "system/activity.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/finite.h"
#include "system/log.h"

namespace amalgam {
namespace {

constexpr double penalty_range = 1000.0;  // of the last step's to the first step's

/// The parts of a loss, by their places behind the gradients of the gates.
enum Term : size_t { kl, recall_kl, far_kl, state_error, terms };

/// Of a whole batch: means over its tokens, and the gradient of their weighted sum. Zero where it has no such tokens.
struct BatchLoss {
    std::array<double, terms> of = {};
    std::vector<double> d_gates;
};

class GateTraining {
  public:
    explicit GateTraining(const GateSetup& setup)
        : setup_(setup), ranks_(setup.world, setup.context), layers_(setup.teacher.config().layers) {}

    std::optional<GateCourse> run() {
        begin();
        GateCourse& course = state_.course;
        const int64_t steps = setup_.job.gates.steps;
        while (course.steps() < steps) {
            const Stopwatch watch;
            const InPhase phase(Phase::step, course.steps() + 1);
            step();
            course.seconds += watch.seconds();
            const int64_t done = course.steps();
            if (done % setup_.log_every_steps == 0 || done == steps) tell();
            const Requests asked = setup_.stop.ask(setup_.world, watch.seconds());
            const bool due = setup_.save_every_steps > 0 && done % setup_.save_every_steps == 0;
            if (asked.save || asked.stop || due || done == steps) save();
            if (asked.stop && done < steps) return std::nullopt;
        }
        if (course.tells_nothing())
            warn(text("score: all gates were alike in every step, at ", course.latest().front(),
                      " in the end, so that layers are chosen by their number; give score.gates another penalty or "
                      "learning_rate"));
        return course;
    }

  private:
    void begin() {
        int64_t found = 0;
        setup_.world.on_root([&] { found = read() ? 1 : 0; });
        if (setup_.world.broadcast(found) != 0) return share();
        state_ = {};
        state_.course.gates = {std::vector<double>(size_t(layers_), 1.0)};
        state_.first_moment = state_.second_moment = std::vector<double>(size_t(layers_), 0.0);
        const BatchLoss closed = loss_of(0, std::vector<double>(size_t(layers_), 0.0), /*with_gradient=*/false);
        const GatesJob& job = setup_.job.gates;
        state_.course.penalty = job.penalty * (is_fixed() ? 1.0 : total(closed) / double(layers_));
        info(
            text("score: ", job.steps, " steps of gates; with all of them closed the ",
                 compares_states()
                     ? text("error of the states is ", closed.of[state_error])
                     : text("KL is ", closed.of[kl], ", of answers ", closed.of[recall_kl],
                            weighs_far_context() ? text(", of far context ", closed.of[far_kl]) : "", " nat/token"),
                 is_fixed() ? text(", the penalty on those that are open up to ", job.penalty * double(layers_)) : ""));
    }

    /// A damaged state is begun again, as a damaged candidate is.
    bool read() {
        if (!std::filesystem::exists(setup_.file)) return false;
        try {
            state_ = read_gate_state(setup_.file);
            if (int64_t(state_.course.latest().size()) == layers_) return true;
            warn(text(setup_.file.string(), ": is of another model; the gates are trained from the beginning"));
        } catch (const std::exception& error) {  // damage has many faces
            warn(text(error.what(), "; the gates are trained from the beginning"));
        }
        return false;
    }

    /// The root's state, on all ranks: every rank computes the same updates from then on.
    void share() {
        GateCourse& course = state_.course;
        const auto steps = size_t(setup_.world.broadcast(course.steps()));
        course.tokens = setup_.world.broadcast(course.tokens);
        course.gates.resize(steps + 1, std::vector<double>(size_t(layers_)));
        for (const auto& [values, term] : logged()) values->resize(steps);
        state_.first_moment.resize(size_t(layers_));
        state_.second_moment.resize(size_t(layers_));
        for (auto& row : course.gates) setup_.world.broadcast(std::span<double>(row));
        for (const auto& [values, term] : logged()) setup_.world.broadcast(std::span<double>(*values));
        for (auto* values : {&state_.first_moment, &state_.second_moment})
            setup_.world.broadcast(std::span<double>(*values));
        std::array<double, 2> rest = {course.penalty, course.seconds};
        setup_.world.broadcast(std::span<double>(rest));
        course.penalty = rest[0];
        course.seconds = rest[1];
        info(text("score: gates go on from step ", steps));
    }

    void save() const {
        setup_.world.on_root([&] { write_gate_state(setup_.file, state_, setup_.provenance); });
    }

    bool compares_states() const { return !gates_see_text(setup_.job); }
    bool is_fixed() const { return setup_.job.gates.penalty_schedule == PenaltySchedule::fixed; }
    bool weighs_far_context() const { return !compares_states() && setup_.job.far_context.weight > 0.0; }

    double total(const BatchLoss& loss) const {
        return loss.of[kl] + setup_.job.recall_weight * loss.of[recall_kl] +
               setup_.job.far_context.weight * loss.of[far_kl] + loss.of[state_error];
    }

    /// What the course has of every step.
    std::vector<std::pair<std::vector<double>*, Term>> logged() {
        GateCourse& course = state_.course;
        if (compares_states()) return {{&course.state_error, state_error}};
        std::vector<std::pair<std::vector<double>*, Term>> all = {{&course.kl, kl}};
        if (setup_.job.recall.questions > 0) all.emplace_back(&course.recall_kl, recall_kl);
        if (weighs_far_context()) all.emplace_back(&course.far_kl, far_kl);
        return all;
    }

    void step() {
        GateCourse& course = state_.course;
        const int64_t number = course.steps();
        fault_point("score.gates", number);
        const BatchLoss loss = loss_of(number, course.latest(), /*with_gradient=*/true);
        course.gates.push_back(updated(number, loss.d_gates));
        for (const auto& [values, term] : logged()) values->push_back(loss.of[term]);
    }

    double penalty_at(int64_t step) const {
        if (is_fixed()) return state_.course.penalty;
        const int64_t last = setup_.job.gates.steps - 1;
        return state_.course.penalty * std::pow(penalty_range, last > 0 ? double(step) / double(last) - 1.0 : 0.0);
    }

    std::vector<double> updated(int64_t step, const std::vector<double>& d_gates) {
        const OptimizerJob& adam = setup_.job.optimizer;
        const double rate = setup_.job.gates.learning_rate, penalty = penalty_at(step);
        const double correction1 = 1.0 - std::pow(adam.beta1, double(step + 1)),
                     correction2 = 1.0 - std::pow(adam.beta2, double(step + 1));
        std::vector<double> gates = state_.course.latest();
        for (size_t layer = 0; layer < gates.size(); ++layer) {
            const double gradient = d_gates[layer] + penalty;
            double &m = state_.first_moment[layer], &v = state_.second_moment[layer];
            m = adam.beta1 * m + (1.0 - adam.beta1) * gradient;
            v = adam.beta2 * v + (1.0 - adam.beta2) * gradient * gradient;
            gates[layer] -= rate * (m / correction1) / (std::sqrt(v / correction2) + adam.epsilon);
            gates[layer] = std::clamp(gates[layer], 0.0, 1.0);
        }
        return gates;
    }

    /// The same on all ranks, to the last bit: every micro-batch's part is computed on one of them, and they are added
    /// in their order.
    BatchLoss loss_of(int64_t step, const std::vector<double>& gates, bool with_gradient) {
        std::vector<GateBatch> batches;
        setup_.world.together([&] { batches = setup_.batches.of_step(step); });  // making a question may fail
        Counts tokens;
        for (const GateBatch& batch : batches) {
            (batch.is_text ? tokens.of_text : tokens.of_answers) += double(batch.places.numel());
            if (with_gradient) state_.course.tokens += batch.tokens.numel();
        }
        std::vector<at::Tensor> far(batches.size());
        if (weighs_far_context()) tokens.of_far = look_for_far_tokens(batches, far);
        const size_t width = gates.size() + terms, sharers = size_t(ranks_.sharers());
        SumsOfPieces found(int64_t(batches.size()), int64_t(width), ranks_);
        for (size_t first = 0; first < batches.size(); first += sharers) {
            const size_t mine = first + size_t(ranks_.sharer());
            if (mine < batches.size()) {
                add(batches[mine], far[mine], gates, tokens, with_gradient, found.of(int64_t(mine)));
            } else if (setup_.teacher.weights_on_demand() || setup_.aligned.weights_on_demand()) {
                pass_nothing(gates, with_gradient);
            }
            mark_progress();
        }
        const std::vector<double> parts = found.total();
        if (!all_finite(parts))
            throw SharedError(text("score: loss or gradient of the gates is not finite at step ", step,
                                   " (the aligned student's checkpoint is bad); align with a lower "
                                   "align.optimizer.learning_rate in a run of another name"),
                              ExitCode::diverged);
        BatchLoss loss;
        loss.d_gates.resize(gates.size());
        for (auto part = parts.begin(); part != parts.end(); part += std::ptrdiff_t(width)) {
            for (size_t layer = 0; layer < gates.size(); ++layer) loss.d_gates[layer] += part[std::ptrdiff_t(layer)];
            for (size_t term = 0; term < terms; ++term) loss.of[term] += part[std::ptrdiff_t(gates.size() + term)];
        }
        return loss;
    }

    /// In this rank's micro-batches of text, the places of those tokens (`far`, by micro-batch); their number on all
    /// ranks.
    double look_for_far_tokens(const std::vector<GateBatch>& batches, std::vector<at::Tensor>& far) const {
        const at::NoGradGuard no_grad;
        const HeldOuterWeights outer(setup_.teacher);
        const auto sharers = size_t(ranks_.sharers());
        double found = 0.0;
        for (size_t first = 0; first < batches.size(); first += sharers) {
            const size_t mine = first + size_t(ranks_.sharer());
            const bool has_text = mine < batches.size() && batches[mine].is_text;
            if (!has_text && setup_.teacher.weights_on_demand() == nullptr) continue;
            const at::Tensor tokens = has_text ? batches[mine].tokens.to(setup_.teacher.device()) : empty_batch();
            ContextGroup* context = has_text ? ranks_.context : nullptr;
            const at::Tensor places = at::nonzero(needs_far_context(
                setup_.teacher, outer.head(), tokens, setup_.teacher.hidden(tokens, context).flatten(0, 1),
                setup_.job.far_context, setup_.job.loss_chunk_tokens, context));
            found += double(places.numel());
            if (has_text) far[mine] = places.flatten();
        }
        std::vector<double> sum = {found};
        setup_.world.sum_in_place(std::span<double>(sum));
        return sum[0];
    }

    at::Tensor empty_batch() const {
        return at::empty({0, 1}, at::TensorOptions(at::kLong).device(setup_.teacher.device()));
    }

    /// Of a whole batch.
    struct Counts {
        double of_text = 0.0, of_answers = 0.0, of_far = 0.0;
    };

    /// `part`, of this rank's piece: the gradient of each gate, then the terms of the loss, each divided by the number
    /// of its tokens in the whole batch. `far`: places of tokens that need far context; undefined: none.
    void add(const GateBatch& batch, const at::Tensor& far, const std::vector<double>& gates, const Counts& counts,
             bool with_gradient, std::span<double> part) const {
        if (compares_states())
            add_states(batch, gates, counts.of_answers, with_gradient, part);
        else
            add_kl(batch, far, gates, counts, with_gradient, part);
    }

    void add_states(const GateBatch& batch, const std::vector<double>& gates, double answers, bool with_gradient,
                    std::span<double> part) const {
        const at::Device device = setup_.teacher.device();
        const at::Tensor inputs = batch.tokens.to(device), places = own_places_of(batch).to(device);
        at::Tensor states;
        {
            const at::NoGradGuard no_grad;
            states = setup_.teacher.block_outputs(inputs, places, ranks_.context);
        }
        GatedPass pass(setup_.teacher, setup_.aligned, gates, inputs, setup_.activations, ranks_.context);
        std::vector<at::Tensor> mixed;
        for (int64_t layer = 0; layer < layers_; ++layer)
            mixed.push_back(pass.block_output(layer).index_select(0, places));
        const at::Tensor of_teacher = states.to(at::kFloat), differences = at::stack(mixed).to(at::kFloat) - of_teacher;
        at::Tensor weighted = differences / (double(layers_) * answers);  // by what each token's |h - h_T|^2 counts
        if (setup_.job.gates.objective == GateObjective::relative_hidden_states)
            weighted = weighted / of_teacher.square().sum(-1, true);
        part[gates.size() + state_error] = (differences * weighted).sum(at::kDouble).item<double>();
        if (!with_gradient) return;
        const auto d_gates = pass.backward(places, 2.0 * weighted);
        std::copy(d_gates.begin(), d_gates.end(), part.begin());
    }

    void add_kl(const GateBatch& batch, const at::Tensor& far, const std::vector<double>& gates, const Counts& counts,
                bool with_gradient, std::span<double> part) const {
        const double tokens = batch.is_text ? counts.of_text : counts.of_answers;
        const at::Device device = setup_.teacher.device();
        const at::Tensor inputs = batch.tokens.to(device), places = own_places_of(batch).to(device);
        at::Tensor states;
        {
            const at::NoGradGuard no_grad;
            states = setup_.teacher.hidden(inputs, ranks_.context).flatten(0, 1).index_select(0, places);
        }
        GatedPass pass(setup_.teacher, setup_.aligned, gates, inputs, setup_.activations, ranks_.context);
        const at::Tensor hidden = pass.hidden();
        const double weight = (batch.is_text ? 1.0 : setup_.job.recall_weight) / tokens;
        const auto found = chunked_kl_divergence(hidden.index_select(0, places), pass.outer().head(), states,
                                                 pass.outer().head(), 1.0, weight, setup_.job.loss_chunk_tokens, {});
        part[gates.size() + (batch.is_text ? kl : recall_kl)] = found.loss / tokens;
        const at::Tensor d_hidden = at::zeros_like(hidden).index_copy_(0, places, found.d_hidden);
        if (far.defined() && far.numel() > 0) {  // a text's places are all there are
            const auto of_far = chunked_kl_divergence(
                hidden.index_select(0, far), pass.outer().head(), states.index_select(0, far), pass.outer().head(), 1.0,
                setup_.job.far_context.weight / counts.of_far, setup_.job.loss_chunk_tokens, {});
            part[gates.size() + far_kl] = of_far.loss / counts.of_far;
            d_hidden.index_add_(0, far, of_far.d_hidden);
        }
        if (!with_gradient) return;
        const auto d_gates = pass.backward(d_hidden);
        std::copy(d_gates.begin(), d_gates.end(), part.begin());
    }

    at::Tensor own_places_of(const GateBatch& batch) const {
        if (!ranks_.context) return batch.places;
        const int64_t* first = batch.places.const_data_ptr<int64_t>();
        const std::vector<int64_t> all(first, first + batch.places.numel());
        return at::tensor(own_places(all, batch.tokens.size(1), ranks_.context).places, at::kLong);
    }

    /// What a rank without a micro-batch does while others have one, where models are sharded.
    void pass_nothing(const std::vector<double>& gates, bool with_gradient) const {
        const at::Tensor empty = empty_batch();
        setup_.teacher.hidden(empty);
        GatedPass pass(setup_.teacher, setup_.aligned, gates, empty, setup_.activations);
        if (with_gradient) pass.backward(at::Tensor());
    }

    void tell() const {
        const GateCourse& course = state_.course;
        const double open = std::accumulate(course.latest().begin(), course.latest().end(), 0.0);
        const auto latest = [](const char* name, const std::vector<double>& values) {
            return values.empty() ? "" : text(name, values.back());
        };
        info(text("score: gates, step ", course.steps(), "/", setup_.job.gates.steps, ":", latest(" KL ", course.kl),
                  latest(", of answers ", course.recall_kl), latest(", of far context ", course.far_kl),
                  latest(" error of the states ", course.state_error), ", gates add up to ", open, " of ", layers_));
    }

    const GateSetup& setup_;
    const SequenceRanks ranks_;
    const int64_t layers_;
    GateState state_;
};

}  // namespace

std::optional<GateCourse> train_gates(const GateSetup& setup) {
    return GateTraining(setup).run();
}

}  // namespace amalgam
