// SPDX-License-Identifier: Apache-2.0
// Reading a Hugging Face config.json key by key, with errors that name file and key.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "system/error.h"

namespace amalgam {

/// Access to one JSON object, which must outlive it, of the file `where`. A key that is null counts as absent. Throws
/// Error(bad_input) for what is missing or of the wrong type.
class ConfigKeys {
  public:
    ConfigKeys(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

    bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }

    template <class T>
    T get(const char* key) const {
        require(has(key), where_, ": \"", key, "\" is missing (the model cannot be built without it)");
        return convert<T>(key);
    }

    template <class T>
    T get(const char* key, T fallback) const {
        return has(key) ? convert<T>(key) : fallback;
    }

    const nlohmann::json& object() const { return object_; }
    const std::string& where() const { return where_; }

  private:
    template <class T>
    T convert(const char* key) const {
        try {
            return object_.at(key).get<T>();
        } catch (const nlohmann::json::exception&) {
            throw Error(text(where_, ": \"", key, "\" is ", object_.at(key).dump(), " (of the wrong type)"),
                        ExitCode::bad_input);
        }
    }
    const nlohmann::json& object_;
    std::string where_;
};

}  // namespace amalgam
