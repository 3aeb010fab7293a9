// SPDX-License-Identifier: Apache-2.0
// Answers that a job which is stopped leaves for the next: files MODEL.REQUEST.h5 in a folder, each with some answers
// of one rank and named for the first of their requests. Any number of ranks reads them. Layout in outputs/README.md.
#pragma once

#include <chrono>
#include <map>
#include <vector>

#include "comm/communicator.h"
#include "evaluation/requests.h"

namespace amalgam {

struct Answer {
    double loglikelihood = 0.0;  // NaN for generated ones
    int32_t greedy = 0;
    std::vector<int32_t> generated;
};

class KeptAnswers {
  public:
    /// Reads what is there of requests with this fingerprint; what answers others is removed. Collective. Throws
    /// Error(damaged_file).
    KeptAnswers(const AnswerPlace& place, const std::string& fingerprint, const Communicator& group);

    /// By request; the same on all ranks.
    const std::map<int64_t, Answer>& found() const { return found_; }

    /// Keeps an answer of this rank, on disk within a minute or with the next write().
    void add(int64_t request, Answer answer);
    /// Of this rank: since the beginning.
    const std::map<int64_t, Answer>& own() const { return own_; }
    void write();

  private:
    AnswerPlace place_;
    std::string fingerprint_;
    std::map<int64_t, Answer> found_, own_;
    std::vector<int64_t> unwritten_;
    std::chrono::steady_clock::time_point written_ = std::chrono::steady_clock::now();
};

/// Where a run keeps them.
inline std::filesystem::path kept_answers_folder(const std::filesystem::path& run_folder) {
    return run_folder / "answers";
}

/// All that `place.model` answered in an evaluation.h5 becomes kept answers of `place`. How many they are; 0 if it was
/// asked nothing. Of one rank. Throws Error(damaged_file, storage).
int64_t keep_evaluated_answers(const std::filesystem::path& evaluation, const AnswerPlace& place);

/// Removes all that was kept, once evaluation.h5 is there. Of one rank.
void remove_kept_answers(const std::filesystem::path& folder);

}  // namespace amalgam
