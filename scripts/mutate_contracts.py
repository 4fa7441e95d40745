#!/usr/bin/env python3
"""Breaks the contracts on purpose, guard by guard, and runs the test that must notice.

    scripts/mutate_contracts.py                  every mutation
    scripts/mutate_contracts.py Clock Merkle     those of the named files
    scripts/mutate_contracts.py --write          also records the result in docs/mutations.md

A mutation replaces one piece of source text, which must occur exactly once, and names one forge test. The test must pass on the true source and fail on
the broken one; a test that still passes is reported as SURVIVED and the exit status is 1. Files are restored whatever happens.
Needs node and `npm install` in the project's root; Python's standard library only.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from build_contracts import ROOT, BuildError, find_forge

RECORD = ROOT / "docs" / "mutations.md"


@dataclass(frozen=True)
class Mutation:
    """One broken guard: in `file` (under contracts/) `old` becomes `new`, and `test` of `suite` must fail."""

    guard: str
    file: str
    old: str
    new: str
    suite: str
    test: str


DIVERGENCE = "libraries/Divergence.sol"
MERKLE = "libraries/Merkle.sol"
CLOCK = "libraries/Clock.sol"
QUEUE = "libraries/ClaimQueue.sol"
PROGRAMS = "libraries/Programs.sol"
VERDE = "Verde.sol"
DISPUTES = "Disputes.sol"
VAULT = "Vault.sol"

MUTATIONS = (
    # Libraries
    Mutation("the two nodes differ", DIVERGENCE, "if (a == b) revert IVerde.NoDivergence(a);", "", "Libraries", "test_DivergenceRefusesEqualNodes"),
    Mutation("the index fits", DIVERGENCE, "Merkle.requireIndex(index, m);", "", "Libraries", "test_DivergenceRefusesAnIndexPastTheTree"),
    Mutation("the proof has its one length", DIVERGENCE, "Merkle.requireLength(siblings.length, wordCount(m, index));", "", "Libraries", "test_DivergenceRefusesAWordTooManyOrTooFew"),
    Mutation("A's node is reached", DIVERGENCE, "Merkle.requireRoot(a, nodeA);", "", "Libraries", "testFuzz_DivergenceRefusesAForgedWord"),
    Mutation("B's node is reached", DIVERGENCE, "Merkle.requireRoot(b, nodeB);", "", "Libraries", "testFuzz_DivergenceRefusesAForgedWord"),
    Mutation("left siblings bind B too", DIVERGENCE, "b = Merkle.hash(left, b);", "b = Merkle.hash(left, b == nodeB ? b : b); a = a; if (k + 1 == m) b = nodeB;", "Libraries", "test_DivergenceOnlyAtTheFirstDifference"),
    Mutation("a set bit goes right", DIVERGENCE, "if ((index >> k) & 1 == 1) {", "if ((index >> k) & 1 == 0) {", "Libraries", "test_DivergenceAtEveryLeaf"),
    Mutation("a proof has the tree's height", MERKLE, "requireLength(proof.length, height_);", "height_ = proof.length;", "Libraries", "test_ProofHasTheTreesHeight"),
    Mutation("a proof's index fits", MERKLE, "requireIndex(index, height_);", "", "Libraries", "test_ProofHasTheTreesHeight"),
    Mutation("a proof reaches the root", MERKLE, "requireRoot(node, root);", "", "Libraries", "testFuzz_ProofRefusesAForgedWord"),
    Mutation("siblings go to their side", MERKLE, "(index >> k) & 1 == 0 ?", "index == index ?", "Libraries", "testFuzz_ProofOfEveryLeaf"),
    Mutation("children have their number", MERKLE, "requireLength(nodes.length, width);", "width = nodes.length;", "Libraries", "test_ChildrenHaveTheirNumber"),
    Mutation("children hash to their node", MERKLE, "requireRoot(top, root);", "", "Libraries", "testFuzz_Children"),
    Mutation("at the limit is too late", CLOCK, "if (elapsed >= limit)", "if (elapsed > limit)", "Libraries", "test_ClockAtItsBoundaries"),
    Mutation("at the limit the time is over", CLOCK, "if (elapsed < limit)", "if (elapsed <= limit)", "Libraries", "test_LimitsAtTheirBoundary"),
    Mutation("the grace is free", CLOCK, "clock - (elapsed - grace)", "clock - elapsed", "Libraries", "test_ClockAtItsBoundaries"),
    Mutation("time past the grace is charged", CLOCK, "clock - (elapsed - grace)", "clock", "Libraries", "test_ClockAtItsBoundaries"),
    # Deadlines and claims
    Mutation("deadlines are exclusive", CLOCK, "if (block.timestamp >= deadline)", "if (block.timestamp > deadline)", "Tasks", "test_CommitAtItsDeadline"),
    Mutation("openings are inclusive", CLOCK, "if (block.timestamp < opens)", "if (block.timestamp <= opens)", "Tasks", "test_SettleAtItsDeadline"),
    Mutation("reserved seats are for named providers", VERDE, "if (!task.open && !_members[taskId][msg.sender].named) revert NotNamed(msg.sender);", "", "Tasks", "test_CommitRefusals"),
    Mutation("seats are limited", VERDE, "if (task.open && task.committed == task.seats) revert NoSeat(task.seats);", "", "Tasks", "test_CommitRefusesWhenTheSeatsAreTaken"),
    Mutation("once per address", VERDE, "if (member.participant != 0) revert AlreadyJoined(msg.sender, member.participant - 1);", "", "Tasks", "test_ChallengeRefusals"),
    Mutation("a bond is exact", VERDE, "_requireValue(task.bond);", "", "Tasks", "test_ChallengeRefusals"),
    Mutation("a reveal is what was committed", VERDE, "if (computed != participant.commitment) revert WrongCommitment(computed, participant.commitment);", "", "Tasks", "test_RevealRefusesACopiedCommitment"),
    Mutation("a claim is revealed once", VERDE, "if (participant.standing != Standing.Committed) revert WrongStanding(participant.standing);", "", "Tasks", "test_RevealRefusesWhatWasNotCommitted"),
    Mutation("a claim ends in its final state", VERDE, "Merkle.verify(claimRoot, finalStateRoot, leaves - 1, Merkle.height(leaves), proof);", "", "Tasks", "test_RevealProvesTheFinalState"),
    Mutation("two commitments or none", VERDE, "if (task.committed < 2) revert WrongCommitments(task.committed);", "", "Tasks", "test_OneCommitmentGoesNowhere"),
    Mutation("no settling while matches live", VERDE, "if (task.liveMatches != 0) revert MatchesLive(task.liveMatches);", "", "Tasks", "test_SettleRefusesWhileClaimsDiffer"),
    Mutation("no settling while claims differ", VERDE, "if (claimId != task.tail) revert ClaimsDiffer(claimId, _claims[taskId][claimId].next);", "", "Tasks", "test_SettleRefusesWhileClaimsDiffer"),
    Mutation("the debt goes before the money", VAULT, "credit[account] = 0;", "", "Tasks", "test_WithdrawSendsTheCredit"),
    # Matches
    Mutation("claims that agree do not play", QUEUE, "if (task.head == task.tail) revert IVerde.NothingToPair(taskId);", "if (task.head == 0) revert IVerde.NothingToPair(taskId);", "Matches", "test_PairRefusesWhenClaimsAgreeOrEverybodyPlays"),
    Mutation("a move has its depth", DISPUTES, "if (m != rest && (phase == Phase.Open || m != _stride(task, rest))) revert WrongDepth(m, rest);", "", "Matches", "test_AdvanceRefusesOtherDepths"),
    Mutation("the mover publishes its own children", DISPUTES, "mover == Side.A ? a : b", "mover == Side.B ? a : b", "Matches", "test_AdvanceEmitsWhatTheOtherSideNeeds"),
    Mutation("the pre-state is left of the divergence", DISPUTES, "Merkle.verify(game.rootA, pre.value, position - 1, Merkle.height(leaves), pre.proof);", "", "Matches", "test_CloseRefusesAFalsePreState"),
    Mutation("missing leaves are zero", DISPUTES, "if (position >= leaves) {", "if (position > leaves) {", "Matches", "test_PaddingIsZero"),
    Mutation("a post is its side's own", DISPUTES, "_requireSender(poster);", "", "Matches", "test_PostIsBoundToItsSide"),
    Mutation("a post ends in the disputed leaf", DISPUTES, "Merkle.verify(root, side == Side.A ? game.nodeA : game.nodeB, _leaves(game, task) - 1, game.rest, proof);", "", "Matches", "test_PostIsBoundToItsSide"),
    Mutation("a post has its window", DISPUTES, "Clock.requireInTime(block.timestamp - game.since, task.buildWindow);", "", "Matches", "test_EveryClockAtItsBoundary"),
    Mutation("a verdict has its window", DISPUTES, "Clock.requireInTime(block.timestamp - game.since, task.refereeWindow);", "", "Matches", "test_EveryClockAtItsBoundary"),
    Mutation("no timeout before the limit", DISPUTES, "Clock.requireOver(block.timestamp - game.since, _limit(game, task));", "", "Matches", "test_TimeoutLosesForTheDueSide"),
    Mutation("an ended task takes no verb", DISPUTES, "if (game.phase != Phase.Done) _requireStatus(task, Status.Live);", "", "Matches", "test_SilenceVoidsTheTask"),
    Mutation("a hash node reads agreed leaves", PROGRAMS, "kind == NODE && ref.index < context.node", "kind == NODE", "Matches", "test_HashNodeRefusesMalformedNodes"),
    Mutation("a hash node's batch is the step's", PROGRAMS, "context.step % context.batchCount", "(context.step + 1) % context.batchCount", "Matches", "test_HashNodeIsJudgedByOneHash"),
    Mutation("a hash node is the disputed node", PROGRAMS, "Merkle.verify(header.nodesRoot, leaf(node), context.node, Merkle.height(header.nodes), nodeProof);", "", "Matches", "test_HashNodeRefusesAnotherNode"),
)


def run_test(suite: str, test: str) -> tuple[bool, str]:
    """Runs one forge test. Returns whether it passed, and forge's output. Raises BuildError if it did not run at all."""
    command = [find_forge(), "test", "--match-path", f"tests/contracts/{suite}.t.sol", "--match-test", f"^{test}$"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if re.search(rf"\[PASS\] {test}\(", output):
        return True, output
    if re.search(rf"\[FAIL[^\n]*\] {test}\(", output):
        return False, output
    raise BuildError(f"{suite}.{test} did not run:\n{output}")


def killed(mutation: Mutation) -> bool:
    """Whether the test notices the mutation. The source is restored before this returns or raises."""
    path = ROOT / "contracts" / mutation.file
    original = path.read_text("utf-8")
    # forge breaks long statements over lines; a space in the table stands for any white space.
    pattern = re.sub(r"(?:\\ )+", r"\\s+", re.escape(mutation.old)).replace(r"\(", r"\(\s*").replace(r"\)", r"\s*\)")
    found = re.findall(pattern, original)
    if len(found) != 1:
        raise BuildError(f"{mutation.file}: {mutation.old!r} occurs {len(found)} times, must be once")
    try:
        path.write_text(original.replace(found[0], mutation.new), "utf-8")
        passed, _ = run_test(mutation.suite, mutation.test)
        return not passed
    finally:
        path.write_text(original, "utf-8")


def record(rows: list[tuple[Mutation, bool]]) -> str:
    """docs/mutations.md."""
    lines = [
        "# Mutations",
        "",
        "Each guard of the contracts was removed or bent, one at a time, and the named test was run: it must fail. Made by `scripts/mutate_contracts.py --write`,",
        f"which also says what exactly is changed. {sum(dead for _, dead in rows)} of {len(rows)} mutations are caught.",
        "",
        "| file | guard | test | result |",
        "|---|---|---|---|",
    ]
    for mutation, dead in rows:
        verdict = "caught" if dead else "**survived**"
        lines.append(f"| `{mutation.file}` | {mutation.guard} | `{mutation.suite}.t.sol` `{mutation.test}` | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Break the contracts guard by guard; the named tests must notice.")
    parser.add_argument("files", nargs="*", help="stems of the files to mutate, e.g. Clock; all by default")
    parser.add_argument("--write", action="store_true", help="record the result in docs/mutations.md")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if not arguments.files or Path(m.file).stem in arguments.files]
    if arguments.write and len(chosen) != len(MUTATIONS):
        parser.error("--write records all mutations; name no files")
    rows: list[tuple[Mutation, bool]] = []
    try:
        for suite, test in sorted({(m.suite, m.test) for m in chosen}):
            passed, output = run_test(suite, test)
            if not passed:
                raise BuildError(f"{suite}.{test} fails on the true source:\n{output}")
        for mutation in chosen:
            dead = killed(mutation)
            rows.append((mutation, dead))
            print(f"{'caught  ' if dead else 'SURVIVED'}  {mutation.file:26} {mutation.guard}  ({mutation.test})", flush=True)
    except BuildError as error:
        print(f"mutate_contracts: {error}", file=sys.stderr)
        return 1
    survived = sum(not dead for _, dead in rows)
    print(f"{len(rows) - survived} of {len(rows)} mutations caught")
    if arguments.write:
        RECORD.write_text(record(rows), "utf-8")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
