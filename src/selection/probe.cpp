// SPDX-License-Identifier: Apache-2.0
#include "selection/probe.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "evaluation/continuations.h"
#include "evaluation/recall.h"
#include "objectives/chunked_losses.h"
#include "system/activity.h"
#include "system/error.h"

namespace amalgam {
namespace {

std::vector<double> on_host(const at::Tensor& values) {
    const at::Tensor host = values.to(at::kCPU, at::kDouble).contiguous();
    return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

/// From sums over so many tokens of each sequence to values whose mean is that over all tokens, and whose standard
/// error is that mean's (probe.h).
void as_parts_of_a_ratio(std::vector<double>& sums, const std::vector<double>& counts) {
    const double all = std::accumulate(counts.begin(), counts.end(), 0.0);
    const double mean = std::accumulate(sums.begin(), sums.end(), 0.0) / all;
    for (size_t i = 0; i < sums.size(); ++i) sums[i] = mean + (sums[i] - mean * counts[i]) * double(sums.size()) / all;
}

/// The inverse.
void as_sums(std::vector<double>& values, const std::vector<double>& counts) {
    const double all = std::accumulate(counts.begin(), counts.end(), 0.0);
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = mean * counts[i] + (values[i] - mean) * all / double(values.size());
}

}  // namespace

Probe::Probe(const CausalLM& teacher, const HeldOutSet& text, const RecallQuestions* questions, int64_t loss_chunk,
             int64_t cache_bytes, const Communicator& group, const FarContextJob& far_context, int64_t parts)
    : teacher_(teacher),
      group_(group),
      loss_chunk_(loss_chunk),
      sequences_(text.sequences()),
      questions_(questions ? questions->size() : 0),
      part_of_sequence_(size_t(sequences_)),
      part_of_question_(size_t(questions_)),
      cache_bytes_(double(cache_bytes)) {
    const auto ranks = size_t(group.size()), rank = size_t(group.rank());
    for (int64_t part = 0; part < parts; ++part) {
        // Batches are cut without regard to the number of ranks, so that their arithmetic is the same on any.
        std::vector<std::function<Batch()>> all;
        int64_t tokens = 0;
        for (int64_t first = part * held_out_micro_batch; first < sequences_; first += parts * held_out_micro_batch) {
            all.emplace_back([&, first] { return text_batch(text, first); });
            for (int64_t s = first; s < std::min(first + held_out_micro_batch, sequences_); ++s) {
                part_of_sequence_[size_t(s)] = part;
                tokens += text.time();
            }
        }
        const size_t of_text = all.size();
        if (questions)
            for (const auto& numbers : recall_batches(*questions, part, parts)) {
                all.emplace_back([this, questions, numbers] { return question_batch(*questions, numbers); });
                for (const int64_t question : numbers) {
                    part_of_question_[size_t(question)] = part;
                    tokens += questions->length(question);
                }
            }
        group.together([&] {  // making a question may fail
            for (size_t b = 0; b < all.size(); b += ranks) {
                batches_.push_back(b + rank < all.size() ? all[b + rank]() : Batch());
                may_have_text_.push_back(b < of_text);
            }
        });
        first_pass_.push_back(int64_t(batches_.size()));
        tokens_of_part_.push_back(tokens);
        tokens_ += tokens;
    }
    cached_.resize(batches_.size());
    if (far_context.weight > 0.0) look_for_far_tokens(far_context);
}

int64_t Probe::far_tokens() const {
    return int64_t(std::accumulate(far_of_sequence_.begin(), far_of_sequence_.end(), 0.0));
}

void Probe::look_for_far_tokens(const FarContextJob& far_context) {
    const at::NoGradGuard no_grad;
    const bool in_step = teacher_.weights_on_demand() != nullptr;
    const HeldOuterWeights outer(teacher_);
    far_of_sequence_.assign(size_t(sequences_), 0.0);
    for (size_t pass = 0; pass < batches_.size(); ++pass) {
        Batch& batch = batches_[pass];
        if (batch.is_text) {
            const at::Tensor far = needs_far_context(teacher_, outer.head(), batch.sequences,
                                                     teacher_states(batch, pass), far_context, loss_chunk_)
                                       .to(at::kCPU);
            const bool* values = far.const_data_ptr<bool>();
            batch.far.assign(values, values + far.numel());
            for (size_t i = 0; i < batch.rows.size(); ++i)
                if (batch.far[i]) ++far_of_sequence_[size_t(batch.numbers[batch.rows[i]])];
        } else if (in_step && may_have_text_[pass]) {
            const at::Tensor nothing = empty_batch();
            needs_far_context(teacher_, outer.head(), nothing, teacher_.hidden(nothing).flatten(0, 1), far_context,
                              loss_chunk_);
        }
        mark_progress();
    }
    group_.sum_in_place(std::span<double>(far_of_sequence_));
    if (far_tokens() == 0)  // the same on all ranks
        throw SharedError(
            text("score.far_context.gain: the whole context lowers the loss of none of the held-out tokens "
                 "by ",
                 far_context.gain,
                 " nat (there is nothing to measure) use longer or more sequences "
                 "(score.sequence_length, score.validation_sequences), a smaller window or a smaller gain"),
            ExitCode::bad_input);
}

at::Tensor Probe::empty_batch() const {
    return at::empty({0, 1}, at::TensorOptions(at::kLong).device(teacher_.device()));
}

Probe::Batch Probe::text_batch(const HeldOutSet& text, int64_t first) const {
    const int64_t count = std::min(held_out_micro_batch, text.sequences() - first), time = text.time();
    Batch batch{.sequences = text.batch(first, count, teacher_.device())};
    batch.places = at::arange(count * time, at::kLong).to(teacher_.device());
    batch.targets = next_tokens(batch.sequences);
    const std::vector<bool> predicts = text.predicts();
    for (int64_t i = 0; i < count * time; ++i) {
        batch.rows.push_back(size_t(i / time));
        batch.predicted.push_back(predicts[size_t(first * time + i)]);
    }
    for (int64_t i = 0; i < count; ++i) batch.numbers.push_back(first + i);
    batch.is_text = true;
    return batch;
}

Probe::Batch Probe::question_batch(const RecallQuestions& questions, const std::vector<int64_t>& numbers) const {
    std::vector<RecallQuestion> made;
    for (const int64_t number : numbers) made.push_back(questions.make(number));
    std::vector<Continuation> asked;
    for (const RecallQuestion& question : made) asked.push_back({question.tokens, question.context});
    const ContinuationBatch laid_out = lay_out(asked);
    Batch batch{.sequences = laid_out.tokens.to(teacher_.device())};
    batch.places = at::tensor(laid_out.places, at::kLong).to(teacher_.device());
    batch.targets = at::tensor(laid_out.targets, at::kLong).to(teacher_.device());
    batch.rows = laid_out.rows;
    batch.predicted.assign(batch.rows.size(), true);
    batch.numbers = numbers;
    return batch;
}

at::Tensor Probe::teacher_states(const Batch& batch, size_t mine) const {
    if (cached_[mine].defined()) return cached_[mine];
    const at::Tensor states = teacher_.hidden(batch.sequences).flatten(0, 1).index_select(0, batch.places);
    const auto bytes = double(states.nbytes());
    // A sharded teacher runs in step on all ranks, so all of them keep everything or nothing.
    const bool keeps = !teacher_.weights_on_demand() && cached_bytes_ + bytes <= cache_bytes_;
    if (!keeps) return states;
    cached_bytes_ += bytes;
    return cached_[mine] = states;
}

ProbeSamples Probe::measure(const Forward& model) const {
    ProbeProgress progress = begin();
    while (progress.parts < parts()) measure_next(model, progress);
    return whole(progress);
}

ProbeProgress Probe::begin() const {
    ProbeProgress progress;
    const auto text = size_t(sequences_), asked = size_t(questions_);
    for (const char* name : {"kl", "loss", "accuracy", "hidden_state_error"}) progress.samples[name].resize(text);
    if (!far_of_sequence_.empty()) progress.samples["far_kl"].resize(text);
    if (asked > 0)
        for (const char* name : {"recall_kl", "recall_loss", "recall"}) progress.samples[name].resize(asked);
    progress.sequences.resize(text);
    progress.questions.resize(asked);
    return progress;
}

void Probe::measure_next(const Forward& model, ProbeProgress& progress) const {
    const at::NoGradGuard no_grad;
    ProbeSamples samples = begin().samples;
    const bool in_step = teacher_.weights_on_demand() != nullptr;
    const HeldOuterWeights outer(teacher_);
    const auto part = size_t(progress.parts);
    for (int64_t pass = first_pass_[part]; pass < first_pass_[part + 1]; ++pass) {
        const Batch& batch = batches_[size_t(pass)];
        if (!batch.numbers.empty()) {
            const at::Tensor of_teacher = teacher_states(batch, size_t(pass));
            const at::Tensor hidden = model(batch.sequences, pass).flatten(0, 1).index_select(0, batch.places);
            add(batch, hidden, of_teacher, outer.head(), samples);
        } else if (in_step) {
            teacher_.hidden(empty_batch());
            model(empty_batch(), pass);
        }
        mark_progress();
    }
    for (auto& [name, values] : samples) {
        group_.sum_in_place(std::span<double>(values));  // every entry is nonzero on one rank only: exact
        std::vector<double>& before = progress.samples.at(name);
        for (size_t i = 0; i < values.size(); ++i) before[i] += values[i];  // and in one part only
    }
    for (size_t s = 0; s < part_of_sequence_.size(); ++s)
        if (part_of_sequence_[s] == progress.parts) progress.sequences[s] = true;
    for (size_t q = 0; q < part_of_question_.size(); ++q)
        if (part_of_question_[q] == progress.parts) progress.questions[q] = true;
    progress.tokens += tokens_of_part_[part];
    ++progress.parts;
}

ProbeSamples Probe::whole(const ProbeProgress& progress) const {
    ProbeSamples samples = progress.samples;
    if (!far_of_sequence_.empty()) as_parts_of_a_ratio(samples.at("far_kl"), far_of_sequence_);
    return samples;
}

ProbeSamples Probe::in_sums(ProbeSamples samples) const {
    if (!far_of_sequence_.empty()) as_sums(samples.at("far_kl"), far_of_sequence_);
    return samples;
}

void Probe::add(const Batch& batch, const at::Tensor& hidden, const at::Tensor& of_teacher, const at::Tensor& head,
                ProbeSamples& samples) const {
    const auto kl = on_host(token_kl_divergence(hidden, head, of_teacher, head, loss_chunk_));
    const TokenLosses losses = token_cross_entropy(hidden, head, batch.targets, loss_chunk_);
    const auto loss = on_host(losses.loss), correct = on_host(losses.correct);
    const size_t rows = batch.numbers.size();
    std::vector<double> tokens(rows), predicted(rows), kl_sum(rows), far_sum(rows), loss_sum(rows), right(rows);
    for (size_t i = 0; i < batch.rows.size(); ++i) {
        const size_t row = batch.rows[i];
        ++tokens[row];
        kl_sum[row] += kl[i];
        if (!batch.far.empty() && batch.far[i]) far_sum[row] += kl[i];
        if (!batch.predicted[i]) continue;
        ++predicted[row];
        loss_sum[row] += loss[i];
        right[row] += correct[i];
    }
    if (!batch.is_text) {
        for (size_t row = 0; row < rows; ++row) {
            const auto question = size_t(batch.numbers[row]);
            samples["recall_kl"][question] = kl_sum[row] / tokens[row];
            samples["recall_loss"][question] = loss_sum[row] / predicted[row];
            samples["recall"][question] = right[row] == predicted[row] ? 1.0 : 0.0;
        }
        return;
    }
    const at::Tensor t = of_teacher.to(at::kFloat);
    const auto error = on_host((hidden.to(at::kFloat) - t).square().sum(1) / t.square().sum(1));
    std::vector<double> error_sum(rows);
    for (size_t i = 0; i < batch.rows.size(); ++i) error_sum[batch.rows[i]] += error[i];
    for (size_t row = 0; row < rows; ++row) {
        const auto sequence = size_t(batch.numbers[row]);
        samples["kl"][sequence] = kl_sum[row] / tokens[row];
        const double predictions = std::max(predicted[row], 1.0);  // there are none in documents of one token each
        if (!batch.far.empty()) samples["far_kl"][sequence] = far_sum[row];
        samples["loss"][sequence] = loss_sum[row] / predictions;
        samples["accuracy"][sequence] = right[row] / predictions;
        samples["hidden_state_error"][sequence] = error_sum[row] / tokens[row];
    }
}

}  // namespace amalgam
