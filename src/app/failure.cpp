// SPDX-License-Identifier: Apache-2.0
#include "app/failure.h"

#include <c10/util/Exception.h>

#include <filesystem>
#include <new>

namespace amalgam {
namespace {

constexpr const char* what_helps =
    " (the memory is too small for this, or another program uses it too) lower micro_batch_sequences of the stage, "
    "share the models among more ranks (sharding) or set sharding.activations: recompute; `amalgam check` tells what "
    "a rank needs, and the run goes on from where it was";

}  // namespace

Failure failure_of(const std::exception& error) {
    if (const auto* ours = dynamic_cast<const Error*>(&error)) return {ours->what(), ours->code()};
    // Of a file or folder that cannot even be looked at, most often for its permissions.
    if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&error))
        return {text(file->path1().string(), ": ", file->code().message(),
                     " (the program needs it) look at its permissions"),
                ExitCode::bad_input};
    if (const auto* full = dynamic_cast<const c10::OutOfMemoryError*>(&error))
        return {text(full->what_without_backtrace(), what_helps), ExitCode::failure};
    if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr)
        return {text("out of memory", what_helps), ExitCode::failure};
    if (const auto* torch = dynamic_cast<const c10::Error*>(&error))
        return {torch->what_without_backtrace(), ExitCode::failure};
    return {error.what(), ExitCode::failure};
}

}  // namespace amalgam
