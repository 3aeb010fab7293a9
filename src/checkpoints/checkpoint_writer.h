// SPDX-License-Identifier: Apache-2.0
// Writes one checkpoint by all ranks of a group. The root makes the HDF5 file under a temporary name with the space of
// every tensor set aside; each rank then writes its pieces to their places in the file and syncs; when all have, the
// root enters the checksums, marks the file complete and gives it its name. HDF5 is used by the root alone and MPI-IO
// not at all. What goes between ranks has the size of the table of tensors, whatever their number.
#pragma once

#include <exception>
#include <filesystem>
#include <functional>
#include <optional>

#include "checkpoints/tensor_piece.h"
#include "comm/communicator.h"
#include "specification/model_spec.h"
#include "system/provenance.h"

namespace amalgam {

struct CheckpointState {
    std::string stage;
    int64_t step = 0;         // optimizer steps done
    int64_t tokens = 0;       // training tokens seen in this stage
    int64_t data_cursor = 0;  // sequences taken from the stage's order
    int64_t seed = 0;
    std::string update_guard = {};  // its state (optimizer/update_guard.h); empty: not kept
};

/// All of a checkpoint but its tensors.
struct CheckpointHeader {
    CheckpointState state;
    ModelSpec spec;
    std::optional<int64_t> optimizer_steps;  // none: no moments are saved
    Provenance provenance;
};

class CheckpointWriter {
  public:
    /// Makes the temporary file. Collective. Every rank names every tensor once, in the same order; the pieces of all
    /// ranks must cover each tensor exactly once. Pieces on the CPU are not copied: they must stay as they are until
    /// write() has returned. Throws Error(storage).
    CheckpointWriter(std::filesystem::path path, const CheckpointHeader& header, std::vector<TensorPiece> pieces,
                     const Communicator& group);
    /// Removes the temporary file unless finish() has succeeded.
    ~CheckpointWriter();
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;

    /// Writes and syncs this rank's pieces. No MPI and no HDF5: may run in a thread of its own. Throws nothing; what
    /// went wrong is everybody's in finish().
    void write() noexcept;

    /// Makes the written file the checkpoint. Collective, after write() on every rank. Throws on all ranks if any of
    /// them failed: Error(storage), or Error(diverged) naming a tensor that is not finite. The file that was there
    /// before is then untouched.
    void finish();

  private:
    void create(const CheckpointHeader& header);
    void write_pieces();
    void mark_complete() const;

    std::filesystem::path path_, temporary_;
    int64_t step_;
    std::vector<TensorPiece> pieces_;
    std::vector<int64_t> offsets_;     // of the tensors, in bytes of the file
    std::vector<uint32_t> checksums_;  // of the pieces, then of the tensors
    Communicator group_;
    std::exception_ptr failure_;
    bool finished_ = false;
};

}  // namespace amalgam
