"""A sample of `make kill`: commands killed at chosen moments, or refused a write, and done again."""

from dataclasses import replace

import pytest

from tests.reliability.commands import broken
from tests.reliability.kills import JOBS, PREDICT, Kills
from tests.reliability.limits import message_faults

BOXED = ("nuclei", *PREDICT[1:], "--overlay")
# A run of its own would have to be trained.
SAMPLE = {
    "prepare": JOBS["prepare"],
    "predict": replace(JOBS["predict"], arguments=BOXED, needs=("raw",), again=lambda folder: (*BOXED, "--resume")),
    "track": replace(
        JOBS["track"], arguments=("frame-labels", "--out", "tracks", "--no-report"), needs=("frame-labels",)
    ),
}


@pytest.fixture(scope="module")
def kills(tmp_path_factory):
    made = Kills(tmp_path_factory.mktemp("kills"), images=4)
    yield made
    made.commands.close()


@pytest.mark.parametrize("name", SAMPLE)
def test_what_is_killed_or_refused_is_whole_and_ends_as_if_it_had_not_been(kills, name):
    job = SAMPLE[name]
    expected, _, events = kills.undisturbed(job)
    assert len(expected) > 4
    for event in (events // 2, events):  # the last change is one of the narrow places
        assert kills.kill(job, expected, event=event) == []
    folder = kills.fresh(job, "same")
    status, printed = kills.commands.run(folder, job.command, *job.arguments, limits={"RLIMIT_FSIZE": 2000})
    assert message_faults(status, printed, "File too large") == []
    assert broken(folder) == []
