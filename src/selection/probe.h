// SPDX-License-Identifier: Apache-2.0
// What candidates that are not trained are measured on: held-out text and recall questions, each looked at in one
// forward pass and held against the teacher's predictions, which are computed once.
#pragma once

#include <functional>
#include <map>
#include <span>

#include "evaluation/held_out.h"
#include "questions/recall_questions.h"
#include "selection/far_context.h"

namespace amalgam {

/// By name, one value a sequence of text or a question:
///     kl                  KL(teacher || model), mean over tokens, nat/token
///     loss                of the next token, mean, nat/token
///     accuracy            share of next tokens that have the largest logit
///     hidden_state_error  |h_T - h|^2 / |h_T|^2 of the states before the head, mean over tokens
///     far_kl              KL on the tokens that need far context (far_context.h), nat/token; only where it is asked
///     for recall_kl, recall_loss  the same as kl and loss, over the tokens of a question's answer recall 1: greedy
///     decoding gives the answer; else 0
/// A sequence may have few tokens or none that need far context. Its far_kl is therefore M + (sum over its n such
/// tokens of (KL - M)) / (mean n of the sequences), where M is the mean over all such tokens: so the mean of the values
/// is M, and their standard error is that of a ratio of sums (W. G. Cochran, Sampling Techniques, 1977, chapter 6).
using ProbeSamples = std::map<std::string, std::vector<double>>;

/// What was measured so far of a model that is measured part by part.
struct ProbeProgress {
    ProbeSamples samples;                    // zeros where nothing was measured yet; "far_kl": sums, as below
    std::vector<bool> sequences, questions;  // which were measured
    int64_t parts = 0;                       // likewise, the first ones
    int64_t tokens = 0;                      // of these
};

class Probe {
  public:
    /// `questions` may be null. The teacher's states are kept as far as `cache_bytes` on this rank allow; it must
    /// outlive this. With a `far_context` of weight 0 its tokens are not looked for. Text and questions are divided
    /// into `parts`, of which each has some of all (but batches of text are not divided). All is spread over `ranks`,
    /// to which this is collective. Throws Error(bad_input) if no token needs far context.
    Probe(const CausalLM& teacher, const HeldOutSet& text, const RecallQuestions* questions, int64_t loss_chunk,
          int64_t cache_bytes, const SequenceRanks& ranks, const FarContextJob& far_context = {}, int64_t parts = 1);

    /// Of the text, those that need far context.
    int64_t far_tokens() const;
    /// Of text and questions.
    int64_t tokens() const { return tokens_; }
    int64_t parts() const { return int64_t(first_pass_.size()) - 1; }

    /// What a model makes of the batch of that number: its states before the head [sequences, time, width], of this
    /// rank's piece where ranks share sequences. The batch may be empty where models are sharded (weights_on_demand.h).
    using Forward = std::function<at::Tensor(const TokenBatch& batch, int64_t number)>;

    /// The model's head is the teacher's. Collective; the same on all ranks, whatever their number.
    ProbeSamples measure(const Forward& model) const;

    /// The same part by part: begin(), measure_next() until all parts were measured, then whole().
    ProbeProgress begin() const;
    void measure_next(const Forward& model, ProbeProgress& progress) const;
    ProbeSamples whole(const ProbeProgress& progress) const;

    /// far_kl is measured as sums over the tokens that need far context, one a sequence; in such sums, what whole()
    /// made of them.
    ProbeSamples in_sums(ProbeSamples samples) const;

  private:
    struct Batch {
        TokenBatch sequences = at::Tensor();
        at::Tensor places = {}, targets = {};  // int64 [n]: what is predicted where, in the flattened tokens of this
                                               // rank's piece; target -1: nothing
        int64_t most_places = 0;               // of all ranks that share the sequences
        std::vector<size_t> rows = {};         // of each place
        std::vector<bool> predicted = {};      // at each place: is there a target?
        std::vector<bool> far = {};            // likewise: does it need far context? Empty: not looked for
        std::vector<int64_t> numbers =
            {};  // of the sequences of text, or of the questions; none: a pass without a batch
        bool is_text = false;
    };
    Batch text_batch(const HeldOutSet& text, int64_t first, int64_t count) const;
    Batch question_batch(const RecallQuestions& questions, const std::vector<int64_t>& numbers) const;
    void look_for_far_tokens(const FarContextJob& far_context);
    at::Tensor empty_batch() const;
    at::Tensor teacher_states(const Batch& batch, size_t mine) const;
    /// What is added up over the tokens of a sequence or of an answer. `measured`: the tokens themselves; `predicted`:
    /// those that have a next one.
    enum Sum : size_t { measured, predicted, kl, far_kl, loss, right, error, sums };
    /// `found`: of the sequences, then of the questions.
    void add(const Batch& batch, const at::Tensor& hidden, const at::Tensor& of_teacher, const at::Tensor& head,
             SumsOfPieces& found) const;
    void keep_sequence(size_t sequence, std::span<const double> found, ProbeSamples& samples) const;
    void keep_question(size_t question, std::span<const double> found, ProbeSamples& samples) const;

    const CausalLM& teacher_;
    const SequenceRanks ranks_;
    int64_t loss_chunk_, sequences_, questions_, tokens_ = 0;
    std::vector<Batch> batches_;             // of this rank, by pass; all tensors on the model's device
    std::vector<bool> may_have_text_;        // in each pass: has any rank text?
    std::vector<int64_t> first_pass_ = {0};  // of each part, then the number of passes; the same on every rank
    std::vector<int64_t> part_of_sequence_, part_of_question_, tokens_of_part_;
    std::vector<double> far_of_sequence_;  // tokens that need far context; empty: not looked for
    double cache_bytes_;
    mutable double cached_bytes_ = 0.0;
    mutable std::vector<at::Tensor> cached_;  // the teacher's states at the places, by pass
};

}  // namespace amalgam
