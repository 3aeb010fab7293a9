// SPDX-License-Identifier: Apache-2.0
#include "evaluation/recall.h"

#include <algorithm>
#include <numeric>

#include "evaluation/continuations.h"
#include "job/training_plan.h"
#include "storage/checksum.h"
#include "system/activity.h"
#include "system/error.h"

namespace amalgam {

std::vector<std::vector<int64_t>> recall_batches(const RecallQuestions& questions, int64_t part, int64_t parts) {
    std::vector<int64_t> order(size_t(questions.size()), 0);
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return questions.length(a) > questions.length(b); });
    std::vector<std::vector<int64_t>> batches;
    for (size_t place = size_t(part); place < order.size(); place += size_t(parts)) {
        const int64_t question = order[place], length = questions.length(question);
        if (batches.empty() || questions.length(batches.back()[0]) != length ||
            int64_t(batches.back().size()) == recall_batch(length))
            batches.emplace_back();
        batches.back().push_back(question);
    }
    return batches;
}

RecallAnswers measure_recall(const CausalLM& model, const RecallQuestions& questions, int64_t loss_chunk,
                             const Communicator& group) {
    const auto batches = recall_batches(questions);
    const size_t rank = size_t(group.rank()), ranks = size_t(group.size());
    std::vector<std::vector<RecallQuestion>> mine;  // made before any pass: what fails here fails on all ranks
    group.together([&] {
        for (size_t b = rank; b < batches.size(); b += ranks) {
            mine.emplace_back();
            for (const int64_t question : batches[b]) mine.back().push_back(questions.make(question));
            mark_progress();
        }
    });
    const size_t count = size_t(questions.size());
    RecallAnswers answers{questions.job(), std::vector<double>(count), std::vector<double>(count),
                          std::vector<double>(count)};
    // Ranks of a sharded model that have no questions left go on with empty batches (weights_on_demand.h).
    const bool in_step = model.weights_on_demand() != nullptr;
    const size_t passes = in_step ? (batches.size() + ranks - 1) / ranks : mine.size();
    for (size_t pass = 0; pass < passes; ++pass) {
        std::vector<Continuation> batch;
        if (pass < mine.size())
            for (const RecallQuestion& question : mine[pass]) batch.push_back({question.tokens, question.context});
        const auto judgements = judge_continuations(model, batch, loss_chunk);
        for (size_t i = 0; i < judgements.size(); ++i) {
            const auto question = size_t(batches[rank + pass * ranks][i]);
            const auto& tokens = batch[i].tokens;
            answers.right[question] = judgements[i].greedy ? 1.0 : 0.0;
            answers.loss[question] = -judgements[i].loglikelihood / double(int64_t(tokens.size()) - batch[i].context);
            answers.checksum[question] = double(crc32_of(tokens.data(), int64_t(tokens.size_bytes())));
        }
        mark_progress();
    }
    // Every entry is nonzero on one rank only: sums are exact.
    for (auto* values : {&answers.right, &answers.loss, &answers.checksum})
        group.sum_in_place(std::span<double>(*values));
    return answers;
}

MeanAndError recall_at_length(const RecallAnswers& answers, size_t length) {
    const RecallJob& asked = answers.asked;
    const size_t of_a_length = size_t(asked.questions) * asked.depths.size();
    std::vector<double> right;
    for (size_t i = 0; i < answers.right.size(); ++i)
        if (i / of_a_length % asked.lengths.size() == length) right.push_back(answers.right[i]);
    return mean_and_error(right);
}

}  // namespace amalgam
