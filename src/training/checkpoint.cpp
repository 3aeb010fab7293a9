// SPDX-License-Identifier: Apache-2.0
#include "training/checkpoint.h"

#include <ATen/ATen.h>
#include <xxhash.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "system/error.h"

namespace amalgam {
namespace {

constexpr const char* filetype = "amalgam checkpoint";

std::string hash_of(const void* data, size_t bytes) {
    char text[17];
    std::snprintf(text, sizeof text, "%016" PRIx64, uint64_t(XXH3_64bits(data, bytes)));
    return text;
}

void write_tensor(H5File& file, const std::string& dataset, const at::Tensor& tensor) {
    const at::Tensor host = tensor.to(at::kCPU, at::kFloat).contiguous();
    file.write(dataset, StoredType::float32, {host.sizes().data(), size_t(host.dim())}, host.const_data_ptr());
    file.set_attribute(dataset, "xxh3", hash_of(host.const_data_ptr(), size_t(host.nbytes())));
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, CausalLM& model, AdamW* optimizer,
                      const CheckpointState& state, const Provenance& provenance) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file(filetype, provenance);
        file.set_attribute("/", "stage", state.stage);
        file.set_attribute("/", "step", state.step);
        file.set_attribute("/", "tokens", state.tokens);
        file.set_attribute("/", "data_cursor", state.data_cursor);
        file.set_attribute("/", "seed", state.seed);
        file.set_attribute("/", "layout", describe(model.spec().layout));
        file.set_attribute("/", "config", to_json(model.spec()));
        model.parameters().for_each_named(
            [&](const std::string& name, at::Tensor t, Parameter&) { write_tensor(file, "/model/" + name, t); });
        if (!optimizer) return;
        file.set_attribute("/", "optimizer_steps", optimizer->steps());
        optimizer->for_each_moment([&](const std::string& name, at::Tensor exp_avg, at::Tensor exp_avg_sq) {
            write_tensor(file, "/optimizer/exp_avg/" + name, exp_avg);
            write_tensor(file, "/optimizer/exp_avg_sq/" + name, exp_avg_sq);
        });
    });
}

Checkpoint::Checkpoint(const std::filesystem::path& path) : file_(H5File::open(path)) {
    file_.expect_filetype(filetype);
    spec_ = spec_from_json(file_.string_attribute("/", "config"), path.string());
    state_.stage = file_.string_attribute("/", "stage");
    state_.step = file_.integer_attribute("/", "step");
    state_.tokens = file_.integer_attribute("/", "tokens");
    state_.data_cursor = file_.integer_attribute("/", "data_cursor");
    state_.seed = file_.integer_attribute("/", "seed");
}

at::Tensor Checkpoint::read(const std::string& dataset) const {
    const DatasetInfo info = file_.describe(dataset);
    if (info.type != StoredType::float32)
        throw Error(text(where(), ": dataset ", dataset, " is not float32 (checkpoints hold fp32 masters)"),
                    ExitCode::damaged_file);
    at::Tensor tensor = at::empty(info.shape, at::kFloat);
    file_.read(dataset, StoredType::float32, tensor.data_ptr());
    if (hash_of(tensor.const_data_ptr(), size_t(tensor.nbytes())) != file_.string_attribute(dataset, "xxh3"))
        throw Error(
            text(where(), ": dataset ", dataset,
                 " does not match its checksum (the file is damaged); remove it to go on from the checkpoint before"),
            ExitCode::damaged_file);
    return tensor;
}

std::optional<at::Tensor> Checkpoint::find(const std::string& name) const {
    const std::string dataset = "/model/" + name;
    if (!file_.has(dataset)) return std::nullopt;
    return read(dataset);
}

bool Checkpoint::has_optimizer() const {
    return file_.has_attribute("/", "optimizer_steps");
}

void Checkpoint::load_optimizer(AdamW& optimizer) const {
    optimizer.set_steps(file_.integer_attribute("/", "optimizer_steps"));
    optimizer.for_each_moment([&](const std::string& name, at::Tensor exp_avg, at::Tensor exp_avg_sq) {
        exp_avg.copy_(read("/optimizer/exp_avg/" + name));
        exp_avg_sq.copy_(read("/optimizer/exp_avg_sq/" + name));
    });
}

StageCheckpoints::StageCheckpoints(std::filesystem::path folder, std::string stage, int64_t keep_last)
    : folder_(std::move(folder)), stage_(std::move(stage)), keep_last_(keep_last) {}

std::filesystem::path StageCheckpoints::finished() const {
    return folder_ / (stage_ + ".h5");
}

bool StageCheckpoints::is_finished() const {
    return std::filesystem::exists(finished());
}

std::filesystem::path StageCheckpoints::at_step(int64_t step) const {
    char number[16];
    std::snprintf(number, sizeof number, "%08" PRId64, step);
    return folder_ / (stage_ + "-" + number + ".h5");
}

std::vector<std::filesystem::path> StageCheckpoints::on_the_way() const {
    std::vector<std::filesystem::path> found;
    if (!std::filesystem::exists(folder_)) return found;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with(stage_ + "-") && name.ends_with(".h5")) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
}

std::optional<std::filesystem::path> StageCheckpoints::latest() const {
    const auto found = on_the_way();
    if (found.empty()) return std::nullopt;
    return found.back();
}

void StageCheckpoints::purge() const {
    auto found = on_the_way();
    const size_t keep = is_finished() ? 0 : size_t(keep_last_);
    for (size_t i = 0; i + keep < found.size(); ++i) std::filesystem::remove(found[i]);
}

}  // namespace amalgam
