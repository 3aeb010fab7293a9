// SPDX-License-Identifier: Apache-2.0
#include "app/job_inputs.h"

#include <algorithm>
#include <filesystem>

#include "model/config.h"
#include "storage/safetensors.h"
#include "storage/token_file.h"
#include "system/error.h"

namespace amalgam {

JobInputs look_at_inputs(const Job& job) {
    JobInputs inputs;
    // Files that are not there are check_job's to report.
    auto look = [&](const std::string& path, auto work) {
        if (path.empty() || !std::filesystem::exists(path)) return;
        try {
            work();
        } catch (const Error& error) {
            inputs.problems.push_back(error.what());
        }
    };
    look(job.teacher.path, [&] {
        const ModelConfig c = read_config(job.teacher.path);
        read_safetensors_folder(job.teacher.path);
        inputs.shape = ModelShape{c.hidden_size,       c.layers,          c.query_heads, c.key_value_heads, c.head_dim,
                                  c.intermediate_size, c.vocabulary_size, c.tied_head};
    });
    TokenCounts counts;
    bool complete = true;
    for (const auto& [path, count] :
         {std::pair{&job.data.training, &counts.training}, {&job.data.validation, &counts.validation}}) {
        const size_t problems = inputs.problems.size();
        look(*path, [&, path = path, count = count] {
            const TokenFile file(*path);
            *count = file.size();
            counts.vocabulary_size = std::max(counts.vocabulary_size, file.vocabulary_size());
        });
        complete = complete && *count > 0 && inputs.problems.size() == problems;
    }
    if (complete) inputs.counts = counts;
    return inputs;
}

}  // namespace amalgam
