// SPDX-License-Identifier: Apache-2.0
// Reading a Hugging Face config.json key by key, with errors that name file and key.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "system/error.h"

namespace amalgam {

/// Access to one JSON object, which must outlive it, of the file `where`. A key that is null counts as absent, unless
/// asked otherwise. Types are taken strictly, as transformers does: 1 is no truth value, true is no number, and 64.0 is
/// no whole number. Throws Error(bad_input) for what is missing or of the wrong type.
class ConfigKeys {
  public:
    ConfigKeys(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

    bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }
    bool is_null(const char* key) const { return object_.contains(key) && object_.at(key).is_null(); }

    template <class T>
    T get(const char* key) const {
        require(has(key), where_, ": \"", key, "\" is missing (the model cannot be built without it)");
        return convert<T>(key);
    }

    template <class T>
    T get(const char* key, T fallback) const {
        return has(key) ? convert<T>(key) : fallback;
    }

    /// The same where null is no way to leave the key out.
    template <class T>
    T get_unless_absent(const char* key, T fallback) const {
        require(!is_null(key), where_, ": \"", key, "\" is null (transformers takes no default for it) leave it out");
        return get<T>(key, fallback);
    }

    const nlohmann::json& object() const { return object_; }
    const std::string& where() const { return where_; }

  private:
    template <class T>
    static bool is_a(const nlohmann::json& value) {
        if constexpr (std::is_same_v<T, bool>)
            return value.is_boolean();
        else if constexpr (std::is_same_v<T, int64_t>)
            return value.is_number_integer() &&
                   !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX});
        else if constexpr (std::is_same_v<T, double>)
            return value.is_number();
        else if constexpr (std::is_same_v<T, std::string>)
            return value.is_string();
        else
            return value.is_array() && std::all_of(value.begin(), value.end(),
                                                   [](const auto& one) { return is_a<typename T::value_type>(one); });
    }

    template <class T>
    T convert(const char* key) const {
        const nlohmann::json& value = object_.at(key);
        require(is_a<T>(value), where_, ": \"", key, "\" is ", value.dump(), " (of the wrong type)");
        return value.get<T>();
    }
    const nlohmann::json& object_;
    std::string where_;
};

}  // namespace amalgam
