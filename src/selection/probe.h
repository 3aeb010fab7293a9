// SPDX-License-Identifier: Apache-2.0
// What candidates that are not trained are measured on: held-out text and recall questions, each looked at in one
// forward pass and held against the teacher's predictions, which are computed once.
#pragma once

#include <functional>
#include <map>

#include "evaluation/held_out.h"
#include "evaluation/recall_questions.h"

namespace amalgam {

/// By name, one value a sequence of text or a question:
///     kl                  KL(teacher || model), mean over tokens, nat/token
///     loss                of the next token, mean, nat/token
///     accuracy            share of next tokens that have the largest logit
///     hidden_state_error  |h_T - h|^2 / |h_T|^2 of the states before the head, mean over tokens
///     recall_kl, recall_loss  the same as kl and loss, over the tokens of a question's answer
///     recall              1: greedy decoding gives the answer; else 0
using ProbeSamples = std::map<std::string, std::vector<double>>;

class Probe {
  public:
    /// `questions` may be null. The teacher's states are kept as far as `cache_bytes` on this rank allow; it must
    /// outlive this. Collective over `group`, among whose ranks all is spread.
    Probe(const CausalLM& teacher, const HeldOutSet& text, const RecallQuestions* questions, int64_t loss_chunk,
          int64_t cache_bytes, const Communicator& group);

    /// What a model makes of the batch of that number: its states before the head [sequences, time, width]. The batch
    /// may be empty where models are sharded (weights_on_demand.h).
    using Forward = std::function<at::Tensor(const TokenBatch& batch, int64_t number)>;

    /// The model's head is the teacher's. Collective; the same on all ranks, whatever their number.
    ProbeSamples measure(const Forward& model) const;

  private:
    struct Batch {
        TokenBatch sequences;
        at::Tensor places = {}, targets = {};  // int64 [n]: what is predicted where, in sequences.tokens.flatten();
                                               // target -1: nothing
        std::vector<size_t> rows = {};         // of each place
        std::vector<bool> predicted = {};      // at each place: is there a target?
        std::vector<int64_t> numbers = {};     // of the sequences of text, or of the questions
        bool is_text = false;
    };
    Batch text_batch(const HeldOutSet& text, int64_t first) const;
    Batch question_batch(const RecallQuestions& questions, const std::vector<int64_t>& numbers) const;
    at::Tensor teacher_states(const Batch& batch, size_t mine) const;
    void add(const Batch& batch, const at::Tensor& hidden, const at::Tensor& of_teacher, const at::Tensor& head,
             ProbeSamples& samples) const;

    const CausalLM& teacher_;
    const Communicator& group_;
    int64_t loss_chunk_, sequences_, questions_;
    std::vector<Batch> batches_;  // of this rank; all tensors on the model's device
    int64_t passes_ = 0;          // of every rank
    double cache_bytes_;
    mutable double cached_bytes_ = 0.0;
    mutable std::vector<at::Tensor> cached_;  // the teacher's states at the places, by batch
};

}  // namespace amalgam
