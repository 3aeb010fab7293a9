// SPDX-License-Identifier: Apache-2.0
#include "job/context_check.h"

#include "mixers/sequence_pieces.h"
#include "system/error.h"

namespace amalgam {

std::vector<std::string> context_problems(const Job& job, int64_t ranks) {
    const int64_t context = job.sharding.context;
    std::vector<std::string> problems;
    if (context == 1) return problems;
    const std::string is = text("sharding.context is ", context);
    if (ranks >= 1 && ranks % context != 0)
        problems.push_back(text(is, " but there are ", ranks,
                                " ranks (so many share each sequence) start a multiple of ", context,
                                ", or lower it to a divisor of ", ranks));
    if (job.device == DeviceChoice::cuda)
        problems.push_back(
            is + " but device is cuda (pieces of sequences are computed on CPUs only) use sharding.context: 1");
    const auto check = [&](const char* stage, const TrainingJob& training) {
        if (training.tokens > 0 && !has_pieces(training.sequence_length, context))
            problems.push_back(text(is, " but ", stage, ".sequence_length is ", training.sequence_length,
                                    " (each rank needs at least ", shortest_piece,
                                    " tokens) use longer sequences, or fewer ranks for each"));
    };
    check("align", job.align);
    check("distill", job.distill);
    check("finetune", job.finetune);
    return problems;
}

}  // namespace amalgam
