import pytest

from pipelines.workers import in_order


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_come_in_order_and_items_are_asked_for_as_they_are_needed(workers):
    asked = []

    def items():
        for number in range(9):
            asked.append(number)
            yield -number

    answers = in_order(abs, items(), workers)
    assert asked == []
    assert next(answers) == 0
    assert len(asked) <= 2 * workers
    assert list(answers) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_fails_there_fails_here():
    with pytest.raises(TypeError, match="bad operand type for abs"):
        list(in_order(abs, [1, "two", 3], 2))
