// SPDX-License-Identifier: Apache-2.0
#include "sharding/flat_parameters.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace amalgam {
namespace {

constexpr int64_t alignment = 32;  // elements: shards begin on cache lines, whatever the type

}  // namespace

FlatParameters::FlatParameters(std::vector<Parameter*> parameters, at::ScalarType type, at::Device device,
                               int64_t ranks, int64_t rank, bool trainable)
    : parameters_(std::move(parameters)), rank_(rank) {
    int64_t total = 0;
    for (const Parameter* p : parameters_) {
        firsts_.push_back(total);
        total += p->elements();
    }
    per_rank_ = (total + ranks * alignment - 1) / (ranks * alignment) * alignment;
    elements_ = per_rank_ * ranks;
    const auto options = at::TensorOptions(device).dtype(type);
    whole_ = at::empty({elements_}, options);
    shard_ = at::zeros({per_rank_}, trainable ? options.dtype(at::kFloat) : options);
    const int64_t begin = per_rank_ * rank, end = begin + per_rank_;
    for (size_t i = 0; i < parameters_.size(); ++i) {
        Parameter& p = *parameters_[i];
        p.compute = whole_.narrow(0, firsts_[i], p.elements()).view(p.shape).detach();
        p.compute.requires_grad_(trainable);
        const int64_t first = std::max(begin, firsts_[i]), last = std::min(end, firsts_[i] + p.elements());
        if (first < last) pieces_.push_back({&p, first - firsts_[i], first - begin, last - first});
    }
    release();
}

ShardPiece FlatParameters::piece_of(const Parameter& parameter) const {
    for (const ShardPiece& piece : pieces_)
        if (piece.parameter == &parameter) return piece;
    return {parameters_.front(), 0, 0, 0};
}

int64_t FlatParameters::first_of(const Parameter& parameter) const {
    return firsts_[size_t(std::find(parameters_.begin(), parameters_.end(), &parameter) - parameters_.begin())];
}

void FlatParameters::allocate() {
    if (allocated_) return;
    const size_t bytes = size_t(elements_) * whole_.element_size();
    c10::StorageImpl* storage = whole_.storage().unsafeGetStorageImpl();
    storage->set_data_ptr_noswap(storage->allocator()->allocate(bytes));
    storage->set_nbytes(bytes);
    allocated_ = true;
}

void FlatParameters::release() {
    if (!allocated_) return;
    c10::StorageImpl* storage = whole_.storage().unsafeGetStorageImpl();
    storage->set_data_ptr_noswap(at::DataPtr(nullptr, whole_.device()));
    storage->set_nbytes(size_t{0});
    allocated_ = false;
}

at::Tensor FlatParameters::data() const {
    return at::from_blob(whole_.storage().mutable_data(), {elements_}, whole_.options());
}

at::Tensor FlatParameters::own_data() const {
    return data().narrow(0, per_rank_ * rank_, per_rank_);
}

void for_each_named_piece(
    const Parameter& parameter,
    const std::function<void(const std::string& name, std::vector<int64_t> shape, int64_t first)>& visit) {
    if (parameter.pieces.empty()) return visit(parameter.name, parameter.shape, 0);
    const int64_t row = parameter.elements() / parameter.shape[0];
    for (const Piece& piece : parameter.pieces) {
        std::vector<int64_t> shape = parameter.shape;
        shape[0] = piece.rows;
        visit(piece.name, shape, piece.first * row);
    }
}

}  // namespace amalgam
