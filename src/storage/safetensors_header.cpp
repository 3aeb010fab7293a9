// SPDX-License-Identifier: Apache-2.0
// Reading: headers of files and folders, checked against the files. Rules of the format (sizes, no holes, no overlaps,
// 100 MB of header at most): https://github.com/huggingface/safetensors, README.
#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "storage/posix_file.h"
#include "storage/safetensors.h"
#include "system/error.h"

namespace amalgam {

namespace fs = std::filesystem;
using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian and read as they are");

namespace {

constexpr int64_t max_header_bytes = 100'000'000;
constexpr int64_t length_bytes = 8;

template <class... Parts>
[[noreturn]] void damaged(const fs::path& file, const Parts&... parts) {
    throw Error(text(file.string(), ": ", parts...), ExitCode::damaged_file);
}

/// JSON in which no object has a key twice; nlohmann's own parser would keep the last.
json parse_unique(const std::string& source, const fs::path& file, const char* what) {
    std::vector<std::set<std::string>> open_objects;
    const json::parser_callback_t check = [&](int, json::parse_event_t event, json& value) {
        if (event == json::parse_event_t::object_start) open_objects.emplace_back();
        if (event == json::parse_event_t::object_end) open_objects.pop_back();
        if (event == json::parse_event_t::key && !open_objects.back().insert(value.get<std::string>()).second)
            damaged(file, what, " names ", value.dump(), " twice (which one counts is undefined)");
        return true;
    };
    try {
        return json::parse(source, check);
    } catch (const json::exception& error) {
        damaged(file, what, " is not valid JSON: ", error.what());
    }
}

struct KnownType {
    const char* name;
    int bits;  // of an element
    SafetensorsType type;
};

/// All types of the format (safetensors 0.6, tensor.rs). A file may hold tensors of types that nobody here needs.
constexpr KnownType known_types[] = {
    {"F32", 32, SafetensorsType::f32},          {"F16", 16, SafetensorsType::f16},
    {"BF16", 16, SafetensorsType::bf16},        {"F64", 64, SafetensorsType::f64},
    {"I64", 64, SafetensorsType::i64},          {"I32", 32, SafetensorsType::i32},
    {"BOOL", 8, SafetensorsType::other},        {"U8", 8, SafetensorsType::other},
    {"I8", 8, SafetensorsType::other},          {"I16", 16, SafetensorsType::other},
    {"U16", 16, SafetensorsType::other},        {"U32", 32, SafetensorsType::other},
    {"U64", 64, SafetensorsType::other},        {"C64", 64, SafetensorsType::other},
    {"F8_E4M3", 8, SafetensorsType::other},     {"F8_E5M2", 8, SafetensorsType::other},
    {"F8_E8M0", 8, SafetensorsType::other},     {"F8_E4M3FNUZ", 8, SafetensorsType::other},
    {"F8_E5M2FNUZ", 8, SafetensorsType::other}, {"F6_E2M3", 6, SafetensorsType::other},
    {"F6_E3M2", 6, SafetensorsType::other},     {"F4", 4, SafetensorsType::other}};

const KnownType* type_named(const json& dtype) {
    for (const KnownType& known : known_types)
        if (dtype.is_string() && dtype.get_ref<const std::string&>() == known.name) return &known;
    return nullptr;
}

/// A non-negative integer that fits.
std::optional<int64_t> count_in(const json& value) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{INT64_MAX}) return std::nullopt;
    return value.get<int64_t>();
}

SafetensorsEntry read_entry(const fs::path& file, const std::string& name, const json& value, int64_t data_start,
                            int64_t data_bytes) {
    const std::string tensor = "tensor \"" + name + "\": ";
    if (!value.is_object()) damaged(file, tensor, "its header entry is not an object");
    for (const char* key : {"dtype", "shape", "data_offsets"})
        if (!value.contains(key)) damaged(file, tensor, "has no \"", key, "\"");

    SafetensorsEntry entry;
    entry.file = file;
    const json& dtype = value["dtype"];
    const KnownType* type = type_named(dtype);
    if (!type) damaged(file, tensor, "dtype is ", dtype.dump(), " (the format has no such type; is the file newer?)");
    entry.type = type->type;
    entry.dtype = type->name;

    int64_t bits = type->bits;
    if (!value["shape"].is_array()) damaged(file, tensor, "\"shape\" is not a list");
    for (const json& element : value["shape"]) {
        const auto size = count_in(element);
        if (!size) damaged(file, tensor, "shape ", value["shape"].dump(), " has an element that is not a size");
        if (__builtin_mul_overflow(bits, *size, &bits))
            damaged(file, tensor, "shape ", value["shape"].dump(), " is larger than any file");
        entry.shape.push_back(*size);
    }
    if (bits % 8 != 0)
        damaged(file, tensor, "shape ", value["shape"].dump(), " of ", dtype.dump(), " is no whole number of bytes");
    const int64_t bytes = bits / 8;

    const json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2) damaged(file, tensor, "\"data_offsets\" is not a pair of numbers");
    const auto begin = count_in(offsets[0]), end = count_in(offsets[1]);
    if (!begin || !end)
        damaged(file, tensor, "data_offsets ", offsets.dump(), " are not two byte positions (negative or not whole)");
    if (*begin > *end) damaged(file, tensor, "data_offsets ", offsets.dump(), " end before they begin");
    if (*end > data_bytes)
        damaged(file, tensor, "data_offsets ", offsets.dump(), " reach beyond the end of the file, which holds ",
                data_bytes, " bytes of data (it may be truncated); was it copied completely?");
    if (*end - *begin != bytes)
        damaged(file, tensor, "has ", *end - *begin, " bytes but dtype ", dtype.dump(), " and shape ",
                value["shape"].dump(), " need ", bytes);
    entry.offset = data_start + *begin;
    entry.bytes = bytes;
    return entry;
}

