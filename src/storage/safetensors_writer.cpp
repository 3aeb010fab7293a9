// SPDX-License-Identifier: Apache-2.0
// Writing: one file or shards with an index.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "storage/posix_file.h"
#include "storage/safetensors.h"
#include "storage/write_once.h"
#include "system/error.h"

namespace amalgam {

namespace fs = std::filesystem;
using nlohmann::json;
using Shard = std::vector<const TensorToWrite*>;

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
    }
    throw std::logic_error("unknown SafetensorsType");
}

int64_t bytes_of(const TensorToWrite& tensor) {
    int64_t bytes = static_cast<int64_t>(bytes_of(tensor.type));
    for (int64_t size : tensor.shape) {
        if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes))
            throw Error(text("tensor \"", tensor.name, "\" has a shape that cannot be written"));
    }
    return bytes;
}

void expect_unique_names(const std::vector<TensorToWrite>& tensors) {
    std::set<std::string> names;
    for (const auto& tensor : tensors)
        if (!names.insert(tensor.name).second || tensor.name == "__metadata__")
            throw Error(text("tensor \"", tensor.name, "\" cannot be written twice or under a reserved name"));
}

/// In the order given, each shard filled until the next tensor would not fit.
std::vector<Shard> partition(const std::vector<TensorToWrite>& tensors, int64_t shard_bytes) {
    std::vector<Shard> shards(1);
    int64_t filled = 0;
    for (const auto& tensor : tensors) {
        const int64_t bytes = bytes_of(tensor);
        if (!shards.back().empty() && bytes > shard_bytes - filled) {
            shards.emplace_back();
            filled = 0;
        }
        shards.back().push_back(&tensor);
        filled += bytes;
    }
    return shards;
}

void write_shard(const fs::path& path, Shard shard) {
    // Wide elements first, so that every tensor is aligned to its own element size in a mapped file.
    std::stable_sort(shard.begin(), shard.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
        return bytes_of(a->type) > bytes_of(b->type);
    });

    json header = json::object();
    header["__metadata__"] = {{"format", "pt"}};  // transformers refuses files without it
    int64_t position = 0;
    for (const TensorToWrite* tensor : shard) {
        const int64_t end = position + bytes_of(*tensor);
        header[tensor->name] = {
            {"dtype", name_of(tensor->type)}, {"shape", tensor->shape}, {"data_offsets", {position, end}}};
        position = end;
    }
    std::string source = header.dump();
    source.resize((source.size() + 7) / 8 * 8, ' ');  // the data begins at a multiple of 8 bytes

    write_once(path, [&](const fs::path& temporary) {
        PosixFile file = PosixFile::create(temporary);
        const uint64_t header_bytes = source.size();
        file.write(&header_bytes, sizeof header_bytes);
        file.write(source.data(), static_cast<int64_t>(source.size()));
        for (const TensorToWrite* tensor : shard) file.write(tensor->data, bytes_of(*tensor));
        file.close();
    });
}

}  // namespace

void write_safetensors(const fs::path& folder, const std::vector<TensorToWrite>& tensors, int64_t shard_bytes) {
    expect_unique_names(tensors);
    std::error_code failed;
    fs::create_directories(folder, failed);
    if (failed) throw Error(text(folder.string(), ": cannot be created: ", failed.message()), ExitCode::storage);

    const auto shards = partition(tensors, shard_bytes);
    if (shards.size() == 1) {
        write_shard(folder / "model.safetensors", shards[0]);
        return;
    }
    json weight_map = json::object();
    int64_t total = 0;
    for (size_t i = 0; i < shards.size(); ++i) {
        char name[64];
        std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
        write_shard(folder / name, shards[i]);
        for (const TensorToWrite* tensor : shards[i]) {
            weight_map[tensor->name] = name;
            total += bytes_of(*tensor);
        }
    }
    // Last, so that a folder with an index has all of its shards.
    const json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
    write_text_once(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace amalgam
