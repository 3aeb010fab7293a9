// SPDX-License-Identifier: Apache-2.0
// Is a job sensible? Everything that can be known before it starts, without MPI and GPUs, so that `amalgam check`
// answers on a login node and a run stops before it has wasted an allocation. All findings are reported at once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "job/job.h"
#include "specification/model_config.h"
#include "system/error.h"

namespace amalgam {

/// What the token files hold.
struct TokenCounts {
    int64_t training = 0;         // tokens
    int64_t validation = 0;       // tokens
    int64_t vocabulary_size = 0;  // that the larger one of the two needs; 0: unknown
    int64_t training_documents = 0, validation_documents = 0;
};

struct Findings {
    std::vector<std::string> problems;  // the job cannot run
    std::vector<std::string> notes;     // it can, but somebody should know

    template <class... Parts>
    void problem_if(bool wrong, const Parts&... parts) {
        if (wrong) problems.push_back(text(parts...));
    }
    template <class... Parts>
    void note_if(bool worth_saying, const Parts&... parts) {
        if (worth_saying) notes.push_back(text(parts...));
    }
    /// Parsers throw; here their text is one finding among others. `otherwise` where they do.
    template <class Parse>
    int64_t parsed(Parse parse, int64_t otherwise) {
        try {
            return parse();
        } catch (const Error& error) {
            problems.push_back(error.what());
            return otherwise;
        }
    }
};

/// Checks `job` on `ranks` ranks. Without `teacher` or `counts` (a file could not be read; the caller says why) the
/// checks that need them are left out. Looks at the file system: do the inputs exist?
Findings check_job(const Job& job, int64_t ranks, const std::optional<ModelConfig>& teacher,
                   const std::optional<TokenCounts>& counts);

}  // namespace amalgam