/// The tensors must cover the data from its first to its last byte, each byte once.
void expect_seamless(const fs::path& file, const std::map<std::string, SafetensorsEntry>& tensors, int64_t data_start,
                     int64_t file_bytes) {
    using Named = std::pair<const std::string, SafetensorsEntry>;
    std::vector<const Named*> by_offset;
    for (const auto& tensor : tensors) by_offset.push_back(&tensor);
    std::sort(by_offset.begin(), by_offset.end(), [](const Named* a, const Named* b) {
        return std::pair(a->second.offset, a->second.bytes) < std::pair(b->second.offset, b->second.bytes);
    });
    int64_t position = data_start;
    const Named* previous = nullptr;
    for (const Named* tensor : by_offset) {
        if (tensor->second.offset < position)
            damaged(file, "tensors \"", previous->first, "\" and \"", tensor->first, "\" overlap");
        if (tensor->second.offset > position)
            damaged(file, "tensor \"", tensor->first, "\": ", tensor->second.offset - position,
                    " bytes before it belong to no tensor");
        position += tensor->second.bytes;
        previous = tensor;
    }
    if (position != file_bytes) damaged(file, "its last ", file_bytes - position, " bytes belong to no tensor");
}

/// Tensor name -> shard file name.
std::map<std::string, std::string> read_index(const fs::path& index) {
    std::ifstream stream(index, std::ios::binary);
    const std::string source((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    const json content = parse_unique(source, index, "the index");
    if (!content.is_object() || !content.contains("weight_map") || !content["weight_map"].is_object())
        damaged(index, "has no \"weight_map\" (it should say which file holds which tensor)");
    std::map<std::string, std::string> result;
    for (const auto& [name, shard] : content["weight_map"].items()) {
        const std::string file = shard.is_string() ? shard.get<std::string>() : "";
        if (file.empty() || file == ".." || file.find('/') != std::string::npos)
            damaged(index, "tensor \"", name, "\": ", shard.dump(), " is not the name of a file in this folder");
        result[name] = file;
    }
    if (result.empty()) damaged(index, "\"weight_map\" is empty (there is nothing to load)");
    return result;
}

}  // namespace

size_t bytes_of(SafetensorsType type) {
    switch (type) {
        case SafetensorsType::f16:
        case SafetensorsType::bf16:
            return 2;
        case SafetensorsType::f32:
        case SafetensorsType::i32:
            return 4;
        case SafetensorsType::f64:
        case SafetensorsType::i64:
            return 8;
        case SafetensorsType::other:
            break;
    }
    throw std::logic_error("unknown SafetensorsType");
}

std::map<std::string, SafetensorsEntry> read_safetensors_header(const fs::path& file) {
    const PosixFile input = PosixFile::open(file);
    const int64_t file_bytes = input.size();
    if (file_bytes < length_bytes)
        damaged(file, "has only ", file_bytes, " bytes (a safetensors file begins with 8 bytes of header length)");
    uint64_t header_bytes = 0;
    input.read_at(0, &header_bytes, length_bytes);
    if (header_bytes > uint64_t{max_header_bytes})
        damaged(file, "claims a header of ", header_bytes, " bytes (the format allows ", max_header_bytes,
                "); is it a safetensors file?");
    if (static_cast<int64_t>(header_bytes) > file_bytes - length_bytes)
        damaged(file, "claims a header of ", header_bytes, " bytes but has only ", file_bytes - length_bytes,
                " after its first 8 (it may be truncated); was it copied completely?");

    std::string source(header_bytes, '\0');
    input.read_at(length_bytes, source.data(), static_cast<int64_t>(header_bytes));
    const json header = parse_unique(source, file, "its header");
    if (!header.is_object()) damaged(file, "its header is not a JSON object");

    const int64_t data_start = length_bytes + static_cast<int64_t>(header_bytes);
    std::map<std::string, SafetensorsEntry> result;
    for (const auto& [name, value] : header.items())
        if (name != "__metadata__") result[name] = read_entry(file, name, value, data_start, file_bytes - data_start);
    expect_seamless(file, result, data_start, file_bytes);
    return result;
}

std::map<std::string, SafetensorsEntry> read_safetensors_folder(const fs::path& folder) {
    const fs::path single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
    std::error_code unreadable;
    if (fs::exists(single, unreadable)) return read_safetensors_header(single);
    if (!fs::exists(index, unreadable))
        throw Error(
            text(folder.string(), ": has neither model.safetensors nor model.safetensors.index.json (the weights ",
                 "are read from there); is it a Hugging Face model folder?"),
            ExitCode::bad_input);

    std::map<std::string, std::map<std::string, SafetensorsEntry>> shards;
    std::map<std::string, SafetensorsEntry> result;
    for (const auto& [name, shard] : read_index(index)) {
        if (!shards.contains(shard)) {
            if (!fs::exists(folder / shard, unreadable))
                damaged(index, "names the shard ", shard, ", which is not there; is the download complete?");
            shards[shard] = read_safetensors_header(folder / shard);
        }
        const auto found = shards[shard].find(name);
        if (found == shards[shard].end()) damaged(index, "tensor \"", name, "\" should be in ", shard, " but is not");
        result[name] = found->second;
    }
    return result;
}

void read_tensor_bytes(const SafetensorsEntry& entry, void* destination) {
    PosixFile::open(entry.file).read_at(entry.offset, destination, entry.bytes);
}

}  // namespace amalgam
