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
                             const SequenceRanks& ranks) {
    const auto batches = recall_batches(questions);
    const size_t sharer = size_t(ranks.sharer()), sharers = size_t(ranks.sharers());
    std::vector<std::vector<RecallQuestion>> mine;  // made before any pass: what fails here fails on all ranks
    ranks.group.together([&] {
        for (size_t b = sharer; b < batches.size(); b += sharers) {
            mine.emplace_back();
            for (const int64_t question : batches[b]) mine.back().push_back(questions.make(question));
            mark_progress();
        }
    });
    enum : size_t { loglikelihood, mistaken, checksum, answer_tokens, width };
    SumsOfPieces sums(questions.size(), width, ranks);
    // Ranks of a sharded model that have no questions left go on with empty batches (weights_on_demand.h).
    const bool in_step = model.weights_on_demand() != nullptr;
    const size_t passes = in_step ? (batches.size() + sharers - 1) / sharers : mine.size();
    for (size_t pass = 0; pass < passes; ++pass) {
        std::vector<Continuation> batch;
        if (pass < mine.size())
            for (const RecallQuestion& question : mine[pass]) batch.push_back({question.tokens, question.context});
        const auto judgements = judge_continuations(model, batch, loss_chunk, ranks.context);
        for (size_t i = 0; i < judgements.size(); ++i) {
            const auto question = sums.of(batches[sharer + pass * sharers][i]);
            question[loglikelihood] = judgements[i].loglikelihood;
            question[mistaken] = judgements[i].greedy ? 0.0 : 1.0;
            if (ranks.piece() > 0) continue;
            const auto& tokens = batch[i].tokens;
            question[checksum] = double(crc32_of(tokens.data(), int64_t(tokens.size_bytes())));
            question[answer_tokens] = double(int64_t(tokens.size()) - batch[i].context);
        }
        mark_progress();
    }
    const std::vector<double> total = sums.total();
    RecallAnswers answers{questions.job(), {}, {}, {}};
    for (auto question = total.begin(); question != total.end(); question += width) {
        answers.right.push_back(question[mistaken] == 0.0 ? 1.0 : 0.0);
        answers.loss.push_back(-question[loglikelihood] / question[answer_tokens]);
        answers.checksum.push_back(question[checksum]);
    }
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
