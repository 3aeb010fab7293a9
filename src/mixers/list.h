// SPDX-License-Identifier: Apache-2.0
// The one list of all mixers. A mixer NAME has a folder of that name with NAME_declaration() in declaration.cpp and
// NAME_implementation() in its module; both tables are made from this list, so that no mixer can have one half only.
#pragma once

#define AMALGAM_MIXERS(mixer) \
    mixer(softmax_attention) mixer(gated_delta_net) mixer(gated_linear_attention) mixer(kimi_delta_attention)
