// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "checkpoints/piece_checksums.h"
#include "storage/checksum.h"
#include "storage/posix_file.h"
#include "system/error.h"
#include "system/finite.h"

namespace amalgam {

Checkpoint::Checkpoint(const std::filesystem::path& path) : file_(H5File::open(path)) {
    file_.expect_filetype("amalgam checkpoint", 2, 2);
    if (file_.integer_attribute("/", "complete") != 1)
        throw Error(text(path.string(), ": was not written to its end (attribute complete is not 1); remove it"),
                    ExitCode::damaged_file);
    spec_ = spec_from_json(file_.string_attribute("/", "config"), path.string());
    state_.stage = file_.string_attribute("/", "stage");
    state_.step = file_.integer_attribute("/", "step");
    state_.tokens = file_.integer_attribute("/", "tokens");
    state_.data_cursor = file_.integer_attribute("/", "data_cursor");
    if (file_.has_attribute("/", "update_guard")) state_.update_guard = file_.string_attribute("/", "update_guard");
    state_.seed = file_.integer_attribute("/", "seed");
    if (file_.has_attribute("/", "optimizer_steps")) optimizer_steps_ = file_.integer_attribute("/", "optimizer_steps");
}

void Checkpoint::damaged(const std::string& dataset) const {
    throw Error(
        text(where(), ": dataset ", dataset,
             " does not match its checksum (the file is damaged); remove it to go on from the checkpoint before"),
        ExitCode::damaged_file);
}

uint32_t Checkpoint::read_piece(const PosixFile& bytes, const TensorPiece& piece) const {
    const DatasetInfo info = file_.describe(piece.name);
    if (info.type != StoredType::float32)
        throw Error(text(where(), ": dataset ", piece.name, " is not float32 (checkpoints hold fp32 masters)"),
                    ExitCode::damaged_file);
    if (info.shape != piece.shape)
        throw Error(text(where(), ": dataset ", piece.name, " has shape ", at::IntArrayRef(info.shape),
                         " but the model's is ", at::IntArrayRef(piece.shape), " (it belongs to another model)"),
                    ExitCode::damaged_file);
    const int64_t count = piece.values.numel(), offset = file_.offset_of(piece.name);
    if (count == 0) return 0;
    if (offset < 0)
        throw Error(
            text(where(), ": dataset ", piece.name,
                 " is compressed or chunked (no rank could read its piece alone); use the file as it was written"),
            ExitCode::damaged_file);
    bytes.read_at(offset + piece.first * int64_t(sizeof(float)), piece.values.data_ptr<float>(),
                  int64_t(piece.values.nbytes()));
    return crc32_of(piece.values.const_data_ptr<float>(), int64_t(piece.values.nbytes()));
}

void Checkpoint::read(const std::vector<TensorPiece>& pieces, const Communicator& group) const {
    PieceChecksums sums(pieces.size());
    std::string not_finite;  // told last: a flipped bit can make an infinite number, too
    group.together([&] {
        const PosixFile bytes = PosixFile::open(file_.path());
        for (size_t i = 0; i < pieces.size(); ++i) {
            const TensorPiece& piece = pieces[i];
            const uint32_t checksum = read_piece(bytes, piece);
            if (!all_finite({piece.values.const_data_ptr<float>(), size_t(piece.values.numel())}))
                not_finite = piece.name;
            if (piece.values.numel() < whole_elements(piece)) {
                sums.add(i, piece, checksum);
            } else if (checksum != file_.integer_attribute(piece.name, "crc32")) {
                damaged(piece.name);
            }
        }
    });
    sums.reduce(group);
    group.on_root([&] {
        for (size_t i = 0; i < pieces.size(); ++i) {
            if (sums.elements(i) == 0) continue;
            if (sums.elements(i) != whole_elements(pieces[i]))
                throw Error(text(where(), ": dataset ", pieces[i].name, ": the ranks read ", sums.elements(i), " of ",
                                 whole_elements(pieces[i]), " elements, so that it cannot be checked"));
            if (sums.of(i) != file_.integer_attribute(pieces[i].name, "crc32")) damaged(pieces[i].name);
        }
    });
    group.together([&] {
        if (not_finite.empty()) return;
        throw Error(text(where(), ": dataset ", not_finite,
                         " holds NaN or infinite values (the training that made it diverged); remove it to go on from "
                         "the checkpoint before, and lower the learning rate in a run of another name"),
                    ExitCode::diverged);
    });
}

void Checkpoint::read_replicas(const std::vector<TensorPiece>& whole, const Communicator& group) const {
    std::vector<TensorPiece> mine = even_pieces(whole, group.rank(), group.size());
    for (TensorPiece& piece : mine)
        if (!piece.values.is_cpu()) piece.values = at::empty(piece.values.sizes(), at::kFloat);
    read(mine, group);

    const EvenCuts cuts(whole, group.size());
    for (size_t i = 0; i < whole.size(); ++i) {
        const at::Tensor target = whole[i].values,
                         host = target.is_cpu() ? target : at::empty(target.sizes(), at::kFloat);
        if (!target.is_cpu()) host.narrow(0, mine[i].first, mine[i].values.numel()).copy_(mine[i].values);
        for (int rank = 0; rank < group.size(); ++rank) {
            const auto [first, end] = cuts.of(i, rank);
            if (first < end)
                group.broadcast(std::span<float>(host.data_ptr<float>() + first, size_t(end - first)), rank);
        }
        if (!target.is_cpu()) target.copy_(host);
    }
}

void Checkpoint::look_through(int64_t most_bytes) const {
    for (const DatasetInfo& dataset : file_.list("/")) {
        const at::Tensor tensor = at::empty(dataset.shape, at::kFloat);
        most_bytes -= int64_t(tensor.nbytes());
        if (most_bytes < 0) return;
        read({whole_tensor(dataset.path, tensor)}, Communicator());
    }
}

std::optional<at::Tensor> Checkpoint::find(const std::string& name) const {
    const std::string dataset = "/model/" + name;
    if (!file_.has(dataset)) return std::nullopt;
    at::Tensor tensor = at::empty(file_.describe(dataset).shape, at::kFloat);
    read({whole_tensor(dataset, tensor)}, Communicator());
    return tensor;
}

}  // namespace amalgam
