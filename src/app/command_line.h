// SPDX-License-Identifier: Apache-2.0
// The command line: run, check, defaults, inspect, logits, generate, export. Errors become messages and exit codes here
// and nowhere else.
#pragma once

namespace amalgam {

/// Returns the exit status of the process (ExitCode in system/error.h).
int run_command_line(int argc, char** argv);

}  // namespace amalgam
