// SPDX-License-Identifier: Apache-2.0
// The checkpoints of one stage in a folder: STAGE.h5 when the stage is finished, STAGE-00000200.h5 on the way.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"

namespace amalgam {

class StageCheckpoints {
  public:
    /// `keep_every`: those of every so many steps are never removed; 0: none.
    StageCheckpoints(std::filesystem::path folder, std::string stage, int64_t keep_last, int64_t keep_every = 0);
    const std::string& stage() const { return stage_; }
    std::filesystem::path finished() const;
    bool is_finished() const;
    std::filesystem::path at_step(int64_t step) const;
    /// The latest on the way, if any.
    std::optional<std::filesystem::path> latest() const;
    /// Opens one of them. Throws Error(damaged_file) if it says that it is another one: of another stage or step.
    std::unique_ptr<Checkpoint> open(const std::filesystem::path& path) const;
    /// Removes all but the `keep_last` latest on the way; all of them once the stage is finished. Those of `keep_every`
    /// stay.
    void purge() const;

  private:
    struct OnTheWay {
        int64_t step;
        std::filesystem::path path;
    };
    std::vector<OnTheWay> on_the_way() const;  // ascending by step
    std::filesystem::path folder_;
    std::string stage_;
    int64_t keep_last_, keep_every_;
};

}  // namespace amalgam
