// SPDX-License-Identifier: Apache-2.0
// Saves the checkpoints of a stage while it trains: when they are due, in the background if there is memory for a copy,
// and as many of them as are to be kept. In the background a thread of each rank writes its copied pieces; the file
// becomes a checkpoint at the end of a later step, when all ranks have written.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "checkpoints/stage_checkpoints.h"
#include "job/job.h"
#include "system/clock.h"

namespace amalgam {

class CheckpointSaver {
  public:
    CheckpointSaver(StageCheckpoints files, const CheckpointJob& options, const Communicator& group);
    /// Gives up a save that has not ended.
    ~CheckpointSaver();
    CheckpointSaver(const CheckpointSaver&) = delete;
    CheckpointSaver& operator=(const CheckpointSaver&) = delete;

    // All below are collective over the group and throw Error(storage) on all ranks if a save failed on any.

    /// Is a checkpoint due after `step` steps?
    bool is_due(int64_t step) const;
    /// Saves the state at header.state.step: in the background if the job and the memory allow it.
    void save(const CheckpointHeader& header, std::vector<TensorPiece> pieces);
    /// Saves it before it returns.
    void save_now(const CheckpointHeader& header, std::vector<TensorPiece> pieces);
    /// Saves the end of the stage, and removes the checkpoints on the way.
    void save_finished(const CheckpointHeader& header, std::vector<TensorPiece> pieces);
    /// To be called after every step: ends a save in the background if all ranks have written.
    void poll();
    /// Removes the checkpoints that the newest one replaces. To be called after a step whose numbers were finite: until
    /// a step has gone on from the newest one, nobody knows whether it is any good.
    void purge();

    /// What the last save took, the part in the background included.
    double seconds() const { return seconds_; }

  private:
    struct Background {
        std::unique_ptr<CheckpointWriter> writer;
        std::thread thread;
        std::atomic<bool> written = false;
        double seconds = 0.0;  // of writing
        int64_t step = 0;
    };
    bool in_background(const std::vector<TensorPiece>& pieces);
    void end_background();
    void write_now(const std::filesystem::path& path, const CheckpointHeader& header, std::vector<TensorPiece> pieces);
    void finish(CheckpointWriter& writer, int64_t step);

    StageCheckpoints files_;
    CheckpointJob options_;
    Communicator group_;
    std::unique_ptr<Background> background_;  // none: nothing is being saved
    std::optional<bool> enough_memory_;
    bool purge_is_due_ = false;
    double seconds_ = 0.0;
    Stopwatch since_save_;
};

}  // namespace amalgam
