// SPDX-License-Identifier: Apache-2.0
// Checkpoints: tensors by global name with their whole shape, fp32 masters, optimizer moments, one data cursor. They do
// not depend on the number of ranks that wrote them. Every dataset carries the xxh3 hash of its bytes, checked on
// reading.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "model/weights.h"
#include "storage/hdf5.h"
#include "training/adamw.h"

namespace amalgam {

struct CheckpointState {
    std::string stage;
    int64_t step = 0;         // optimizer steps done
    int64_t tokens = 0;       // training tokens seen in this stage
    int64_t data_cursor = 0;  // sequences taken from the stage's order
    int64_t seed = 0;
};

/// Writes the student's masters and, if `optimizer` is given, its moments. Serial: call on one rank.
void write_checkpoint(const std::filesystem::path& path, CausalLM& model, AdamW* optimizer,
                      const CheckpointState& state, const Provenance& provenance);

/// An open checkpoint: a source of weights, of moments and of the state.
class Checkpoint : public TensorSource {
  public:
    /// Throws Error(damaged_file) unless it is a complete checkpoint of a version we read.
    explicit Checkpoint(const std::filesystem::path& path);
    std::optional<at::Tensor> find(const std::string& name) const override;
    std::string where() const override { return file_.path().string(); }

    const ModelSpec& spec() const { return spec_; }
    const CheckpointState& state() const { return state_; }
    bool has_optimizer() const;
    void load_optimizer(AdamW& optimizer) const;

  private:
    at::Tensor read(const std::string& dataset) const;

    H5File file_;
    ModelSpec spec_;
    CheckpointState state_;
};

/// The checkpoints of one stage in a folder: STAGE.h5 when the stage is finished, STAGE-00000200.h5 on the way.
class StageCheckpoints {
  public:
    StageCheckpoints(std::filesystem::path folder, std::string stage, int64_t keep_last);
    std::filesystem::path finished() const;
    bool is_finished() const;
    std::filesystem::path at_step(int64_t step) const;
    /// The latest on the way, if any.
    std::optional<std::filesystem::path> latest() const;
    /// Removes all but the `keep_last` latest on the way; all of them once the stage is finished.
    void purge() const;

  private:
    std::vector<std::filesystem::path> on_the_way() const;  // ascending by step
    std::filesystem::path folder_;
    std::string stage_;
    int64_t keep_last_;
};

}  // namespace amalgam
