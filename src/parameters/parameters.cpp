// SPDX-License-Identifier: Apache-2.0
#include "parameters/parameters.h"

#include <ATen/ATen.h>
#include <sys/mman.h>

namespace amalgam {
namespace {

constexpr int64_t page_bytes = 4096, alignment = 64;

/// Where the system gives them to those who ask. A generated token reads every weight once: with small pages, much of
/// that time would go into looking them up.
void ask_for_large_pages([[maybe_unused]] const at::Tensor& bytes) {
#ifdef MADV_HUGEPAGE
    const auto address = reinterpret_cast<uintptr_t>(bytes.data_ptr());
    const uintptr_t first = (address + page_bytes - 1) / page_bytes * page_bytes,
                    last = (address + bytes.nbytes()) / page_bytes * page_bytes;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // may refuse: only slower
#endif
}

/// Compute tensors in one piece of host memory.
template <class Parameters, class TypeOf>
void allocate_together(Parameters& parameters, const TypeOf& type_of) {
    std::vector<int64_t> bytes;
    int64_t total = 0;
    for (const Parameter& p : parameters) {
        bytes.push_back(p.elements() * int64_t(c10::elementSize(type_of(p))));
        total += (bytes.back() + alignment - 1) / alignment * alignment;
    }
    const at::Tensor all = at::empty({total}, at::kByte);
    ask_for_large_pages(all);
    int64_t first = 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
        Parameter& p = parameters[i];
        p.compute = all.narrow(0, first, bytes[i]).view(type_of(p)).view(p.shape);
        first += (bytes[i] + alignment - 1) / alignment * alignment;
    }
}

}  // namespace

int64_t Parameter::elements() const {
    int64_t count = 1;
    for (int64_t extent : shape) count *= extent;
    return count;
}

Parameter* ParameterStore::add(const std::string& name, std::vector<int64_t> shape, ParameterGroup group, int64_t layer,
                               bool full_precision) {
    Parameter& parameter = parameters_.emplace_back();
    parameter.name = name;
    parameter.shape = std::move(shape);
    parameter.group = group;
    parameter.layer = layer;
    parameter.full_precision = full_precision;
    return &parameter;
}

Parameter* ParameterStore::add_fused(const std::string& name,
                                     const std::vector<std::pair<std::string, int64_t>>& pieces,
                                     std::vector<int64_t> trailing_shape, ParameterGroup group, int64_t layer) {
    std::vector<Piece> rows;
    int64_t total = 0;
    for (const auto& [piece, count] : pieces) {
        rows.push_back({piece, total, count});
        total += count;
    }
    trailing_shape.insert(trailing_shape.begin(), total);
    Parameter* parameter = add(name, std::move(trailing_shape), group, layer);
    parameter->pieces = std::move(rows);
    return parameter;
}

void ParameterStore::allocate(at::Device device, at::ScalarType compute_type, bool trainable) {
    trainable_ = trainable;
    const auto type_of = [&](const Parameter& p) { return p.full_precision ? at::kFloat : compute_type; };
    if (device.is_cpu() && !trainable) return allocate_together(parameters_, type_of);
    for (Parameter& p : parameters_) {
        const at::ScalarType type = type_of(p);
        p.compute = at::empty(p.shape, at::TensorOptions(device).dtype(type));
        if (!trainable) continue;
        p.master =
            type == at::kFloat ? p.compute.detach() : at::empty(p.shape, at::TensorOptions(device).dtype(at::kFloat));
        p.compute.requires_grad_(true);
    }
}

void ParameterStore::refresh_compute() {
    for (Parameter& p : parameters_)
        if (p.master.defined() && p.compute.scalar_type() != at::kFloat) p.compute.detach().copy_(p.master);
}

void ParameterStore::for_each_named(const std::function<void(const std::string&, at::Tensor, Parameter&)>& visit) {
    for (Parameter& p : parameters_) {
        const at::Tensor whole = p.master.defined() ? p.master : p.compute.detach();
        if (p.pieces.empty()) visit(p.name, whole, p);
        for (const Piece& piece : p.pieces) visit(piece.name, whole.narrow(0, piece.first, piece.rows), p);
    }
}

int64_t ParameterStore::elements() const {
    int64_t count = 0;
    for (const Parameter& p : parameters_) count += p.elements();
    return count;
}

}  // namespace amalgam
