// SPDX-License-Identifier: Apache-2.0
// Reads and writes safetensors files and folders of them (with model.safetensors.index.json). A header is never
// trusted: its size, its JSON, dtypes, shapes and byte ranges are checked against the file before anything is read.
// Format: 8 bytes little-endian header length, JSON {name: {dtype, shape, data_offsets}}, then the data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace amalgam {

enum class SafetensorsType { f32, f16, bf16, f64, i64, i32 };
size_t bytes_of(SafetensorsType type);

struct SafetensorsEntry {
    std::filesystem::path file;
    SafetensorsType type;
    std::vector<int64_t> shape;
    int64_t offset;  // bytes from the start of the file
    int64_t bytes;
};

/// All tensors of one file. Throws Error(damaged_file) naming file and tensor.
std::map<std::string, SafetensorsEntry> read_safetensors_header(const std::filesystem::path& file);

/// All tensors of a model folder: model.safetensors, or the shards its index names.
std::map<std::string, SafetensorsEntry> read_safetensors_folder(const std::filesystem::path& folder);

/// Reads the bytes of one tensor with pread into `destination` (entry.bytes long).
void read_tensor_bytes(const SafetensorsEntry& entry, void* destination);

struct TensorToWrite {
    std::string name;
    SafetensorsType type;
    std::vector<int64_t> shape;
    const void* data;  // contiguous
};

/// Writes `folder`/model.safetensors, or shards of at most `shard_bytes` with an index. Every file is written once.
void write_safetensors(const std::filesystem::path& folder, const std::vector<TensorToWrite>& tensors,
                       int64_t shard_bytes = int64_t{4} << 30);

}  // namespace amalgam
