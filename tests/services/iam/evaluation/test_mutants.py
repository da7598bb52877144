"""Whatever single thing is wrong in the evaluator, some policy case fails."""

import random
import sys
from pathlib import Path

import policy_cases
from mutants import Mutant, Package, mutants
from policy_cases import Case, Check

from cloche.services.iam import evaluation
from cloche.testing.extent import Extent

FOLDER = Path(evaluation.__file__).parent
SAMPLE = 80
# In no order of pages, so that most mutants are caught soon.
CASES: list[Case | Check] = random.Random(1).sample(policy_cases.ALL, len(policy_cases.ALL))
SLOWER = "the automaton answers the same, only later"
EACH_TIME = "the test is made for each request anew, and is the same"
WHOLE = "whole names and beginnings are patterns, too: they are only found sooner"
SOONER = "what it refuses is refused below, only later"
AGAIN = "which statements name a resource is looked for again, or remembered: it is the same"
ARNS = "all ARN patterns together, or each by its segments: both say the same"
# Mutants that answer every question as the evaluator does, and why: what they change is the cost.
EQUIVALENT = {
    "conditions.written: if all(map(is_plain, groups)) -> False": EACH_TIME,
    "conditions.asked.answer: if later -> True": EACH_TIME,
    "conditions.fitting: for … if not is_plain(each) -> True": EACH_TIME,
    "conditions.arn: if '?' in text and len(groups) == SEGMENTS and is_plain(parts) -> False": ARNS,
    "conditions.arn: '?' in text and len(groups) == SEGMENTS and is_plain(parts) "
    "-> without 0": ARNS,
    "conditions.arn: '?' in text -> NotIn 0": ARNS,
    "patterns.matchers: if not wild -> False": SLOWER,
    "patterns.matchers: if wild == {Wildcard.STAR} -> False": SLOWER,
    "patterns.matchers: if others -> True": "an automaton of no patterns finds nothing",
    "patterns.in_turn.fits: if longest not in text -> False": SOONER,
    "patterns.Automaton.fits: if not state -> False": SOONER,
    "patterns.ResourcePatterns.__init__: if not is_plain(parts) -> True": EACH_TIME,
    "patterns.ResourcePatterns.__init__: if not set(Wildcard).intersection(parts) -> False": WHOLE,
    "patterns.ResourcePatterns.__init__: if parts[-1] is Wildcard.STAR and (not set(Wildcard)"
    ".intersection(parts[:-1])) -> False": WHOLE,
    "statements.Plan.__init__: if patterns is None or statement.not_resources or "
    "(not patterns.simple) -> True": WHOLE,
    "statements.Plan.__init__: patterns is not None and patterns.filled_later -> without 1": AGAIN,
    "statements.Plan.__init__: if patterns is not None and patterns.filled_later -> True": AGAIN,
    "statements.Plan.about: if len(name) <= NAME_LENGTH -> True": AGAIN,
    "statements.Plan.about: if len(name) <= NAME_LENGTH -> False": AGAIN,
    "statements.Plan.about: len(name) <= NAME_LENGTH -> Lt 0": AGAIN,
    "statements.Plan.about: len(name) <= NAME_LENGTH -> Gt 0": AGAIN,
}


def caught(package: Package, mutant: Mutant) -> bool:
    """Tell whether some case fails; a mutant that can't even be imported is caught."""
    try:
        made = package.with_mutant(mutant)
    except Exception:
        return True
    return any(case.wrong(made) is not None for case in CASES)


def test_switching_off_any_branch_fails_a_case(extent: Extent) -> None:
    package = Package(evaluation.__name__, FOLDER)
    found = mutants(FOLDER)
    assert len(found) > 500
    names = {str(mutant) for mutant in found}
    assert set(EQUIVALENT) <= names and len(EQUIVALENT) == 21
    # Control: the package made in the same way without a mutant is another one, and right.
    control = package.made(package.codes)
    assert control is not evaluation and sys.modules[evaluation.__name__] is evaluation
    assert [str(case) for case in CASES if case.wrong(control) is not None] == []

    chosen = random.Random(extent.seed).sample(found, extent.of(SAMPLE, len(found)))
    kept = [mutant for mutant in chosen if str(mutant) not in EQUIVALENT]
    assert [str(mutant) for mutant in kept if not caught(package, mutant)] == []
    said = [mutant for mutant in chosen if str(mutant) in EQUIVALENT]
    assert [str(mutant) for mutant in said if caught(package, mutant)] == []
    print(f"{len(kept)} of {len(found)} mutants tried, all caught by {len(CASES)} cases")
