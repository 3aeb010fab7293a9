// SPDX-License-Identifier: Apache-2.0
// Writing: one file or shards with an index.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "storage/posix_file.h"
#include "storage/safetensors.h"
#include "storage/write_once.h"
#include "system/error.h"

namespace amalgam {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

const char* name_of(SafetensorsType type) {
    switch (type) {
        case SafetensorsType::f32:
            return "F32";
        case SafetensorsType::f16:
            return "F16";
        case SafetensorsType::bf16:
            return "BF16";
        case SafetensorsType::f64:
            return "F64";
        case SafetensorsType::i64:
            return "I64";
        case SafetensorsType::i32:
            return "I32";
        case SafetensorsType::other:
            break;
    }
    throw std::logic_error("unknown SafetensorsType");
}

int64_t size_of(const std::string& name, SafetensorsType type, const std::vector<int64_t>& shape) {
    int64_t bytes = static_cast<int64_t>(bytes_of(type));
    for (int64_t size : shape) {
        if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes))
            throw Error(text("tensor \"", name, "\" has a shape that cannot be written"));
    }
    return bytes;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(fs::path folder, int64_t shard_bytes)
    : folder_(std::move(folder)), shard_bytes_(shard_bytes) {}

SafetensorsWriter::~SafetensorsWriter() {
    for (size_t shard = 0; shard <= shards_.size(); ++shard) discard(temporary(shard));
}

fs::path SafetensorsWriter::temporary(size_t shard) const {
    return temporary_for(folder_ / text("model.safetensors.", shard + 1));
}

void SafetensorsWriter::add(const std::string& name, SafetensorsType type, const std::vector<int64_t>& shape,
                            const void* data) {
    const int64_t bytes = size_of(name, type, shape);
    if (name == "__metadata__" || !names_.insert(name).second)
        throw Error(text("tensor \"", name, "\" cannot be written twice or under a reserved name"));
    if (!held_.empty() && bytes > shard_bytes_ - held_bytes_) write_shard();
    const char* first = static_cast<const char*>(data);
    held_.push_back({name, type, shape, bytes > 0 ? std::vector<char>(first, first + bytes) : std::vector<char>()});
    held_bytes_ += bytes;
    total_bytes_ += bytes;
}

void SafetensorsWriter::write_shard() {
    std::error_code failed;
    fs::create_directories(folder_, failed);
    if (failed) throw Error(text(folder_.string(), ": cannot be created: ", failed.message()), ExitCode::storage);

    // Wide elements first, so that every tensor is aligned to its own element size in a mapped file.
    std::stable_sort(held_.begin(), held_.end(),
                     [](const Tensor& a, const Tensor& b) { return bytes_of(a.type) > bytes_of(b.type); });

    json header = json::object();
    header["__metadata__"] = {{"format", "pt"}};  // transformers refuses files without it
    std::vector<std::string> names;
    int64_t position = 0;
    for (const Tensor& tensor : held_) {
        const int64_t end = position + static_cast<int64_t>(tensor.bytes.size());
        header[tensor.name] = {
            {"dtype", name_of(tensor.type)}, {"shape", tensor.shape}, {"data_offsets", {position, end}}};
        names.push_back(tensor.name);
        position = end;
    }
    std::string source = header.dump();
    source.resize((source.size() + 7) / 8 * 8, ' ');  // the data begins at a multiple of 8 bytes

    PosixFile file = PosixFile::create(temporary(shards_.size()));
    const uint64_t header_bytes = source.size();
    file.write(&header_bytes, sizeof header_bytes);
    file.write(source.data(), static_cast<int64_t>(source.size()));
    for (const Tensor& tensor : held_) file.write(tensor.bytes.data(), static_cast<int64_t>(tensor.bytes.size()));
    file.close();
    shards_.push_back(std::move(names));
    held_.clear();
    held_bytes_ = 0;
}

void SafetensorsWriter::finish() {
    if (!held_.empty() || shards_.empty()) write_shard();
}

std::map<std::string, SafetensorsEntry> SafetensorsWriter::written() const {
    std::map<std::string, SafetensorsEntry> all;
    for (size_t shard = 0; shard < shards_.size(); ++shard) all.merge(read_safetensors_header(temporary(shard)));
    return all;
}

void SafetensorsWriter::publish() {
    if (shards_.size() == 1) {
        amalgam::publish(temporary(0), folder_ / "model.safetensors");
        return;
    }
    json weight_map = json::object();
    for (size_t shard = 0; shard < shards_.size(); ++shard) {
        char name[64];
        std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards_.size());
        amalgam::publish(temporary(shard), folder_ / name);
        for (const std::string& tensor : shards_[shard]) weight_map[tensor] = name;
    }
    // Last, so that a folder with an index has all of its shards.
    const json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", weight_map}};
    write_text_once(folder_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace amalgam
