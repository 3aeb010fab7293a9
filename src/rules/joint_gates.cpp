// SPDX-License-Identifier: Apache-2.0
// Softmax stays where the gates that were trained all at once are largest: FlashMorph (arXiv 2606.30562).
#include "rules/kept_curve.h"

namespace amalgam {

SelectionRule joint_gates_rule() {
    return ordered_rule("joint_gates", joint_gates_scorer(), order_of_nested);
}

}  // namespace amalgam
