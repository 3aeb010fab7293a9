// SPDX-License-Identifier: Apache-2.0
#include "evaluation/recall_file.h"

#include "evaluation/statistics.h"

namespace amalgam {
namespace {

/// Means and standard errors of each `size` values.
struct Groups {
    Groups(const std::vector<double>& values, size_t size) {
        for (size_t first = 0; first < values.size(); first += size) {
            const auto found = mean_and_error(std::span(values).subspan(first, size));
            mean.push_back(found.mean);
            error.push_back(found.standard_error);
        }
    }
    std::vector<double> mean, error;
};

}  // namespace

void write_recall(H5File& file, const std::vector<const RecallAnswers*>& answers) {
    const RecallJob& asked = answers.front()->asked;
    std::vector<double> right, loss;
    for (const RecallAnswers* of_model : answers) {
        right.insert(right.end(), of_model->right.begin(), of_model->right.end());
        loss.insert(loss.end(), of_model->loss.begin(), of_model->loss.end());
    }
    const std::vector<int64_t> cells = {int64_t(answers.size()), int64_t(asked.kinds.size()),
                                        int64_t(asked.lengths.size()), int64_t(asked.depths.size())};
    std::vector<int64_t> questions = cells;
    questions.push_back(asked.questions);
    const auto& checksum = answers.front()->checksum;
    const std::vector<int32_t> right_or_not(right.begin(), right.end());
    const std::vector<int64_t> checksums(checksum.begin(), checksum.end());
    file.write("/recall/kind", asked.kinds);
    file.write("/recall/length", std::vector<int64_t>{cells[2]}, std::span<const int64_t>(asked.lengths));
    file.write("/recall/depth", std::vector<int64_t>{cells[3]}, std::span<const int64_t>(asked.depths));
    file.write("/recall/right", questions, std::span<const int32_t>(right_or_not));
    file.write("/recall/answer_loss_per_question", questions, std::span<const double>(loss));
    file.write("/recall/checksum", std::span(questions).subspan(1), std::span<const int64_t>(checksums));
    const Groups accuracy(right, size_t(asked.questions)), answer_loss(loss, size_t(asked.questions));
    file.write("/recall/accuracy", cells, std::span<const double>(accuracy.mean));
    file.write("/recall/accuracy_standard_error", cells, std::span<const double>(accuracy.error));
    file.write("/recall/answer_loss", cells, std::span<const double>(answer_loss.mean));
    file.write("/recall/answer_loss_standard_error", cells, std::span<const double>(answer_loss.error));
    file.set_attribute("/recall", "seed", asked.seed);
}

}  // namespace amalgam
