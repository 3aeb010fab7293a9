// SPDX-License-Identifier: Apache-2.0
// The one list of all export formats. A format NAME has a folder of that name with NAME_format() in format.cpp, which
// says what it cannot express, and write_NAME() in writer.cpp; both tables are made from this list.
#pragma once

#define AMALGAM_EXPORT_FORMATS(format) format(qwen3_5) format(fla)
