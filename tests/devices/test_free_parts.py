import random

from gru_xp.devices.free_parts import FreeParts, Part


def test_the_smallest_part_that_fits_is_cut():
    free = FreeParts([Part(0, 0, 100), Part(1, 10, 60), Part(2, 0, 49)])
    assert free.take(50) == Part(1, 10, 60)
    assert free.take(50) == Part(0, 0, 50)
    assert free.take(51) is None
    assert free.take(45) == Part(2, 0, 45)
    assert free.take(50) == Part(0, 50, 100)


def test_nothing_is_lent_twice_and_all_is_whole_again():
    """Random loans from three buffers, given back in any order."""
    rng = random.Random(0)
    buffers = [Part(number, 0, size) for number, size in enumerate((100, 64, 200))]
    free, lent = FreeParts(buffers), []
    for _ in range(2000):
        if lent and rng.random() < 0.5:
            free.add(lent.pop(rng.randrange(len(lent))))
            continue
        part = free.take(rng.choice((1, 7, 30, 64)))
        if part is not None:
            places = set(range(part.start, part.stop))
            assert not any(places & set(range(p.start, p.stop)) for p in lent if p.buffer == part.buffer)
            lent.append(part)
    for part in lent:
        free.add(part)
    assert [free.take(size) for size in (200, 100, 64)] == [buffers[2], buffers[0], buffers[1]]
    assert free.take(1) is None
