// SPDX-License-Identifier: Apache-2.0
// Commands on one model, a Hugging Face folder or a checkpoint of a run: logits, generate, export. One process.
#pragma once

#include <cstdint>
#include <string>

namespace amalgam {

struct ModelCommandOptions {
    std::string model, tokens, out;
    std::string precision = "float32";  // or auto, bfloat16
    std::string device = "cpu";         // or auto, cuda
    int64_t sequence_length = 512;
    int64_t sequences = 0;  // 0: all of the token file
    int64_t count = 32;     // generate: tokens
};

/// Writes /logits float32 [sequences, time, vocabulary].
void logits_command(const ModelCommandOptions& options);

/// Writes /generated int64 [sequences, count]: the greedy continuation of every sequence.
void generate_command(const ModelCommandOptions& options);

/// `teacher` empty: the folder that the checkpoint's job names.
void export_checkpoint_command(const std::string& checkpoint, const std::string& folder, const std::string& format,
                               const std::string& teacher, const std::string& precision);

}  // namespace amalgam
