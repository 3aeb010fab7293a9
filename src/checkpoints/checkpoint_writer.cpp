// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/checkpoint_writer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>

#include "checkpoints/piece_checksums.h"
#include "storage/checksum.h"
#include "storage/hdf5.h"
#include "storage/posix_file.h"
#include "storage/write_once.h"
#include "system/activity.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/finite.h"

namespace amalgam {
namespace {

static_assert(std::endian::native == std::endian::little, "elements go to the file as they lie in memory");

constexpr int64_t chunk_bytes = 1 << 20;  // still in the cache when it is written after its checksum was taken

/// A number for the names and shapes of all tensors.
int64_t table_of(const std::vector<TensorPiece>& pieces) {
    uint32_t sum = 0;
    for (const TensorPiece& piece : pieces) {
        sum = crc32_of(piece.name.data(), int64_t(piece.name.size()), sum);
        sum = crc32_of(piece.shape.data(), int64_t(piece.shape.size() * sizeof(int64_t)), sum);
    }
    return sum;
}

struct Written {
    uint32_t checksum = 0;
    bool finite = true;
};

Written write_at(PosixFile& file, int64_t offset, const float* values, int64_t bytes) {
    Written written;
    for (int64_t done = 0; done < bytes; done += chunk_bytes) {
        const int64_t count = std::min(chunk_bytes, bytes - done);
        const float* chunk = values + done / int64_t(sizeof(float));
        written.checksum = crc32_of(chunk, count, written.checksum);
        written.finite = written.finite && all_finite({chunk, size_t(count) / sizeof(float)});
        file.write_at(offset + done, chunk, count);
    }
    return written;
}

}  // namespace

CheckpointWriter::CheckpointWriter(std::filesystem::path path, const CheckpointHeader& header,
                                   std::vector<TensorPiece> pieces, const Communicator& group)
    : path_(std::move(path)),
      step_(header.state.step),
      pieces_(std::move(pieces)),
      offsets_(pieces_.size(), -1),
      checksums_(pieces_.size(), 0),
      group_(group) {
    for (TensorPiece& piece : pieces_) piece.values = piece.values.to(at::kCPU).contiguous();
    temporary_ = group_.broadcast(temporary_for(path_).string());  // the root's, whose file all write into
    const int64_t table = table_of(pieces_), tables_root = group_.broadcast(table);
    group_.together([&] {
        if (table != tables_root) throw Error(text(path_.string(), ": ranks name different tensors for a checkpoint"));
    });
    group_.on_root([&] {
        discard_left(path_);
        discard(temporary_);  // of a process that had the same number
        try {
            create(header);
            fault_point("checkpoint.created", step_);
        } catch (...) {
            discard(temporary_);
            throw;
        }
    });
    group_.broadcast(std::span<char>(reinterpret_cast<char*>(offsets_.data()), offsets_.size() * sizeof(int64_t)));
}

CheckpointWriter::~CheckpointWriter() {
    if (!finished_ && group_.is_root()) discard(temporary_);
}

void CheckpointWriter::create(const CheckpointHeader& header) {
    H5File file = H5File::create(temporary_);
    file.describe_file("amalgam checkpoint", header.provenance, 2);
    file.set_attribute("/", "complete", int64_t{0});
    file.set_attribute("/", "stage", header.state.stage);
    file.set_attribute("/", "step", header.state.step);
    file.set_attribute("/", "tokens", header.state.tokens);
    file.set_attribute("/", "data_cursor", header.state.data_cursor);
    file.set_attribute("/", "seed", header.state.seed);
    if (!header.state.update_guard.empty()) file.set_attribute("/", "update_guard", header.state.update_guard);
    file.set_attribute("/", "layout", describe(header.spec.layout));
    file.set_attribute("/", "config", to_json(header.spec));
    if (header.optimizer_steps) file.set_attribute("/", "optimizer_steps", *header.optimizer_steps);
    for (size_t i = 0; i < pieces_.size(); ++i) {
        offsets_[i] = file.reserve(pieces_[i].name, StoredType::float32, pieces_[i].shape);
        file.set_attribute(pieces_[i].name, "crc32", int64_t{-1});  // takes its place in the file
    }
    file.close();
}

void CheckpointWriter::write() noexcept {
    try {
        write_pieces();
    } catch (...) {
        failure_ = std::current_exception();
    }
}

void CheckpointWriter::write_pieces() {
    PosixFile file = PosixFile::update(temporary_);
    for (size_t i = 0; i < pieces_.size(); ++i) {
        const TensorPiece& piece = pieces_[i];
        if (i == pieces_.size() / 2) fault_point("checkpoint.mid_write", step_);
        if (piece.values.numel() == 0) continue;
        const Written written = write_at(file, offsets_[i] + piece.first * int64_t(sizeof(float)),
                                         piece.values.const_data_ptr<float>(), int64_t(piece.values.nbytes()));
        if (!written.finite)
            throw Error(text(path_.string(), ": ", piece.name,
                             " has become NaN or infinite (the training diverged; this checkpoint is not kept, those "
                             "before it are) lower the stage's learning rate, in a run of another name"),
                        ExitCode::diverged);
        checksums_[i] = written.checksum;
        mark_progress();
    }
    fault_point("checkpoint.before_fsync", step_);
    file.sync();
    file.close();
}

void CheckpointWriter::finish() {
    group_.together([&] {
        if (failure_) std::rethrow_exception(failure_);
    });
    PieceChecksums sums(pieces_.size());
    for (size_t i = 0; i < pieces_.size(); ++i) sums.add(i, pieces_[i], checksums_[i]);
    sums.reduce(group_);
    group_.on_root([&] {
        for (size_t i = 0; i < pieces_.size(); ++i) {
            if (sums.elements(i) != whole_elements(pieces_[i]))
                throw Error(text(path_.string(), ": ", pieces_[i].name, ": the ranks' pieces have ", sums.elements(i),
                                 " elements, the tensor has ", whole_elements(pieces_[i])));
            checksums_[i] = sums.of(i);
        }
        fault_point("checkpoint.before_mark", step_);
        mark_complete();
        fault_point("checkpoint.before_rename", step_);
        publish(temporary_, path_);
    });
    finished_ = true;
}

void CheckpointWriter::mark_complete() const {
    H5File file = H5File::update(temporary_);
    for (size_t i = 0; i < pieces_.size(); ++i) file.set_attribute(pieces_[i].name, "crc32", int64_t{checksums_[i]});
    file.set_attribute("/", "complete", int64_t{1});
    file.close();
}

}  // namespace amalgam
