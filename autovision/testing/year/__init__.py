"""A year of one deployment in a minute: the real loop on a clock that is set, over what was recorded or made up.

    world      what arrives: embeddings and truth, in shares that change over the year; what breaks, and when
    people     labels: late, not always right
    outages    a store that cannot be written at times
    models     what a search gives: a small model, fitted to the labels that it has; it costs its budget
    loop       the clock goes through the days, and the controller turns
    policies   those that are compared
    tally      what a year came to

Nothing of the loop is made up but what costs hours: the controller, the monitor with its detectors, the retraining
policy, data set versions, and the gate of promotion are as they are, and work on the records of a store in memory. A
search is replaced by a regression on embeddings, and images by as many small pictures of noise: the detector of image
quality has nothing to see, the gate is not asked about corrupted images, and near-duplicates are not looked for.
"""

from __future__ import annotations

from autovision.testing.year.loop import Year
from autovision.testing.year.people import People
from autovision.testing.year.policies import JUDGED_ONCE, POLICIES, SHIPPED
from autovision.testing.year.tally import Slots, Tally, tally
from autovision.testing.year.world import CLASSES, KINDS, Days, Images, Plan, World

__all__ = [
    "CLASSES",
    "JUDGED_ONCE",
    "KINDS",
    "POLICIES",
    "SHIPPED",
    "Days",
    "Images",
    "People",
    "Plan",
    "Slots",
    "Tally",
    "World",
    "Year",
    "tally",
]
