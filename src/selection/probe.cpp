// SPDX-License-Identifier: Apache-2.0
#include "selection/probe.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "evaluation/continuations.h"
#include "evaluation/recall.h"
#include "job/training_plan.h"
#include "model/own_piece.h"
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
             int64_t cache_bytes, const SequenceRanks& ranks, const FarContextJob& far_context, int64_t parts)
    : teacher_(teacher),
      ranks_(ranks),
      loss_chunk_(loss_chunk),
      sequences_(text.sequences()),
      questions_(questions ? questions->size() : 0),
      part_of_sequence_(size_t(sequences_)),
      part_of_question_(size_t(questions_)),
      cache_bytes_(double(cache_bytes)) {
    const auto sharers = size_t(ranks.sharers()), sharer = size_t(ranks.sharer());
    const int64_t of_text_batch = held_out_batch(text.time());
    for (int64_t part = 0; part < parts; ++part) {
        // Batches are cut without regard to the number of ranks, so that their arithmetic is the same on any.
        std::vector<std::function<Batch()>> all;
        int64_t tokens = 0;
        for (int64_t first = part * of_text_batch; first < sequences_; first += parts * of_text_batch) {
            const int64_t count = std::min(of_text_batch, sequences_ - first);
            all.emplace_back([this, &text, first, count] { return text_batch(text, first, count); });
            for (int64_t s = first; s < first + count; ++s) {
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
        ranks.group.together([&] {  // making a question may fail
            for (size_t b = 0; b < all.size(); b += sharers) {
                batches_.push_back(b + sharer < all.size() ? all[b + sharer]() : Batch());
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
            const at::Tensor far =
                needs_far_context(teacher_, outer.head(), batch.sequences, teacher_states(batch, pass), far_context,
                                  loss_chunk_, ranks_.context)
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
    ranks_.group.sum_in_place(std::span<double>(far_of_sequence_));  // of whole numbers: exact
    if (far_tokens() == 0)                                           // the same on all ranks
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

Probe::Batch Probe::text_batch(const HeldOutSet& text, int64_t first, int64_t count) const {
    Batch batch{.sequences = text.batch(first, count, teacher_.device())};
    const SequencePiece piece = own_piece(text.time(), ranks_.context);
    batch.places = at::arange(count * piece.count, at::kLong).to(teacher_.device());
    batch.targets = own_next_tokens(batch.sequences, ranks_.context);
    batch.most_places = most_numbers(batch.sequences, 1, ranks_.context);
    const std::vector<bool> predicts = text.predicts();
    for (int64_t s = 0; s < count; ++s)
        for (int64_t t = piece.first; t < piece.end(); ++t) {
            batch.rows.push_back(size_t(s));
            batch.predicted.push_back(predicts[size_t((first + s) * text.time() + t)]);
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
    const OwnPlaces own = own_places(laid_out.places, laid_out.tokens.size(1), ranks_.context);
    std::vector<int64_t> targets;
    for (const size_t i : own.which) {
        targets.push_back(laid_out.targets[i]);
        batch.rows.push_back(laid_out.rows[i]);
    }
    batch.places = at::tensor(own.places, at::kLong).to(teacher_.device());
    batch.targets = at::tensor(targets, at::kLong).to(teacher_.device());
    batch.most_places = int64_t(laid_out.places.size());
    batch.predicted.assign(batch.rows.size(), true);
    batch.numbers = numbers;
    return batch;
}

at::Tensor Probe::teacher_states(const Batch& batch, size_t mine) const {
    if (cached_[mine].defined()) return cached_[mine];
    const at::Tensor states =
        teacher_.hidden(batch.sequences, ranks_.context).flatten(0, 1).index_select(0, batch.places);
    const auto bytes = double(batch.most_places * states.size(1) * states.element_size());
    // A sharded teacher runs in step on all ranks, so all of them keep everything or nothing; those that share
    // sequences keep the same ones.
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
    SumsOfPieces found(sequences_ + questions_, sums, ranks_);
    const bool in_step = teacher_.weights_on_demand() != nullptr;
    const HeldOuterWeights outer(teacher_);
    const auto part = size_t(progress.parts);
    for (int64_t pass = first_pass_[part]; pass < first_pass_[part + 1]; ++pass) {
        const Batch& batch = batches_[size_t(pass)];
        if (!batch.numbers.empty()) {
            const at::Tensor of_teacher = teacher_states(batch, size_t(pass));
            const at::Tensor hidden = model(batch.sequences, pass).flatten(0, 1).index_select(0, batch.places);
            add(batch, hidden, of_teacher, outer.head(), found);
        } else if (in_step) {
            teacher_.hidden(empty_batch());
            model(empty_batch(), pass);
        }
        mark_progress();
    }
    const std::vector<double> total = found.total();
    const auto of_item = [&](size_t item) { return std::span(total).subspan(item * sums, sums); };
    for (size_t s = 0; s < part_of_sequence_.size(); ++s) {
        if (part_of_sequence_[s] != progress.parts) continue;
        keep_sequence(s, of_item(s), progress.samples);
        progress.sequences[s] = true;
    }
    for (size_t q = 0; q < part_of_question_.size(); ++q) {
        if (part_of_question_[q] != progress.parts) continue;
        keep_question(q, of_item(part_of_sequence_.size() + q), progress.samples);
        progress.questions[q] = true;
    }
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
                SumsOfPieces& found) const {
    const auto kls = on_host(token_kl_divergence(hidden, head, of_teacher, head, loss_chunk_));
    const TokenLosses losses = token_cross_entropy(hidden, head, batch.targets, loss_chunk_);
    const auto loss_of = on_host(losses.loss), correct = on_host(losses.correct);
    std::vector<double> errors(kls.size());
    if (batch.is_text) {
        const at::Tensor t = of_teacher.to(at::kFloat);
        errors = on_host((hidden.to(at::kFloat) - t).square().sum(1) / t.square().sum(1));
    }
    for (size_t i = 0; i < batch.rows.size(); ++i) {
        const int64_t number = batch.numbers[batch.rows[i]];
        const auto of_row = found.of(batch.is_text ? number : sequences_ + number);
        ++of_row[measured];
        of_row[kl] += kls[i];
        of_row[error] += errors[i];
        if (!batch.far.empty() && batch.far[i]) of_row[far_kl] += kls[i];
        if (!batch.predicted[i]) continue;
        ++of_row[predicted];
        of_row[loss] += loss_of[i];
        of_row[right] += correct[i];
    }
}

void Probe::keep_sequence(size_t sequence, std::span<const double> found, ProbeSamples& samples) const {
    const double predictions = std::max(found[predicted], 1.0);  // there are none in documents of one token each
    samples["kl"][sequence] = found[kl] / found[measured];
    if (!far_of_sequence_.empty()) samples["far_kl"][sequence] = found[far_kl];
    samples["loss"][sequence] = found[loss] / predictions;
    samples["accuracy"][sequence] = found[right] / predictions;
    samples["hidden_state_error"][sequence] = found[error] / found[measured];
}

void Probe::keep_question(size_t question, std::span<const double> found, ProbeSamples& samples) const {
    samples["recall_kl"][question] = found[kl] / found[measured];
    samples["recall_loss"][question] = found[loss] / found[predicted];
    samples["recall"][question] = found[right] == found[predicted] ? 1.0 : 0.0;
}

}  // namespace amalgam
