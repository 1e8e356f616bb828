"""Size of the slices in which long requests run.

A running batch cannot be interrupted, so that the longest batch determines how long other requests wait. One image of
a large network may take as long as a batch of a small network. A slice is therefore as large as its time limit allows,
and at most a batch.
"""

from dataclasses import dataclass

TURN_SECONDS = 0.01
"""Time limit of a slice of a long request. Own choice: a tenth of the delay that people notice."""
LONGER = 1.25
"""A slice may take this multiple of the time of one image, even above `TURN_SECONDS`. A device that runs a batch in the
time of one image therefore gets whole batches."""
FORGET = 1.02
"""The stored minimum grows by this factor with each slower batch, so that it follows a device that gets slower."""
LOOK_AGAIN = 200
"""Every 200th slice is a whole batch, which corrects a time that was measured too high."""


@dataclass
class Pace:
    """Minimal times of a target for one image and for a whole batch. Minima, because noise only adds time.

    Args:
        most: Most images in a batch.
    """

    most: int
    _one: float | None = None
    _whole: float | None = None
    _slices: int = 0

    def note(self, images: int, seconds: float) -> None:
        """Record the time of a batch."""
        if images == 1:
            self._one = seconds if self._one is None else min(seconds, self._one * FORGET)
        if images == self.most:
            self._whole = seconds if self._whole is None else min(seconds, self._whole * FORGET)

    def slice(self) -> int:
        """Most images of the next slice of a long request. Assumes that the time grows linearly with the images."""
        self._slices += 1
        one, whole = self._one, self._whole
        if one is None or whole is None or self._slices % LOOK_AGAIN == 1:
            return self.most
        allowed = max(TURN_SECONDS, LONGER * one)
        if whole <= allowed:
            return self.most
        return 1 + int((self.most - 1) * (allowed - one) / (whole - one))
