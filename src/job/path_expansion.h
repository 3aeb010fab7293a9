// SPDX-License-Identifier: Apache-2.0
// Paths as people write them in job files, where no shell expands them.
#pragma once

#include <string>

namespace amalgam {

/// `path` with ~ at its beginning and $NAME or ${NAME} anywhere replaced from the environment, as a shell does it. A
/// path that is there as it is written stays so. Throws Error(bad_input), beginning with `where`, for a variable that
/// is not set, an unfinished ${ and another user's ~name.
std::string expanded_path(const std::string& path, const std::string& where);

}  // namespace amalgam
