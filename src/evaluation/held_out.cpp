// SPDX-License-Identifier: Apache-2.0
#include "evaluation/held_out.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "model/own_piece.h"
#include "objectives/chunked_losses.h"
#include "system/activity.h"
#include "system/error.h"
#include "training/batches.h"

namespace amalgam {
namespace {

/// Calls `work(first, batch on the device)` for the micro-batches of this rank, or of those that share sequences with
/// it. Micro-batches are cut without regard to the number of ranks, so that their arithmetic is the same on any.
/// `in_step`: a model is sharded, and ranks with fewer of them go on with empty ones (weights_on_demand.h).
template <class Work>
void for_each_micro_batch(const HeldOutSet& set, int64_t micro, const SequenceRanks& ranks, at::Device device,
                          bool in_step, Work work) {
    const int64_t batches = (set.sequences() + micro - 1) / micro, sharers = ranks.sharers();
    const int64_t begin = batches * ranks.sharer() / sharers, end = batches * (ranks.sharer() + 1) / sharers;
    for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * micro, count = std::min(micro, set.sequences() - first);
        work(first, set.batch(first, count, device));
        mark_progress();
    }
    const int64_t most = (batches + sharers - 1) / sharers;
    for (int64_t b = end; in_step && b < begin + most; ++b) work(b, set.batch(0, 0, device));
}

/// Copies what was measured of the tokens of this rank's piece of sequences [first, first + count) to their places in
/// row-major doubles [sequences, time].
void store(const at::Tensor& values, int64_t first, const TokenBatch& batch, ContextGroup* context,
           std::vector<double>& all) {
    if (batch.sequences() == 0) return;
    const at::Tensor rows = at::from_blob(all.data() + first * batch.time(), batch.tokens.sizes(), at::kDouble);
    own_piece(rows, context).copy_(values.view({batch.sequences(), -1}));
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
    require(std::find(predicts.begin(), predicts.end(), true) != predicts.end(), "data.validation: in its first ",
            sequences, " sequences of ", sequence_length,
            " tokens no token has a next one in its document (there is no loss to measure); give longer documents, or "
            "data.documents: joined");
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
                                int64_t micro_batch, int64_t loss_chunk, const SequenceRanks& ranks) {
    const at::NoGradGuard no_grad;
    SumsOfPieces sums(set.sequences(), 1, ranks);
    const bool in_step = student.weights_on_demand() || teacher.model().weights_on_demand();
    for_each_micro_batch(
        set, micro_batch, ranks, student.device(), in_step, [&](int64_t first, const TokenBatch& batch) {
            const HeldOuterWeights of_teacher(teacher.model()), of_student(student);
            const at::Tensor states = teacher.hidden(batch, first, ranks.context),
                             hidden = student.hidden(batch, ranks.context).flatten(0, 1);
            const at::Tensor kl = token_kl_divergence(hidden, of_student.head(), states, of_teacher.head(), loss_chunk);
            if (batch.sequences() == 0) return;
            const at::Tensor of_sequences = kl.view({batch.sequences(), -1}).sum(1, false, at::kDouble).cpu();
            for (int64_t s = 0; s < batch.sequences(); ++s)
                sums.of(first + s)[0] = of_sequences.const_data_ptr<double>()[s];
        });
    std::vector<double> result = sums.total();
    for (double& kl : result) kl /= double(set.time());
    return result;
}

TokenMeasurements measure_tokens(const CausalLM& model, TeacherStates* teacher, const HeldOutSet& set,
                                 int64_t micro_batch, int64_t loss_chunk, const SequenceRanks& ranks) {
    const at::NoGradGuard no_grad;
    const size_t count = size_t(set.sequences() * set.time());
    TokenMeasurements m{std::vector<double>(count), std::vector<double>(count),
                        std::vector<double>(teacher ? count : 0)};
    const bool in_step = model.weights_on_demand() || (teacher && teacher->model().weights_on_demand());
    for_each_micro_batch(set, micro_batch, ranks, model.device(), in_step, [&](int64_t first, const TokenBatch& batch) {
        const HeldOuterWeights of_model(model);
        const at::Tensor hidden = model.hidden(batch, ranks.context).flatten(0, 1);
        const at::Tensor targets = own_next_tokens(batch, ranks.context);
        const auto losses = token_cross_entropy(hidden, of_model.head(), targets, loss_chunk);
        store(losses.loss, first, batch, ranks.context, m.loss);
        store(losses.correct, first, batch, ranks.context, m.correct);
        if (!teacher) return;
        const HeldOuterWeights of_teacher(teacher->model());
        const at::Tensor states = teacher->hidden(batch, first, ranks.context);
        store(token_kl_divergence(hidden, of_model.head(), states, of_teacher.head(), loss_chunk), first, batch,
              ranks.context, m.kl);
    });
    // Every entry is nonzero on one rank only: sums are exact.
    for (auto* values : {&m.loss, &m.correct, &m.kl}) ranks.group.sum_in_place(std::span<double>(*values));
    return m;
}

}  // namespace amalgam
