// SPDX-License-Identifier: Apache-2.0
#include "evaluation/held_out.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "objectives/chunked_losses.h"
#include "system/activity.h"
#include "system/error.h"
#include "training/batches.h"

namespace amalgam {
namespace {

/// Calls `work(first, batch on the device)` for the micro-batches of this rank. Micro-batches are cut without regard
/// to the number of ranks, so that their arithmetic is the same on any. `in_step`: a model is sharded, and ranks
/// with fewer of them go on with empty ones (weights_on_demand.h).
template <class Work>
void for_each_micro_batch(const HeldOutSet& set, int64_t micro, const Communicator& group, at::Device device,
                          bool in_step, Work work) {
    const int64_t batches = (set.sequences() + micro - 1) / micro;
    const int64_t begin = batches * group.rank() / group.size(), end = batches * (group.rank() + 1) / group.size();
    for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * micro, count = std::min(micro, set.sequences() - first);
        work(first, set.batch(first, count, device));
        mark_progress();
    }
    const int64_t most = (batches + group.size() - 1) / group.size();
    for (int64_t b = end; in_step && b < begin + most; ++b) work(b, set.batch(0, 0, device));
}

/// Copies a float or byte tensor to doubles.
void store(const at::Tensor& values, double* destination) {
    const at::Tensor host = values.to(at::kCPU, at::kDouble).contiguous();
    std::copy_n(host.const_data_ptr<double>(), host.numel(), destination);
}

}  // namespace

TokenBatch HeldOutSet::batch(int64_t first, int64_t count, at::Device device) const {
    const auto begin = borders.begin() + (borders.empty() ? 0 : first);
    return {tokens.narrow(0, first, count).to(device), Borders(begin, borders.empty() ? begin : begin + count)};
}

std::vector<bool> HeldOutSet::predicts() const {
    std::vector<bool> result(size_t(sequences() * time()), true);
    for (int64_t s = 0; s < sequences(); ++s) {
        result[size_t((s + 1) * time() - 1)] = false;
        if (borders.empty()) continue;
        for (const int64_t border : borders[size_t(s)]) result[size_t(s * time() + border - 1)] = false;
    }
    return result;
}

HeldOutSet read_held_out(const TokenFile& file, int64_t sequences, int64_t sequence_length, DocumentBorders documents) {
    require(file.sequences(sequence_length) >= sequences, "data.validation: holds ", file.sequences(sequence_length),
            " sequences of ", sequence_length, " tokens (", sequences,
            " are asked for); lower the number of sequences");
    HeldOutSet set{read_sequences(file, sequence_length, 0, sequences), {}, {}};
    if (documents == DocumentBorders::separate) set.borders = read_borders(file, sequence_length, 0, sequences);
    const std::vector<bool> predicts = set.predicts();
    for (int64_t s = 0; s < sequences; ++s) {
        std::vector<int64_t> answers;
        for (int64_t position : file.answers(s * sequence_length, sequence_length))
            // Nothing before the first token of a text predicts it.
            if (position > 0 && predicts[size_t(s * sequence_length + position - 1)]) answers.push_back(position);
        set.answers.push_back(std::move(answers));
    }
    return set;
}

std::vector<double> held_out_kl(const CausalLM& student, TeacherStates& teacher, const HeldOutSet& set,
                                int64_t micro_batch, int64_t loss_chunk, const Communicator& group) {
    const at::NoGradGuard no_grad;
    std::vector<double> result(set.sequences(), 0.0);
    const bool in_step = student.weights_on_demand() || teacher.model().weights_on_demand();
    for_each_micro_batch(
        set, micro_batch, group, student.device(), in_step, [&](int64_t first, const TokenBatch& batch) {
            const HeldOuterWeights of_teacher(teacher.model()), of_student(student);
            const at::Tensor states = teacher.hidden(batch, first), hidden = student.hidden(batch).flatten(0, 1);
            const at::Tensor kl = token_kl_divergence(hidden, of_student.head(), states, of_teacher.head(), loss_chunk);
            if (batch.tokens.numel() > 0)
                store(kl.view({batch.sequences(), batch.time()}).mean(1, false, at::kDouble), result.data() + first);
        });
    group.sum_in_place(std::span<double>(result));  // every entry is nonzero on one rank only: exact
    return result;
}

TokenMeasurements measure_tokens(const CausalLM& model, TeacherStates* teacher, const HeldOutSet& set,
                                 int64_t micro_batch, int64_t loss_chunk, const Communicator& group) {
    const at::NoGradGuard no_grad;
    const size_t count = size_t(set.sequences() * set.time());
    TokenMeasurements m{std::vector<double>(count), std::vector<double>(count),
                        std::vector<double>(teacher ? count : 0)};
    const bool in_step = model.weights_on_demand() || (teacher && teacher->model().weights_on_demand());
    for_each_micro_batch(set, micro_batch, group, model.device(), in_step, [&](int64_t first, const TokenBatch& batch) {
        const HeldOuterWeights of_model(model);
        const at::Tensor hidden = model.hidden(batch).flatten(0, 1);
        const auto losses = token_cross_entropy(hidden, of_model.head(), next_tokens(batch), loss_chunk);
        store(losses.loss, m.loss.data() + first * set.time());
        store(losses.correct, m.correct.data() + first * set.time());
        if (!teacher) return;
        const HeldOuterWeights of_teacher(teacher->model());
        const at::Tensor states = teacher->hidden(batch, first);
        store(token_kl_divergence(hidden, of_model.head(), states, of_teacher.head(), loss_chunk),
              m.kl.data() + first * set.time());
    });
    for (auto* values : {&m.loss, &m.correct, &m.kl}) group.sum_in_place(std::span<double>(*values));
    return m;
}

}  // namespace amalgam
