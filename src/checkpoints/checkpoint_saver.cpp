// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/checkpoint_saver.h"

#include <ATen/ATen.h>

#include "system/activity.h"
#include "system/available_memory.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {

CheckpointSaver::CheckpointSaver(StageCheckpoints files, const CheckpointJob& options, const Communicator& group)
    : files_(std::move(files)), options_(options), group_(group) {}

CheckpointSaver::~CheckpointSaver() {
    if (background_) background_->thread.join();
}

bool CheckpointSaver::is_due(int64_t step) const {
    if (options_.every_steps > 0 && step % options_.every_steps == 0) return true;
    if (options_.keep_every_steps > 0 && step % options_.keep_every_steps == 0) return true;
    if (options_.every_minutes <= 0.0) return false;
    return group_.broadcast(int64_t{since_save_.seconds() >= 60.0 * options_.every_minutes}) != 0;  // the root's clock
}

/// The copy must leave half of the memory that is free now.
bool CheckpointSaver::in_background(const std::vector<TensorPiece>& pieces) {
    if (options_.background != BackgroundSaving::automatic) return options_.background == BackgroundSaving::always;
    if (!enough_memory_) {
        int64_t bytes = 0;
        for (const TensorPiece& piece : pieces) bytes += int64_t(piece.values.nbytes());
        const int64_t available = available_memory() / group_.split_by_node().size();
        enough_memory_ = group_.all(bytes <= available / 2);
        if (!*enough_memory_)
            info(text("checkpoints are written while training waits: a copy needs ", bytes >> 20,
                      " MiB on each rank (a rank's share of the free memory is ", available >> 20, " MiB)"));
    }
    return *enough_memory_;
}

void CheckpointSaver::save(const CheckpointHeader& header, std::vector<TensorPiece> pieces) {
    if (!in_background(pieces)) return save_now(header, std::move(pieces));
    const InPhase phase(Phase::checkpoint);
    end_background();
    const Stopwatch watch;
    for (TensorPiece& piece : pieces) piece.values = piece.values.to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
    auto started = std::make_unique<Background>();
    started->step = header.state.step;
    started->writer =
        std::make_unique<CheckpointWriter>(files_.at_step(header.state.step), header, std::move(pieces), group_);
    seconds_ = watch.seconds();
    started->thread = std::thread([save = started.get()] {
        const Stopwatch writing;
        save->writer->write();
        save->seconds = writing.seconds();
        save->written = true;
    });
    background_ = std::move(started);
    since_save_ = Stopwatch();
}

void CheckpointSaver::save_now(const CheckpointHeader& header, std::vector<TensorPiece> pieces) {
    write_now(files_.at_step(header.state.step), header, std::move(pieces));
}

void CheckpointSaver::save_finished(const CheckpointHeader& header, std::vector<TensorPiece> pieces) {
    write_now(files_.finished(), header, std::move(pieces));
    purge();
}

void CheckpointSaver::write_now(const std::filesystem::path& path, const CheckpointHeader& header,
                                std::vector<TensorPiece> pieces) {
    const InPhase phase(Phase::checkpoint);
    end_background();
    const Stopwatch watch;
    CheckpointWriter writer(path, header, std::move(pieces), group_);
    writer.write();
    finish(writer, header.state.step);
    seconds_ = watch.seconds();
    since_save_ = Stopwatch();
}

void CheckpointSaver::poll() {
    if (background_ && group_.all(background_->written)) end_background();
}

void CheckpointSaver::end_background() {
    if (!background_) return;
    const InPhase phase(Phase::checkpoint);
    const auto save = std::move(background_);
    save->thread.join();
    const Stopwatch watch;
    finish(*save->writer, save->step);
    seconds_ += save->seconds + watch.seconds();
}

void CheckpointSaver::finish(CheckpointWriter& writer, int64_t step) {
    writer.finish();
    group_.on_root([&] { fault_point("checkpoint.before_purge", step); });
    purge_is_due_ = true;
}

void CheckpointSaver::purge() {
    if (!purge_is_due_) return;
    group_.on_root([&] { files_.purge(); });
    purge_is_due_ = false;
}

}  // namespace amalgam
