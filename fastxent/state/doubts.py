"""What may be wrong with the rows of an evaluation, in sentences for its user."""

from __future__ import annotations

from collections.abc import Mapping

from fastxent.options.config import EvalConfig

_ENOUGH = 10  # rows that look like probabilities, not by chance
USE_PROBS, USE_MULTILABEL = 'use input="probs" (--input probs)', 'use task="multilabel" (--task multilabel)'  # advice


def doubts(config: EvalConfig, told: Mapping[str, int], used: int, contributing: int) -> list[str]:
    """Warnings about the rows.

    told: counts of rows by what is doubtful about them, as `EvalState.told` has them.
    used: rows that are used. contributing: those of them whose weight is not 0.
    """
    found = []
    binary = config.task != "multiclass"
    look, kind = ("", "log-odds") if binary else (" and sum to 1", "logits")
    if told["probabilities"] >= max(_ENOUGH, used if binary else 0.9 * used):
        found.append(
            f"the scores of {told['probabilities']} of {used} rows lie within 0..1{look}; if they are "
            f"probabilities and not {kind}, {USE_PROBS}"
        )
    labels = f"; if several labels of a row may hold, {USE_MULTILABEL}"
    listed = config.ids is not None and config.target_logprob is not None
    own = ", or their target_logprob is not that of the target in their list" if listed else ""
    for name, what, rule in (
        ("unnormalised", "probabilities", f"{own}; used as given"),
        ("unnormalised_targets", "soft targets", f"; used as given{labels}"),
    ):
        if told[name]:
            found.append(f"{told[name]} rows of {what} do not sum to 1 within 1e-3{rule}")
    if told.get("minus_ones") and told["zeros"]:
        found.append(
            f"{told['minus_ones']} targets are -1 and {told['zeros']} are 0, and both count as the negative class; "
            "if -1 means that there is no target, use ignore_index=-1 (--ignore-index -1)"
        )
    if not used:
        found.append("no row was used: every mean is undefined")
    elif not contributing:
        found.append("every used row has weight 0: every mean is undefined")
    return found
