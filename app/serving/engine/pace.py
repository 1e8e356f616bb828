"""How many images of a long request are run in one turn.

A batch that is being run cannot be broken off, so the longest one decides how long all others wait. One image of a
large network takes as long as a batch of a small one: slices of long requests are as large as fits into the time
that a turn may take, and never larger than a batch.
"""

from dataclasses import dataclass

TURN_SECONDS = 0.01
"""What one slice of a long request may take where one image takes less; own choice: a tenth of what people notice."""
LONGER = 1.25
"""A slice may take so many times as long as one image, whatever that takes: devices that run a batch in the time of
one image get whole batches."""
FORGET = 1.02
"""A time that is not reached again grows by this factor with each batch, so that a slower device is noticed."""
LOOK_AGAIN = 200
"""The first of so many slices is a whole batch, so that a time that was once too high is found out."""


@dataclass
class Pace:
    """What a target takes for one image and for a whole batch, at its quickest: noise only makes it slower.

    Args:
        most: Images in a batch.
    """

    most: int
    _one: float | None = None
    _whole: float | None = None
    _slices: int = 0

    def note(self, images: int, seconds: float) -> None:
        """A batch was run."""
        if images == 1:
            self._one = seconds if self._one is None else min(seconds, self._one * FORGET)
        if images == self.most:
            self._whole = seconds if self._whole is None else min(seconds, self._whole * FORGET)

    def slice(self) -> int:
        """Images that the next slice of a long request may have: time is taken to grow evenly with images."""
        self._slices += 1
        one, whole = self._one, self._whole
        if one is None or whole is None or self._slices % LOOK_AGAIN == 1:
            return self.most
        allowed = max(TURN_SECONDS, LONGER * one)
        if whole <= allowed:
            return self.most
        return 1 + int((self.most - 1) * (allowed - one) / (whole - one))
