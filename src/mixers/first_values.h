// SPDX-License-Identifier: Apache-2.0
// How the parameters start that several delta rules have (mixers/declaration.h).
#pragma once

#include "mixers/declaration.h"

namespace amalgam {

/// A_log of each head, and dt_bias of `channels` channels of each, which are alike, as flash-linear-attention starts
/// the decays: log U(0, 16), and the inverse softplus of a log-uniform step in [1e-3, 0.1].
Drawn drawn_decay_rate();
Drawn drawn_step_bias(int64_t channels);

/// Width of short convolutions, tokens.
inline constexpr int64_t short_convolution_taps = 4;
/// The last tap is the current token: the convolution starts as the identity.
Drawn identity_taps();

}  // namespace amalgam
