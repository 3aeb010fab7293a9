// SPDX-License-Identifier: Apache-2.0
// Checkpoints: tensors by global name with their whole shape, fp32 masters, optimizer moments, one data cursor. They do
// not depend on the number of ranks that wrote them, and are read by any number. Every dataset carries the CRC-32 of
// its bytes, checked on reading.
#pragma once

#include "checkpoints/checkpoint_writer.h"
#include "model/weights.h"
#include "storage/hdf5.h"

namespace amalgam {

class PosixFile;

/// An open checkpoint: a source of weights, of moments and of the state.
class Checkpoint : public TensorSource {
  public:
    /// Throws Error(damaged_file) unless it is a complete checkpoint of a version we read.
    explicit Checkpoint(const std::filesystem::path& path);
    std::optional<at::Tensor> find(const std::string& name) const override;
    std::string where() const override { return file_.path().string(); }

    const ModelSpec& spec() const { return spec_; }
    const CheckpointState& state() const { return state_; }
    /// Steps that the saved moments have seen; none if there are no moments.
    std::optional<int64_t> optimizer_steps() const { return optimizer_steps_; }

    /// Reads as many of its bytes as `most_bytes` allow and throws what read() throws. For files that nothing will be
    /// read from now, but that are relied on. Serial.
    void look_through(int64_t most_bytes) const;

    /// Fills the values of `pieces` (on the CPU). Collective over `group`. Every rank names every tensor, in the same
    /// order. Ranks that want less than a whole tensor must want each element of it once, all together: its checksum is
    /// then taken from what they read. Throws on all ranks, naming file and dataset: Error(damaged_file), or
    /// Error(diverged) for values that are not finite.
    void read(const std::vector<TensorPiece>& pieces, const Communicator& group) const;

    /// Fills whole tensors on all ranks (any device): each rank reads an equal piece of the file, and they exchange.
    /// Collective.
    void read_replicas(const std::vector<TensorPiece>& whole, const Communicator& group) const;

  private:
    uint32_t read_piece(const PosixFile& bytes, const TensorPiece& piece) const;
    [[noreturn]] void damaged(const std::string& dataset) const;

    H5File file_;
    ModelSpec spec_;
    CheckpointState state_;
    std::optional<int64_t> optimizer_steps_;
};

}  // namespace amalgam
